"""Check a class map (``--class-map``) against the folders that it is to number."""

from __future__ import annotations

import os
import re
from argparse import Namespace
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

from timm.data.readers.class_map import load_class_map
from timm.data.readers.img_extensions import get_img_extensions
from timm.data.readers.reader_image_in_tar import extract_tarinfos

from motivation.data.image_files import is_hidden
from motivation.data.splits import named, reads_files, split_root
from motivation.options.derived import data_folder
from motivation.options.faults import Fault, StartupError, blaming

FLAG = "--class-map"
FORM = "a line is the name of one class folder, and its number is that of the line"


def check_class_map(args: Namespace, splits: Sequence[str] | None = None) -> list[str]:
    """Check a class map before the data sets are opened.

    timm numbers whatever is there: a line that is no folder becomes an output that never learns, and a folder that is
    no line is not read.

    Args:
        args: options.
        splits: names of those that will be opened; None for those of a training.

    Returns:
        What a user should know: names without images, folders that are not read, a map that is not used.

    Raises:
        StartupError: the map cannot be read, or is not what it was meant to be.
    """
    name = args.class_map
    if not name:
        return []
    if args.dataset.lower().startswith(("torch/", "sklearn/")):
        return [f"{FLAG} {name} is not used: {args.dataset} numbers its own classes."]
    if not reads_files(args.dataset):
        _load(name, "")
        return []
    if splits is None:
        splits = [args.train_split, args.val_split if args.folds is None else ""]
    notes: dict[str, list[str]] = {}
    for split in filter(None, splits):
        root = split_root(data_folder(args), split)
        for note in _compare(_load(name, root), _class_folders(root), root, name):
            notes.setdefault(note, []).append(split)
    return [f"{FLAG}: {note} (split {', '.join(splits)})." for note, splits in notes.items()]


def check_class_names(args: Namespace, dataset: Any) -> list[str]:
    """Check a class map against the names of the classes that a library's data set has.

    Returns:
        Classes without a number, and names without a class.

    Raises:
        StartupError: the names are written otherwise, or are others.
    """
    names: dict[int, str] = getattr(getattr(dataset, "reader", None), "_source_names", None) or {}
    if not args.class_map or not names:
        return []
    numbers = _load(args.class_map, "")
    by_number = numbers.keys() & names.keys()
    classes = by_number | {name for number, name in names.items() if number not in by_number}
    found = _compare(numbers, classes, args.dataset, args.class_map, "classes that it lacks end the run at an image")
    return [f"{FLAG}: {note}." for note in found]


def _load(name: str, root: str) -> dict[Any, Any]:
    """Return the numbers of a class map by name; without those of blank lines at its end."""
    path = name if os.path.exists(name) else os.path.join(root, name)
    if not os.path.isfile(path):
        _refuse(f"there is no file {name}" + (f", neither here nor in {root}" if root else ""))
    if not path.lower().endswith((".txt", ".pkl")):
        _refuse(f"{path} is no .txt ({FORM}) and no .pkl (a dictionary of names and numbers)")
    with blaming(FLAG, name):
        numbers = {name: number for name, number in load_class_map(name, root).items() if name != ""}
    _check_numbers(numbers)
    if path.lower().endswith(".txt"):
        _check_lines(path)
    return numbers


def _refuse(text: str) -> None:
    raise StartupError([Fault(FLAG, text)])


def _check_numbers(numbers: dict[Any, Any]) -> None:
    if not numbers:
        _refuse("the file names no class")
    for number in numbers.values():
        if not isinstance(number, int):
            _refuse(f"the number of a class is a whole number, not {number!r}")


def _check_lines(path: str) -> None:
    """Refuse lines that timm would count as classes, and names that stand there twice."""
    with open(path, encoding="utf-8") as file:
        lines = [line.strip() for line in file]
    while lines and not lines[-1]:
        lines.pop()
    if "" in lines:
        _refuse(f"line {lines.index('') + 1} of {path} is blank and would be a class without images; {FORM}")
    twice = [name for name, count in Counter(lines).items() if count > 1]
    if twice:
        places = ", ".join(str(number) for number, line in enumerate(lines, 1) if line == twice[0])
        _refuse(f"{twice[0]!r} stands on the lines {places} of {path}; {FORM}")


def _compare(
    numbers: dict[Any, Any],
    folders: set[Any],
    root: str,
    path: str,
    unnamed: str = "folders that it does not name are left out",
) -> list[str]:
    """Return notes on names and classes that do not match; refuse a map whose names are classes written otherwise.

    Args:
        numbers: those of the map by name.
        folders: the classes that there are.
        root: where they are.
        path: of the map.
        unnamed: what becomes of classes that are not in the map.
    """
    missing = [name for name in numbers if name not in folders]
    left_out = sorted(folder for folder in folders - numbers.keys() if folder)
    if odd := _misspelt(missing, left_out):
        name, folder = odd
        mark = " (begin the file without a byte order mark)" if name.startswith("\ufeff") else ""
        _refuse(f"{path} has {name!r} where {root} has {folder!r}{mark}; {FORM}")
    if len(missing) == len(numbers):
        _refuse(f"no name in {path} ({named(missing)}) is a class with images; {root} has {named(left_out)}; {FORM}")
    if comments := [name for name in missing if isinstance(name, str) and name.startswith("#")]:
        _refuse(f"{path} has a comment, {comments[0]!r}, which would be a class without images; {FORM}")
    notes = []
    if missing:
        notes.append(f"there are no images of {named(missing)}, whose outputs of the model cannot learn")
    if left_out:
        notes.append(f"{unnamed}: {named(left_out)}")
    if unused := set(range(max(numbers.values()))) - set(numbers.values()):
        notes.append(f"no class has the numbers {named(sorted(unused))}, so these outputs of the model cannot learn")
    return notes


def _class_folders(root: str) -> set[str]:
    """Return the names of the folders with images, in a folder or a tar."""
    if os.path.isfile(root):
        return {name for name in extract_tarinfos(root)[2] if not is_hidden(name)}
    kinds = get_img_extensions(as_set=True)
    return {
        os.path.basename(place)
        for place, _, files in os.walk(root, followlinks=True)
        if (place == root or not is_hidden(os.path.relpath(place, root)))
        and any(os.path.splitext(file)[1].lower() in kinds for file in files)
    }


def _misspelt(missing: Sequence[Any], left_out: Collection[str]) -> tuple[str, str] | None:
    """Return a name and the folder that it means: another case, a number beside it, a byte order mark before it."""
    plain = {folder.casefold(): folder for folder in left_out}
    for name in map(str, missing):
        for part in (name.strip("\ufeff/\\\"' "), *re.split(r"[\s,;:]+", name.lstrip("\ufeff"))):
            if folder := plain.get(part.strip("\"'/").casefold()):
                return name, folder
    return None
