"""Tiny models registered with timm: teachers whose "pretrained" weights are a file named by an environment variable,
and a distilled transformer."""

import os

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.deit import VisionTransformerDistilled

import motivation.models  # noqa: F401
from motivation.models import CifarResNet
from weight_maps import Link, WeightMap, leading, register_map

TEACHER_FILE = "COMPARISON_TEACHER"

_teacher = {
    "file": os.environ.get(TEACHER_FILE, ""),
    "num_classes": 5,
    "input_size": (3, 32, 32),
    "mean": (0.4, 0.4, 0.4),
    "std": (0.3, 0.3, 0.3),
    "classifier": "fc",
    "first_conv": "conv1",
}
_student = {"num_classes": 5, "input_size": (3, 32, 32), "classifier": ("head", "head_dist"), "mean": (0.5,) * 3,
            "std": (0.5,) * 3, "first_conv": "patch_embed.proj"}  # fmt: skip
default_cfgs = generate_default_cfgs(
    {
        "comparison_teacher.untrained": _teacher,
        "comparison_deit.untrained": _student,
        "comparison_deit_deeper.untrained": _student,
    }
)


@register_model
def comparison_teacher(pretrained=False, **kwargs):
    return build_model_with_cfg(CifarResNet, "comparison_teacher", pretrained, depth=8, **kwargs)


def _deit(name, depth, pretrained, kwargs):
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": depth, "num_heads": 2}
    return build_model_with_cfg(VisionTransformerDistilled, name, pretrained, **sizes, **kwargs)


@register_model
def comparison_deit(pretrained=False, **kwargs):
    return _deit("comparison_deit", 2, pretrained, kwargs)


@register_model
def comparison_deit_deeper(pretrained=False, **kwargs):
    return _deit("comparison_deit_deeper", 3, pretrained, kwargs)


@register_map("comparison_deit*")
def comparison_map(base, motivated):
    """Blocks by name: the base's are the first."""
    return WeightMap(tuple(Link(name, name, leading(shape)) for name, shape in base.items()))
