#!/usr/bin/env python3
"""Train a timm model, and a larger one around it when things go well (arXiv 2602.21064).

python train_motivated.py --config configs/quickstart.yaml
torchrun --nproc_per_node=8 train_motivated.py --model resnet50 --motivated-model resnet101 --motivation-k 4 ...
"""

from motivation.versions import require_versions

require_versions()

import sys  # noqa: E402

from motivation.tools.train import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
