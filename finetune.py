#!/usr/bin/env python3
"""Fine-tune a model on another data set, from a run of train_motivated.py, a checkpoint, or timm's weights.

python finetune.py --checkpoint output/train/x --dataset torch/cifar100 --data-dir data
python finetune.py --checkpoint output/train/x --from motivated --dataset torch/oxford_pets --data-dir data
python finetune.py --checkpoint resnet50.a3_in1k --dataset torch/flowers102 --data-dir data --epochs 2000
"""

import sys
from pathlib import Path

from motivation.versions import require_packages

if __name__ == "__main__":
    require_packages(Path(__file__).with_name("requirements.txt"))
    from motivation.__main__ import main

    sys.exit(main(["finetune", *sys.argv[1:]]))
