"""Look at the files behind a data set: hidden ones, those that two splits share, those of more than 8 bits."""

from __future__ import annotations

import copy
import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from timm.data.readers.img_extensions import get_img_extensions
from timm.data.readers.reader_image_folder import ReaderImageFolder
from timm.data.readers.reader_image_in_tar import ReaderImageInTar
from torch.utils.data import Dataset, IterableDataset
from torchvision.datasets import DatasetFolder

from motivation.errors import InputError

SYSTEM_FOLDERS = frozenset(
    ("__macosx", "@eadir", "#recycle", "@recycle", "$recycle.bin", "lost+found", "system volume information")
)
"""Folders that systems make beside data, in lower case; all others begin with a dot."""

DEEP_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
"""PIL's modes of more than 8 bits a pixel."""

LOOKED_AT = 64
"""Number of images of a split whose depth is looked at."""


def is_hidden(path: str) -> bool:
    """Return True if a relative path leads through a hidden folder, or to a hidden file.

    >>> is_hidden("cat/.ipynb_checkpoints/1.png"), is_hidden("cat/._1.png"), is_hidden("./cat/1.png")
    (True, True, False)
    """
    return any(
        part.casefold() in SYSTEM_FOLDERS or (part.startswith(".") and part not in (".", ".."))
        for part in path.split(os.sep)
    )


def leave_out_hidden(dataset: Any, mapped: bool) -> list[str]:
    """Take hidden images out of a data set of files, and number the classes that are left anew.

    timm and torchvision take a folder such as ``.ipynb_checkpoints`` for a class.

    Args:
        dataset: opened; it is changed.
        mapped: True if a class map gives the numbers, which then stay.

    Returns:
        The hidden folders, and the files that are hidden by themselves; relative paths.
    """
    files = getattr(dataset, "reader", dataset)
    if isinstance(files, ReaderImageInTar):
        paths, targets = [sample[0].path for sample in files.samples], files.targets.tolist()
        classes = files.class_name_to_idx
    elif isinstance(files, (ReaderImageFolder, DatasetFolder)):
        start = len(os.path.join(files.root, ""))
        paths, targets = [path[start:] for path, _ in files.samples], [target for _, target in files.samples]
        classes = files.class_to_idx
    else:
        return []
    hidden_folders = {folder for folder in {os.path.dirname(path) for path in paths} if is_hidden(folder)}
    hidden = [os.path.dirname(path) in hidden_folders or is_hidden(os.path.basename(path)) for path in paths]
    if not any(hidden):
        return []
    kept = [index for index, is_out in enumerate(hidden) if not is_out]
    if not mapped:
        present = {targets[index] for index in kept}
        names = [name for name, number in sorted(classes.items(), key=lambda item: item[1]) if number in present]
        numbers = {classes[name]: number for number, name in enumerate(names)}
        targets = [numbers.get(target) for target in targets]
        classes = {name: number for number, name in enumerate(names)}
    if isinstance(files, ReaderImageInTar):
        files.samples, files.targets = files.samples[kept], np.array([targets[index] for index in kept])
        files.class_name_to_idx = classes
        files.class_idx_to_name = {number: name for name, number in classes.items()}
    else:
        files.samples = [(files.samples[index][0], targets[index]) for index in kept]
        files.class_to_idx = classes
    if isinstance(files, DatasetFolder):
        files.imgs, files.targets, files.classes = files.samples, [targets[index] for index in kept], list(classes)
    out = (path for path, is_out in zip(paths, hidden, strict=True) if is_out)
    alone = [path for path in out if os.path.dirname(path) not in hidden_folders]
    return sorted(hidden_folders) + sorted(alone)


def merged_folders(dataset: Any) -> list[str]:
    """Return the folders that share a class with another one: timm names a class by the last part of the path.

    Args:
        dataset: opened.

    Returns:
        Relative paths, those of one class side by side; of class folders without a map only.
    """
    reader = getattr(dataset, "reader", None)
    if not isinstance(reader, ReaderImageFolder):
        return []
    folders = {os.path.dirname(os.path.relpath(path, reader.root)) for path, _ in reader.samples}
    by_name = defaultdict(list)
    for folder in sorted(folders):
        by_name[os.path.basename(folder)].append(folder)
    return [folder for same in by_name.values() if len(same) > 1 for folder in same]


def find_images(folder: Path) -> list[str]:
    """Return the images below a folder, as sorted relative paths; hidden ones are left out."""
    kinds, found = get_img_extensions(as_set=True), []
    seen: set[str] = set()
    for place, below, files in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(place)) in seen:  # a link to a folder above would lead round for ever
            below.clear()
            continue
        seen.add(real)
        paths = (os.path.relpath(os.path.join(place, file), folder) for file in files)
        found += [path for path in paths if os.path.splitext(path)[1].lower() in kinds and not is_hidden(path)]
    return sorted(found)


class UnlabelledImages(Dataset):
    """All images below a folder, for their number in place of a label.

    Items are ``(image, number)``; for a file that cannot be read they are ``(blank image, -1 - number)``, so that
    loaders go on.

    Args:
        folder: with images at any depth.
        mode: PIL mode to convert them to.

    Raises:
        InputError: there is no such folder.
    """

    def __init__(self, folder: Path, mode: str):
        if not folder.is_dir():
            raise InputError(f"there is no folder {folder}")
        self.folder, self.mode, self.files = folder, mode, find_images(folder)
        self.transform: Any = None

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> tuple[Any, int]:
        try:
            image, label = self._read(number), number
        except Exception:  # noqa: BLE001  (each image format has its own way of refusing)
            image, label = Image.new(self.mode, (32, 32)), -1 - number
        return (image if self.transform is None else self.transform(image)), label

    def _read(self, number: int) -> Image.Image:
        path = self.folder / self.files[number]
        if not path.is_file():  # a pipe would be waited for without end
            raise OSError("it is no file")
        with Image.open(path) as image:
            return image.convert(self.mode)

    def why_unreadable(self, number: int) -> str:
        """Return why a file cannot be read, on one line."""
        try:
            self._read(number)
        except Exception as error:  # noqa: BLE001
            return " ".join(str(error).split())
        return "it could not be read, but can now"


def shared_images(train: Any, validation: Any) -> int:
    """Return the number of validation images that are trained on too, as far as the opened data sets tell."""
    count = len(validation) if hasattr(validation, "__len__") else 1
    for name in ("data", "images", "parts_of"):  # torchvision's arrays, the digits, `Joined`
        one, other = getattr(train, name, None), getattr(validation, name, None)
        if one is not None and other is not None and len(one) == len(other):
            return count if np.array_equal(np.asarray(one), np.asarray(other)) else 0
    one, other = (getattr(dataset, "reader", dataset) for dataset in (train, validation))
    if isinstance(one, ReaderImageInTar) and isinstance(other, ReaderImageInTar):
        return count if os.path.samefile(one.root, other.root) else 0
    if (names := _listed_files(one)) is not None and (others := _listed_files(other)) is not None:
        return len(set(_real_files(names)).intersection(_real_files(others)))
    splits = [str(getattr(reader, "split", "")) for reader in (one, other)]  # of readers of libraries: train[:90%]
    bases = [split.partition("[")[0] for split in splits]
    return max(count, 1) if bases[0] and bases[0] == bases[1] and (splits[0] == splits[1] or bases[0] in splits) else 0


def _listed_files(files: Any) -> list[str] | None:
    samples = getattr(files, "samples", None) or getattr(files, "imgs", None)
    if not isinstance(samples, list) or not isinstance(samples[0][0], (str, Path)):
        return None
    return [str(sample[0]) for sample in samples]


def first_special(paths: list[str]) -> str | None:
    """Return the first path of a pipe, a socket or a device, which would be waited for without end; links are not
    followed, so that no file is touched."""
    for folder, names in _names_by_folder(paths).items():
        with os.scandir(folder) as found:
            special = {one.name for one in found if not (one.is_symlink() or one.is_file() or one.is_dir())}
        for name in names:
            if name in special:
                return os.path.join(folder, name)
    return None


def _names_by_folder(paths: list[str]) -> dict[str, list[str]]:
    by_folder = defaultdict(list)
    for path in paths:
        folder, name = os.path.split(path)
        by_folder[folder].append(name)
    return by_folder


def _real_files(paths: list[str]) -> Iterator[str]:
    """Yield the files that paths lead to. Folders are resolved, and files only where they are links: that is quick."""
    for folder, names in _names_by_folder(paths).items():
        real = os.path.realpath(folder)
        with os.scandir(folder) as entries:
            links = {entry.name for entry in entries if entry.is_symlink()}
        for name in names:
            path = os.path.join(real, name)
            yield os.path.realpath(path) if name in links else path


def clipped_image(dataset: Any) -> tuple[str, str] | None:
    """Return name and PIL mode of an image whose values PIL would clip to 0 ... 255, None if there seems to be none."""
    reader = getattr(dataset, "reader", None)
    if reader is None or isinstance(dataset, IterableDataset):
        return None
    if isinstance(reader, ReaderImageInTar):  # workers must not share its open tars
        reader = copy.copy(reader)
        reader.tar_state = copy.deepcopy(reader.tar_state)
    for index in np.unique(np.linspace(0, len(reader) - 1, LOOKED_AT).astype(int)).tolist():
        try:
            with reader[index][0] as file, Image.open(file) as image:
                if image.mode in DEEP_MODES:
                    values = np.asarray(image)
                    if values.max() > 255 or (image.mode == "F" and values.max() <= 1):
                        return str(dataset.filename(index)), image.mode
        except Exception:  # noqa: BLE001  (training reports an image that cannot be read)
            continue
    return None
