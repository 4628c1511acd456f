#!/usr/bin/env python3
"""Fine-tune a model on another data set, from a run of train_motivated.py, a checkpoint, or timm's weights.

python finetune.py --checkpoint output/train/x --dataset torch/cifar100 --data-dir data
python finetune.py --checkpoint output/train/x --from motivated --dataset torch/oxford_pets --data-dir data
python finetune.py --checkpoint resnet50.a3_in1k --dataset torch/flowers102 --data-dir data --epochs 2000
"""

from motivation.versions import require_versions

require_versions()

import sys  # noqa: E402

from motivation.tools.finetune import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
