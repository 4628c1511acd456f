#!/usr/bin/env python3
"""Train a timm model, and a larger one around it when things go well (arXiv 2602.21064).

python train_motivated.py --config configs/quickstart.yaml
torchrun --nproc_per_node=8 train_motivated.py --model resnet50 --motivated-model resnet101 --motivation-k 4 ...
"""

import sys
from pathlib import Path

from motivation.versions import require_packages

if __name__ == "__main__":
    require_packages(Path(__file__).with_name("requirements.txt"))
    from motivation.__main__ import main

    sys.exit(main(["train", *sys.argv[1:]]))
