"""Tensors that hold several parts one after the other on an axis, and layers whose channels cannot be sliced at all.

Where one layer computes q, k and v, the first d rows of a wider layer are all of q and some of k. So the base takes the
leading slice of each part. A shape does not show which layers do so, or in which order the parts lie: the table below
was read in timm's sources, and is checked by computing (`weight_maps.containment`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from weight_maps.core import Axis
from weight_maps.layout import Layout

Parts = list[tuple[int, ...]]
"""The sizes of the parts of each axis, in order; most axes are one part."""

Settings = Mapping[str, Any]
Sizes = int | Callable[[Settings], int | Sequence[int]]
"""A number of equal parts, or a function of the module's settings that returns that number or the sizes."""


@dataclass(frozen=True)
class Rule:
    """The parts of a layer's outputs and inputs.

    Attributes:
        kind: shell pattern for the `Facts.kind` of a module.
        layer: regular expression for the path of the layer inside that module.
        outputs: parts of axis 0 of its tensors.
        inputs: parts of axis 1 of its matrices.
    """

    kind: str
    layer: str
    outputs: Sizes = 1
    inputs: Sizes = 1


RULES = (
    # One head after the other, each with its q, k and v: leading rows are whole heads.
    Rule("levit.Attention*", r"(qkv|kv)\..*"),
    Rule("tiny_vit.Attention", "qkv"),
    Rule("efficientformer.Attention", "qkv"),
    Rule("efficientvit_mit.LiteMLA", r"qkv\..*"),
    Rule("maxxvit.Attention2d", "qkv", outputs=lambda s: 1 if s["head_first"] else 3),
    Rule("maxxvit.AttentionCl", "qkv", outputs=lambda s: 1 if s["head_first"] else 3),
    # Other orders and numbers.
    Rule("gcvit.WindowAttentionGlobal", "qkv", outputs=lambda s: 2 if s["use_global"] else 3),
    Rule("mobilevit.LinearSelfAttention", "qkv_proj", outputs=lambda s: (1, s["embed_dim"], s["embed_dim"])),
    Rule("vision_transformer.*Parallel*Block", "in_proj", outputs=lambda s: s["in_split"]),
    Rule("nest.Attention", "proj", inputs=lambda s: round(s["scale"] ** -2)),  # a head's width: scale is width ** -0.5
    Rule("efficientvit_mit.LiteMLA", r"proj\.conv", inputs=2),
    Rule("focalnet.FocalModulation", "f", outputs=lambda s: s["input_split"]),
    Rule("efficientvim.HSMSSD", r"hz_proj\..*", outputs=2),
    Rule("efficientvim.HSMSSD", r"(BCdt_proj|dw)\..*", outputs=3),
    # Gates beside values.
    Rule("mlp.GluMlp", "fc1", outputs=2),
    Rule("mlp.GatedMlp", "fc1", outputs=2),
    Rule("iformer.*", r"v_gate\..*", outputs=2),
    # Its gate is multiplied with the concatenation of the other two, so it has their parts.
    Rule("mambaout.GatedConvBlock", "fc1", outputs=lambda s: s["split_indices"][1:] * 2),
    Rule("mambaout.GatedConvBlock", "fc2", inputs=lambda s: s["split_indices"][1:]),
    Rule("sequencer.LSTM2d", "fc", inputs=4),
    # Concatenations of equal halves or quarters.
    Rule("swin_transformer*.PatchMerging", "reduction", inputs=4),
    Rule("swin_transformer.PatchMerging", "norm", outputs=4),
    Rule("swin_transformer_v2_cr.PatchMerging", "norm", outputs=4),
    Rule("qwen3_vit.Qwen3VitPatchMerger", "fc1", inputs=lambda s: s["merge_size"] ** 2),
    Rule("mobilevit.MobileVitBlock", r"conv_fusion\.conv", inputs=2),
    Rule("cspnet.CrossStage*", r"conv_exp\..*", outputs=2),
    Rule("cspnet.CrossStage*", r"conv_transition\.conv", inputs=2),
    Rule("cspnext.CspNextLayer", r"attention\.fc", outputs=2, inputs=2),
    Rule("cspnext.SPPBottleneck", r"conv2\.conv", inputs=4),
    Rule("cspnext.CspNextLayer", r"final_conv\.conv", inputs=2),
    # In any model, by the name of the layer.
    Rule("LSTM", r"", outputs=4),  # its gates
    Rule("*", r"(.*\.)?qkv(\..*)?", outputs=3),
    Rule("*", r"(.*\.)?(kv|qk)(\..*)?", outputs=2),
    Rule("MultiheadAttention", r"", outputs=3),
)

UNSLICEABLE = {
    "densenet.DenseBlock": "its layers take the concatenation of all earlier ones, whose channels would move",
    "rdnet.DenseStage": "its layers take the concatenation of all earlier ones, whose channels would move",
    "dla.DlaRoot": "it takes the concatenation of the levels below, whose channels would move",
    "vovnet.OsaBlock": "it concatenates the outputs of all its layers, whose channels would move",
    "hgnet.HighPerfGpuBlock": "it concatenates the outputs of all its layers, whose channels would move",
    "hgnet.StemV2": "it concatenates two branches, whose channels would move",
    "ghostnet.GhostModule*": "its output is the concatenation of two layers, whose channels would move",
    "nextvit.NextTransformerBlock": "it concatenates two kinds of attention, whose channels would move",
    "mixed_conv2d.MixedConv2d": "it splits its channels by kernel, and the splits would move",
    "edgenext.SplitTransposeBlock": "it splits its channels by scale, and the splits would move",
    "res2net.Bottle2neck": "it splits its channels by scale, and the splits would move",
    "dla.DlaBottle2neck": "it splits its channels by scale, and the splits would move",
    "selective_kernel.SelectiveKernel": "it stores a choice of paths by channel, and the channels would move",
    "split_attn.SplitAttn": "it sums splits of its channels, which would move",
    "coat.ConvRelPosEnc": "it splits its heads by window, and the splits would move",
    "cond_conv2d.CondConv2d": "it stores a whole kernel as one row",
    "modeling_gpt2.GPT2Attention": "its matrices are stored transposed, with q, k and v side by side",
    "efficientvit_msra.CascadedGroupAttention": "it splits its channels by head, and the splits would move",
}
"""Modules that must have equal shapes in both models, and why."""

SPLIT_AT = {
    "dpn.DualPathBlock": ("num_1x1_c", "inc"),
    "fasternet.Partial_conv3": ("dim_conv3", "dim_untouched"),
    "shvit.SHSA": ("pdim", "qk_dim"),
    "inception_next.InceptionDWConv2d": ("split_indexes",),
}
"""Modules that treat their channels differently from some channel on, and the settings that say from which."""

COUNTS_OF = {
    "pos_embed_sincos.RotaryEmbeddingMixed": ("depth",),  # one set of frequencies for each block
    "nfnet.NormFreeBlock": ("alpha",),
}
"""Modules with settings that must be equal in both models, though the same names mean nothing in other modules."""


class PartsReader:
    """Find the parts of each axis of a model's tensors. Without facts the names alone decide."""

    def __init__(self, layout: Layout):
        self._layout = layout
        kinds = {facts.kind for facts in layout.modules.values()}
        self._rules = [rule for rule in RULES if rule.kind == "*" or any(fnmatchcase(k, rule.kind) for k in kinds)]
        self._found: dict[str, tuple[Rule, Settings] | None] = {}

    def __call__(self, name: str) -> Parts:
        """Return the parts of one tensor."""
        shape = self._layout[name]
        parts: Parts = [(size,) for size in shape]
        owner = name.rpartition(".")[0]
        if owner not in self._found:
            self._found[owner] = self._rule_for(owner)
        if found := self._found[owner]:
            rule, settings = found
            for axis, sizes in enumerate((rule.outputs, rule.inputs)[: len(shape)]):
                parts[axis] = _split(shape[axis], sizes(settings) if callable(sizes) else sizes)
        return parts

    def _rule_for(self, owner: str) -> tuple[Rule, Settings] | None:
        """Return the first rule for a layer in the modules around it, with the settings of that module."""
        words = owner.split(".")
        around = [(".".join(words[:n]), ".".join(words[n:])) for n in range(len(words), -1, -1)]
        for rule in self._rules:
            if rule.kind == "*":
                if re.fullmatch(rule.layer, owner):
                    return rule, {}
                continue
            for path, inside in around:
                facts = self._layout.modules.get(path)
                if facts and fnmatchcase(facts.kind, rule.kind) and re.fullmatch(rule.layer, inside):
                    return rule, facts.settings
        return None


def _split(size: int, sizes: int | Sequence[int]) -> tuple[int, ...]:
    """Split an axis into equal parts, or into parts of these sizes; leave it whole where they do not add up."""
    if isinstance(sizes, int):
        return (size // sizes,) * sizes if sizes and size % sizes == 0 else (size,)
    return tuple(sizes) if sum(sizes) == size else (size,)


def leading_parts(base: Parts, motivated: Parts) -> tuple[Axis, ...] | None:
    """Return the index that takes the leading slice of each part on each axis; None where the parts do not match.

    >>> leading_parts([(2, 2)], [(3, 3)])
    (((0, 2), (3, 5)),)
    >>> leading_parts([(4,), (1,)], [(9,), (1,)])
    (((0, 4),), ((0, 1),))
    """
    index = []
    for small, large in zip(base, motivated, strict=True):
        if len(small) != len(large) or any(a > b for a, b in zip(small, large, strict=True)):
            return None
        start, runs = 0, []
        for a, b in zip(small, large, strict=True):
            runs.append((start, start + a))
            start += b
        index.append(_joined(runs))
    return tuple(index)


def _joined(runs: Sequence[tuple[int, int]]) -> Axis:
    """Join runs that touch; the elements stay the same."""
    joined = [runs[0]]
    for start, stop in runs[1:]:
        if start == joined[-1][1]:
            joined[-1] = (joined[-1][0], stop)
        else:
            joined.append((start, stop))
    return tuple(joined)


def unsliceable(kind: str) -> str | None:
    """Return why modules of this kind must have equal shapes; None if they need not."""
    return next((reason for pattern, reason in UNSLICEABLE.items() if fnmatchcase(kind, pattern)), None)
