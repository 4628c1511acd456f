"""The CIFAR ResNets of He et al. (2016), section 4.2, registered with timm; the paper trains them in its section 4.1.

Names: ``resnet8_cifar`` … ``resnet110_cifar``. Stages of 16, 32 and 64 channels with (depth - 2) / 6 blocks each.
Between stages the shortcut is a strided 1x1 convolution with BatchNorm (option B) or, with ``shortcut='A'``, a
strided identity padded with zero channels, which has no parameters.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch.nn.functional as F
from timm.layers import DropPath, create_classifier
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models._features import feature_take_indices
from timm.models.resnet import BasicBlock, ResNet, downsample_conv
from torch import Tensor, nn

CIFAR_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR_STD = (0.2470, 0.2435, 0.2616)


class PaddedShortcut(nn.Module):
    """Option A: every second pixel, and zeros for the channels that are new."""

    def __init__(self, new_channels: int, stride: int):
        super().__init__()
        self.pad, self.stride = new_channels, stride

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W] -> [B, C + new, H / stride, W / stride]``"""
        before = self.pad // 2
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, before, self.pad - before))


class CifarResNet(ResNet):
    """ResNet for images of about 32 px (He et al. 2016, section 4.2).

    timm's ResNet with a stem of one 3x3 convolution and three stages; the fourth is empty. Its features, for
    ``features_only`` and ``forward_intermediates``, are the stem's and those of the three stages.

    Args:
        depth: 6 n + 2 layers for n blocks in each of the three stages.
        num_classes: outputs of the head; 0 for none.
        in_chans: channels of the images.
        shortcut: ``'B'`` (projection, as in the paper's FLOPs) or ``'A'`` (zero padding).
        global_pool: timm pooling name.
        drop_rate: dropout before the head.
        drop_path_rate: stochastic depth of the last block, growing linearly from 0 at the first.
        zero_init_last: start the last BatchNorm of every block with zeros; with ones otherwise, as in the paper.
        bn_momentum, bn_eps: of every BatchNorm.
        device, dtype: where and as what the weights are made.

    Raises:
        ValueError: depth is not 6 n + 2, or the shortcut is neither A nor B.
    """

    def __init__(
        self,
        depth: int = 20,
        num_classes: int = 10,
        in_chans: int = 3,
        shortcut: str = "B",
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        zero_init_last: bool = False,
        bn_momentum: float = 0.1,
        bn_eps: float = 1e-5,
        device: Any = None,
        dtype: Any = None,
    ):
        nn.Module.__init__(self)
        if depth < 8 or (depth - 2) % 6:
            raise ValueError(f"a CIFAR ResNet has 6 n + 2 layers, not {depth}")
        if shortcut not in ("A", "B"):
            raise ValueError(f"shortcut is 'A' or 'B', not {shortcut!r}")
        blocks = (depth - 2) // 6
        place = {"device": device, "dtype": dtype}
        norm: Any = partial(nn.BatchNorm2d, momentum=bn_momentum, eps=bn_eps)
        self.num_classes, self.in_chans, self.drop_rate = num_classes, in_chans, drop_rate
        self.num_features = 64
        self.grad_checkpointing = False
        self.feature_info = [{"num_chs": 16, "reduction": 1, "module": "act1"}]

        self.conv1 = nn.Conv2d(in_chans, 16, 3, padding=1, bias=False, **place)  # type: ignore[assignment]
        self.bn1 = norm(16, **place)
        self.act1 = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity()  # type: ignore[assignment]
        channels = 16
        for stage, width in enumerate((16, 32, 64)):
            layers = []
            for block in range(blocks):
                stride = 2 if stage and not block else 1
                downsample: nn.Module | None = None
                if stride == 2 and shortcut == "A":
                    downsample = PaddedShortcut(width - channels, stride)
                elif stride == 2:
                    downsample = downsample_conv(
                        channels, width, kernel_size=1, stride=stride, norm_layer=norm, **place
                    )
                drop = drop_path_rate * (stage * blocks + block) / max(1, 3 * blocks - 1)
                drop_path = DropPath(drop) if drop else None
                layers.append(
                    BasicBlock(channels, width, stride, downsample, norm_layer=norm, drop_path=drop_path, **place)
                )
                channels = width
            self.add_module(f"layer{stage + 1}", nn.Sequential(*layers))
            self.feature_info.append({"num_chs": width, "reduction": 2**stage, "module": f"layer{stage + 1}"})
        self.layer4 = nn.Sequential()
        self.global_pool, self.fc = create_classifier(64, num_classes, pool_type=global_pool, **place)
        self.head_hidden_size = self.num_features * self.global_pool.feat_mult()
        self.init_weights(zero_init_last=zero_init_last)

    def forward_intermediates(  # type: ignore[override]
        self, x: Tensor, indices: int | list[int] | None = None, **options: Any
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Return the final features and those of the stem (0) and the stages (1, 2, 3), as timm's ResNet does.

        Args:
            x: ``[B, C, H, W]``
            indices: which of the four; the last n for an integer, all for None.
            options: those of timm's ``ResNet.forward_intermediates``.
        """
        # timm counts five features: a negative index would be counted from the empty fourth stage.
        taken, _ = feature_take_indices(len(self.feature_info), indices)
        return super().forward_intermediates(x, taken, **options)

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Remove the stages after the last of the named features, and the head, which does not fit what is left.

        Args:
            indices: features to keep, as in ``forward_intermediates``.
            prune_norm: without effect; there is no norm after the last stage.
            prune_head: remove the head also where every stage stays.
        """
        taken, last = feature_take_indices(len(self.feature_info), indices)
        for stage in range(last + 1, 4):
            self.add_module(f"layer{stage}", nn.Sequential())
        self.num_features = self.feature_info[last]["num_chs"]
        if prune_head or last < len(self.feature_info) - 1:
            self.reset_classifier(0, "")
        return taken


DEPTHS = (8, 14, 20, 26, 32, 38, 44, 50, 56, 110)

_CFG = {
    "url": "",
    "num_classes": 10,
    "input_size": (3, 32, 32),
    "pool_size": (8, 8),
    "fixed_input_size": False,
    "crop_pct": 1.0,
    "interpolation": "bilinear",
    "mean": CIFAR_MEAN,
    "std": CIFAR_STD,
    "first_conv": "conv1",
    "classifier": "fc",
    "license": "apache-2.0",
}

default_cfgs = generate_default_cfgs({f"resnet{depth}_cifar.untrained": dict(_CFG) for depth in DEPTHS})


def _entrypoint(depth: int):
    def create(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
        if "depth" in kwargs:
            raise ValueError(f"the depth of resnet{depth}_cifar is {depth}; choose another model")
        features = {"out_indices": (0, 1, 2, 3)}
        return build_model_with_cfg(
            CifarResNet, f"resnet{depth}_cifar", pretrained, feature_cfg=features, depth=depth, **kwargs
        )

    create.__name__ = create.__qualname__ = f"resnet{depth}_cifar"
    create.__doc__ = f"ResNet-{depth} for CIFAR (He et al. 2016, section 4.2)."
    return register_model(create)


for _depth in DEPTHS:
    globals()[f"resnet{_depth}_cifar"] = _entrypoint(_depth)
