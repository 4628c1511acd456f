"""The pages of docs/loops: what they do in other frameworks' loops is what a loop of one's own does, bit for bit."""

import copy
import re
from importlib.metadata import PackageNotFoundError, version

import pytest
import torch
from support.program import ROOT, assert_equal
from torch.nn import functional as F

import motivation
from motivation import Side, make_condition
from motivation.method.pair import MotivatedPair


class Recorded(MotivatedPair):
    """A pair that remembers its models as they were, and the batches of each update of each epoch."""

    def __init__(self, base, motivated, *rest, **named):
        super().__init__(base, motivated, *rest, **named)
        self.at_first = [copy.deepcopy(side.model) for side in self.sides]
        self.epochs, self.batches = [[]], []
        for side in self.sides:
            side.model.register_forward_pre_hook(self.remember, with_kwargs=True)

    def remember(self, model, args, kwargs):
        if model.training:
            self.batches.append((args, {name: value for name, value in kwargs.items() if name != "labels"}))

    def start_epoch(self, epoch, updates=None):
        super().start_epoch(epoch, updates)
        if self.epochs != [[]]:
            self.epochs.append([])

    def observe(self, *args, **kwargs):
        self.epochs[-1].append(self.batches)
        self.batches = []
        return super().observe(*args, **kwargs)


def remembering(targets):
    """Return a cross entropy that remembers its targets."""
    cross_entropy = F.cross_entropy

    def loss(logits, target, *args, **kwargs):
        targets.append(target)
        return cross_entropy(logits, target, *args, **kwargs)

    return loss


def own_loop(recorded, targets, make_schedule):
    """Train the models as they were on the same batches, in a plain loop."""
    sides = [Side(model, torch.optim.AdamW(model.parameters(), lr=3e-3)) for model in recorded.at_first]
    pair = MotivatedPair(*sides, weights_map=None, condition=make_condition("loss", k=2))
    schedules = [make_schedule(side.optimizer) for side in sides]
    targets = iter(targets)
    for epoch, updates in enumerate(recorded.epochs):
        pair.start_epoch(epoch, len(updates))
        for batches in updates:
            model, optimizer = pair.select()
            optimizer.zero_grad()
            losses = []
            for args, kwargs in batches:
                output = model(*args, **kwargs)
                losses.append(F.cross_entropy(getattr(output, "logits", output), next(targets)))
                (losses[-1] / len(batches)).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            for schedule in schedules:
                schedule.step()
            pair.observe(torch.stack(losses).mean())
        pair.end_epoch()
    return pair


def cosine(updates):
    return lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)


def transformers_cosine(updates):
    from transformers import get_cosine_schedule_with_warmup

    return lambda optimizer: get_cosine_schedule_with_warmup(optimizer, 0, updates)


@pytest.mark.parametrize(
    ("page", "package", "make_schedule", "checkpoint"),
    [
        ("lightning", "lightning", lambda: cosine(140), "checkpoints/epoch=2.ckpt"),
        ("accelerate", "accelerate", lambda: cosine(140), "checkpoints/epoch2"),
        ("trainer", "transformers", lambda: transformers_cosine(84), "checkpoints/checkpoint-40"),
        ("composer", "mosaicml", lambda: cosine(140), "checkpoints/ep2-ba80-rank0.pt"),
    ],
    ids=["lightning", "accelerate", "trainer", "composer"],
)
def test_the_loop_of_the_page_trains_and_resumes_as_a_loop_of_ones_own(
    page, package, make_schedule, checkpoint, tmp_path, monkeypatch
):
    try:
        version(package)
    except PackageNotFoundError:
        pytest.skip(f"no {package}: pip install -e .[loops]; for mosaicml see docs/loops/composer.md")
    document = ROOT / "docs" / "loops" / f"{page}.md"
    code = re.search(r"```python\n(.*?)```", document.read_text(), re.DOTALL)[1]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(motivation, "MotivatedPair", Recorded, raising=False)
    targets, names = [], {}
    with monkeypatch.context() as patch:
        patch.setattr(F, "cross_entropy", remembering(targets))
        exec(code, names)

    pair = names["pair"]
    assert 0.1 < pair.counts.share < 0.5
    assert pair.counts.switches > 10
    expected = own_loop(pair, targets, make_schedule())
    for trained in (pair, expected):
        trained.sync_idle_model()
    assert_equal(pair.state_dict(), expected.state_dict())

    resumed = names["train"](checkpoint=checkpoint)
    resumed.sync_idle_model()
    assert len(resumed.epochs) < len(pair.epochs)
    assert_equal(resumed.state_dict(), pair.state_dict())
