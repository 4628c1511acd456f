"""The recipes of the paper run as they stand, on small models and made-up images."""

import numpy as np
import pytest
from PIL import Image
from support.program import ROOT, load, rows

from motivation.tools.train import main

CONFIGS = ROOT / "configs"
SMALL = {
    "imagenet/resnet50_resnet101_a3.yaml": ["resnet18", "resnet34", "3 32 32", "--val-input-size", "3", "48", "48",
        "--model-kwargs", "channels=[16,32,64,128]",
    ],
    "cifar100/vit_tiny_vit_small.yaml": [
        "vit_tiny_patch16_224", "vit_small_patch16_224", "3 32 32", "--model-kwargs", "depth=1", "img_size=32",
    ],
    "cifar100/efficientnet_b0_b1.yaml": ["efficientnet_b0", "efficientnet_b1", "3 32 32", "--train-pad", "4"],
    "cifar100/resnet20_resnet32.yaml": ["resnet8_cifar", "resnet14_cifar", "3 16 16"],
}  # fmt: skip


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder of 60 images to train and 10 to validate, in 10 classes."""
    folder, stream = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for split, each in (("train", 6), ("validation", 1)):
        for name in range(10):
            place = folder / split / f"n{name:02d}"
            place.mkdir(parents=True)
            for index in range(each):
                pixels = stream.integers(0, 255, (48, 56, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{index}.png")
    return folder


@pytest.mark.parametrize("name", SMALL)
def test_the_whole_recipe_trains_both_models(name, images, tmp_path):
    base, motivated, size, *further = SMALL[name]
    argv = [
        "--config", str(CONFIGS / name), "--dataset", "", "--data-dir", str(images), "--val-split", "validation",
        "--model", base, "--motivated-model", motivated, "--input-size", *size.split(), "-b", "8", "-vb", "5",
        "--grad-accum-steps", "2", "--epochs", "2", "--warmup-epochs", "1", "--motivation-k", "1", "--device", "cpu",
        "-j", "0", "--output", str(tmp_path), "--experiment", "run", *further,
    ]  # fmt: skip
    assert main(argv) == 0
    active = {row["active"] for row in rows(tmp_path / "run" / "updates.csv")}
    assert active == {"base", "motivated"}
    assert len(rows(tmp_path / "run" / "summary.csv")) == 2
    args = load(tmp_path / "run" / "last.pth.tar")["args"]
    assert not args.amp or args.amp_dtype == "bfloat16"  # float16 waits before every step
    assert args.num_classes == {"imagenet": 1000}.get(name.partition("/")[0], 100)
