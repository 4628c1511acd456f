"""An update of both models is tried before the training, and nothing is left of it."""

import copy
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from support.program import MOTIVATED, assert_equal, assert_same_run, built
from support.toys import Toy, batch, learner
from timm.optim import Lookahead
from torch.nn.parallel import DistributedDataParallel

from motivation.build import run as build_run
from motivation.build.runtime import Runtime
from motivation.build.trial import blank_batch, try_updates
from motivation.method.random_states import get_rng_state, rng_to_dict
from motivation.method.records import Role
from motivation.options.faults import StartupError
from motivation.options.parse import parse
from motivation.training.trial import peak_memory_of_update

CPU = Runtime(torch.device("cpu"), 0, 0, 1, None, None, None)


def state_of(run):
    """Everything of a run that training reads, in copies."""
    sides = {}
    for side in run.pair.sides:
        module = side.task.get_trainable_module()
        sides[side.role.value] = {
            "state": copy.deepcopy(side.state_dict()),
            "generators": side.generator_states(),
            "gradients": [None if p.grad is None else p.grad.clone() for p in module.parameters()],
            "modes": [part.training for part in module.modules()],
            "scaler": copy.deepcopy(side.rule.scaler.state_dict()),
            "scale": side.rule.scaler._scale,
        }
    return sides, rng_to_dict(get_rng_state())


FLAGS = {
    "soft_targets": ("--mixup", "0.5", "--drop", "0.5", "--model-ema", "--channels-last", "--amp", "--amp-dtype",
                     "bfloat16", "--grad-accum-steps", "2", "-b", "10"),
    "half_precision": ("--model-dtype", "bfloat16", "--model-ema", "--smoothing", "0.1", "--opt", "adamw"),
    # before 1.0.31, timm's Lookahead does not say that what it wraps is of second order
    "second_order": ("--opt", "lookahead_adahessian" if hasattr(Lookahead, "is_second_order") else "adahessian"),
}  # fmt: skip


@pytest.mark.parametrize("flags", FLAGS.values(), ids=FLAGS)
def test_a_trial_of_both_models_changes_no_bit(flags, tmp_path):
    args = parse(["--motivated-model", "resnet14_cifar", *flags])[0]
    run = built(tmp_path, *MOTIVATED, *flags)
    run.pair.base.rule.scaler = torch.amp.GradScaler("cpu")  # of both
    for parameter in run.pair.motivated.model.parameters():
        parameter.grad = torch.ones_like(parameter)
    run.pair.base.model.eval()
    before = state_of(run)
    batch = blank_batch(args, run_time(args), (1, 8, 8), 10, run.feed.loader)
    losses = rehearsed(run)
    try_updates(run.pair.sides, batch, args, CPU)
    run.lock.release()
    assert_equal(state_of(run), before)
    assert len(losses) == 2 * args.grad_accum_steps
    assert all(torch.isfinite(loss) for loss in losses)


def run_time(args):
    return SimpleNamespace(device=CPU.device, dtype=getattr(torch, args.model_dtype) if args.model_dtype else None)


def rehearsed(run):
    """Watch the losses of a run's learners; returns the list that they come to."""
    losses = []
    for side in run.pair.sides:

        def forward(batch, real=side._forward):
            loss, reported = real(batch)
            losses.append(reported)
            return loss, reported

        side._forward = forward
    return losses


@pytest.mark.parametrize(
    ("flags", "shape", "targets"),
    [
        ((), (20, 1, 8, 8), (20,)),
        (("--mixup", "0.1"), (20, 1, 8, 8), (20, 10)),
        (("--aug-splits", "3", "--jsd-loss"), (60, 1, 8, 8), (60,)),
        (("--train-img-sizes", "8", "12", "--train-batch-sizes", "20", "7"), (20, 1, 8, 8), (20,)),
        (("--train-img-sizes", "8", "12", "--train-batch-sizes", "20", "10"), (10, 1, 12, 12), (10,)),
    ],
)
def test_the_blank_batch_has_the_largest_shape_of_the_training(flags, shape, targets, tmp_path):
    run = built(tmp_path, "--train-pad", "0", *flags)
    run.lock.release()
    args = parse(["-b", "20", *flags])[0]
    blank = blank_batch(args, CPU, (1, 8, 8), 10, run.feed.loader)
    assert (blank.images.shape, blank.targets.shape) == (shape, targets)
    if "--train-img-sizes" not in flags:
        real = next(iter(run.feed.loader))
        assert (real[0].shape, real[1].shape, real[1].dtype) == (shape, targets, blank.targets.dtype)


def test_a_run_with_a_trial_is_the_run_without(train, monkeypatch, caplog):
    flags = [*MOTIVATED, "--drop", "0.2", "--model-ema", "--reprob", "0.3", "--opt", "adamw", "--epochs", "1"]
    whole = train(*flags, name="whole")
    tried = []

    def anywhere(*arguments):
        tried.append(try_updates(*arguments))

    monkeypatch.setattr(build_run, "needs_trial", lambda *_: True)
    monkeypatch.setattr(build_run, "try_updates", anywhere)
    assert_same_run(whole, train(*flags))
    assert len(tried) == 1


def test_buffers_are_not_sent_over_ranks_by_a_trial_but_by_the_next_forward_pass(tmp_path, monkeypatch):
    sent = []
    real = DistributedDataParallel._sync_buffers
    monkeypatch.setattr(DistributedDataParallel, "_sync_buffers", lambda self: sent.append(self) or real(self))
    dist.init_process_group("gloo", f"file://{tmp_path}/meeting", rank=0, world_size=1)
    wrapped = learner(Toy())
    wrapped.task.prepare_distributed()
    peak_memory_of_update(wrapped, batch())
    assert sent == []
    wrapped.task(batch().images, batch().targets)
    dist.destroy_process_group()
    assert len(sent) == 1


class FakeDevice:
    """torch's module of a device, as far as it counts memory."""

    peak = 0

    def reset_peak_memory_stats(self, device):
        self.peak = 0

    def max_memory_allocated(self, device):
        self.peak += 1_500_000_000
        return self.peak


def test_the_peak_of_each_model_is_told(monkeypatch, caplog):
    device_module = FakeDevice()
    monkeypatch.setattr(torch, "get_device_module", lambda device: device_module)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: None)
    caplog.set_level("INFO")
    args = parse(["--model", "small", "--motivated-model", "large"])[0]
    try_updates(two_learners(), batch(), args, CPU)
    assert "Peak memory of an update on cpu, without the optimizer's state: base 1.50 GB, motivated 1.50 GB." in (
        caplog.text
    )


def two_learners():
    return [learner(Toy(), Role.BASE), learner(Toy(6, 3), Role.MOTIVATED)]


def test_too_little_memory_for_the_motivated_model_says_what_to_do():
    learners = two_learners()

    def fail(batch):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB.")

    learners[1].rehearse = fail
    args = parse(["--model", "small", "--motivated-model", "large"])[0]
    with pytest.raises(StartupError) as caught:
        try_updates(learners, batch(), args, CPU)
    assert str(caught.value) == (
        "--batch-size 128: an update of the motivated model large does not fit into the memory of cpu; give a smaller "
        "one with more --grad-accum-steps, or --grad-checkpointing"
    )


def test_any_other_error_of_a_trial_flies_and_leaves_the_model_as_it_was():
    one = learner(Toy())
    before = copy.deepcopy(one.state_dict())

    def fail(batch, real=one.rehearse):
        real(batch)
        raise RuntimeError("a bug")

    one.rehearse = fail
    with pytest.raises(RuntimeError, match="a bug"):
        try_updates([one], batch(), parse([])[0], CPU)
    assert_equal(one.state_dict(), before)
    assert all(parameter.grad is None for parameter in one.model.parameters())
