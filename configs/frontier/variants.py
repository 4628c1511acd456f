"""Variants of the method itself that were tried for docs/frontier.md: how the differential part begins and learns.

python -m motivation frontier frontier/digits --variant forget "--motivation-plugins configs/frontier/variants.py
    --motivation-condition changed --motivation-plugin-kwargs momentum=0"

An experiment, not an example: a plugin cannot reach the models, so this one replaces two methods of `MotivatedPair`.
It is for one process.
"""

import torch
from torch.nn import functional as F

from motivation import MotivatedPair, register_condition
from motivation.method.conditions import FallingLoss
from weight_maps.depth import extra_blocks

LAST = ("bn3", "bn2", "attn.proj", "mlp.fc2")
"""The last layers of a block's residual branches: of a ResNet, an EfficientNet, a vision transformer. The first of
these that a block has for each branch is taken."""

_make, _observe = MotivatedPair.__init__, MotivatedPair.observe


@register_condition("changed")
class Changed(FallingLoss):
    """The paper's condition in a run whose differential part is treated in another way.

    Args:
        k: length of the streak.
        begin: of a new block: "default", or "copy" (of the block before it, the last layer of its branches halved).
        rate: factor on the learning rate of the differential part.
        decay: factor on its weight decay.
        momentum: factor on its momentum at the first update after an idle stretch: 1 keeps it, 0 forgets it.
        distillation: weight of one more step of the base after each motivated update, towards the outputs that the
            motivated model has just made.
    """

    def __init__(self, k, begin="default", rate=1.0, decay=1.0, momentum=1.0, distillation=0.0):
        super().__init__(k)
        self.begin, self.rate, self.decay, self.momentum, self.distillation = begin, rate, decay, momentum, distillation


def make_pair(pair, base, motivated, weights_map, condition, *others, **named):
    """Make a pair, and change it as its condition says."""
    _make(pair, base, motivated, weights_map, condition, *others, **named)
    if not isinstance(condition, Changed):
        return
    small, large = base.model, motivated.model
    weights_map.expand(small, large)
    if condition.begin == "copy":
        copy_neighbours(large, [link.motivated for link in weights_map.links])

    masks = {name: torch.ones_like(tensor) for name, tensor in large.named_parameters()}
    for _, part in weights_map.pairs(small.state_dict(), masks):
        part.zero_()
    parts = [(tensor, masks[name]) for name, tensor in large.named_parameters() if masks[name].any()]
    pair.idle, pair.seen = True, []
    before = {}

    @torch.no_grad()
    def prepare(optimizer, *_):
        decays = {tensor: group["weight_decay"] for group in optimizer.param_groups for tensor in group["params"]}
        for tensor, mask in parts:
            tensor.grad += (condition.decay - 1) * decays[tensor] * mask * tensor
            before[tensor] = tensor.clone()
            buffer = optimizer.state.get(tensor, {}).get("momentum_buffer")
            if pair.idle and buffer is not None:
                buffer *= 1 + (condition.momentum - 1) * mask
        pair.idle = False

    @torch.no_grad()
    def finish(*_):
        for tensor, mask in parts:
            tensor -= (1 - condition.rate) * mask * (tensor - before[tensor])

    if (condition.rate, condition.decay, condition.momentum) != (1, 1, 1):
        motivated.optimizer.register_step_pre_hook(prepare)
        motivated.optimizer.register_step_post_hook(finish)
    if condition.distillation:
        large.register_forward_hook(
            lambda model, given, logits: pair.seen.append((given[0], logits.detach())) if model.training else None
        )


@torch.no_grad()
def copy_neighbours(model, shared):
    """Let each block that is new in the motivated model begin as the one before it, with half of what that adds.

    Args:
        model: the motivated model, with the base's weights in it.
        shared: names of the tensors that the base has, too.
    """
    for path in extra_blocks(shared, model.state_dict()):
        stage, _, number = path.rpartition(".")
        block = model.get_submodule(path)
        block.load_state_dict(model.get_submodule(f"{stage}.{int(number) - 1}").state_dict())
        modules = dict(block.named_modules())
        ends = [modules[last] for last in LAST if last in modules]
        for end in ends if "mlp.fc2" in modules else ends[:1]:
            for tensor in end.parameters():
                tensor *= 0.5


def observe(pair, *signals, **named):
    """Observe an update; let the base learn from the motivated model's outputs where that is wished."""
    record = _observe(pair, *signals, **named)
    pair.idle = not pair.is_motivated
    weight = getattr(pair.condition, "distillation", 0.0)
    if weight and pair.is_motivated:
        pair.extract()
        model, optimizer = pair.base
        optimizer.zero_grad()
        for images, logits in pair.seen:
            loss = F.kl_div(model(images).log_softmax(1), logits.softmax(1), reduction="batchmean")
            (weight * loss / len(pair.seen)).backward()
        optimizer.step()
        optimizer.zero_grad()
        pair.expand()
    if weight:
        pair.seen.clear()
    return record


MotivatedPair.__init__, MotivatedPair.observe = make_pair, observe
