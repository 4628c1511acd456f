"""Two nested toy nets and learners around them."""

import torch
from timm.optim import create_optimizer_v2
from timm.task import ClassificationTask
from torch import nn

from motivation.data.update_loader import MicroBatch
from motivation.method.conditions import Never
from motivation.method.optimizer_probe import inner_optimizer
from motivation.method.pair import MotivatedPair
from motivation.method.records import Role
from motivation.training.learner import Learner, UpdateRule
from weight_maps import Link, WeightMap, leading


class Toy(nn.Module):
    """Stem with BatchNorm, residual linear blocks, head; grows in width and depth."""

    def __init__(self, width=4, depth=2, classes=3, seed=0, dropout=0.0):
        super().__init__()
        torch.manual_seed(seed)
        self.num_classes, self.in_chans = classes, 2
        self.stem = nn.Conv2d(2, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.blocks = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        """``[B, 2, H, W] -> [B, classes]``"""
        x = self.norm(self.stem(x)).relu().mean((2, 3))
        for block in self.blocks:
            x = x + block(x).relu()
        return self.head(self.dropout(x))


def toy_map(base):
    """Leading slices by name: the base's blocks are the first of the motivated model's."""
    return WeightMap(tuple(Link(name, name, leading(value.shape)) for name, value in base.state_dict().items()))


def learner(model, role=Role.BASE, opt="sgd", rule=None, ema_decay=None, lr=0.05, weight_decay=0.05, **options):
    """A learner of cross-entropy."""
    task = ClassificationTask(model, nn.CrossEntropyLoss(), verbose=False)
    optimizer = create_optimizer_v2(model, opt=opt, lr=lr, weight_decay=weight_decay, momentum=0.9, **options)
    if ema_decay is not None:
        task.setup_ema(decay=ema_decay)
    return Learner(role, task, optimizer, None, rule or UpdateRule())


def make_pair(opt="sgd", batchnorm="copy", wide=True, ema_decay=None, rule=None, **options):
    """A pair of two toys under the condition never; ``wide`` makes the motivated one wider, else only deeper."""
    base, motivated = Toy(4, 2, seed=1), Toy(6 if wide else 4, 3, seed=2)
    learners = [
        learner(model, role, opt, rule, ema_decay, **options)
        for model, role in ((base, Role.BASE), (motivated, Role.MOTIVATED))
    ]
    return MotivatedPair(*learners, toy_map(base), Never(), batchnorm)


def switch(pair):
    """Make the other model the active one."""
    pair.extract() if pair.is_motivated else pair.expand()


def batch(seed=0, size=8, accum_steps=1, is_last=True, classes=3):
    """A micro-batch of noise."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(size, 2, 5, 5, generator=generator)
    targets = torch.randint(classes, (size,), generator=generator)
    return MicroBatch(images, targets, accum_steps, is_last, 0)


def update(one, seed=0):
    """One update of a learner on noise."""
    return one.train([batch(seed)])


def snapshot(one):
    """A deep copy of weights, buffers, optimizer state and EMA, by name."""
    names = {parameter: name for name, parameter in one.model.named_parameters()}
    state = {
        names[p]: {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in values.items()}
        for p, values in inner_optimizer(one.optimizer).state.items()
        if p in names
    }
    groups = [{k: v for k, v in group.items() if k != "params"} for group in one.optimizer.param_groups]
    models = {"model": one.model} | ({} if one.ema is None else {"ema": one.ema_model})
    weights = {name: {k: v.clone() for k, v in model.state_dict().items()} for name, model in models.items()}
    return {**weights, "state": state, "groups": groups}


def assert_carried(pair, name, to_motivated):
    """The receiver has the sender's state on the mapped part; the sender's is untouched."""
    small = dict(pair.base.model.named_parameters())
    large = dict(pair.motivated.model.named_parameters())
    base_state = inner_optimizer(pair.base.optimizer).state
    motivated_state = inner_optimizer(pair.motivated.optimizer).state
    compared = 0
    for key, parameter in small.items():
        sent = base_state[parameter] if to_motivated else motivated_state[large[key]]
        for entry in sent:
            a, b = base_state[parameter][entry], motivated_state[large[key]][entry]
            if not isinstance(a, torch.Tensor) or a.dim() == 0:
                assert a == b or a is b, (name, key, entry)
            else:
                assert torch.equal(a, b[tuple(slice(0, size) for size in a.shape)]), (name, key, entry)
            compared += 1
    return compared
