"""Nobody waits for a number without need: losses are read late, switches compile nothing, a GPU runs ahead.

On a CPU the order of things shows it; the last tests need a GPU.
"""

from types import SimpleNamespace

import pytest
import torch
from support.program import MOTIVATED, built
from support.toys import Toy, batch, learner
from support.waits import HostReads, is_on_host

from motivation.method.records import DeferredScalar
from motivation.training import loss_message
from motivation.training.finite import NonFiniteLossGuard
from motivation.training.hooks import Hook
from motivation.training.learner import Learner, UpdateRule
from motivation.training.loop import train


@pytest.fixture
def events(monkeypatch):
    """What happened, in order: forward, sent (a loss on its way to the host), backward, step, read (its value)."""
    log = []

    def logged(cls, method, name, before=True):
        original = getattr(cls, method)

        def call(self, *args, **kwargs):
            if before:
                log.append(name)
            result = original(self, *args, **kwargs)
            if not before:
                log.append(name)
            return result

        monkeypatch.setattr(cls, method, call)

    for method in ("forward", "backward", "step"):
        logged(Learner, f"_{method}", method, before=method == "forward")
    logged(DeferredScalar, "__init__", "sent")
    value = DeferredScalar.value.fget

    def read(self):
        if self._value is None:
            log.append("read")
        return value(self)

    monkeypatch.setattr(DeferredScalar, "value", property(read))
    return log


@pytest.mark.parametrize("condition", ["loss", "ema"])
def test_the_condition_reads_a_loss_when_step_and_backward_pass_are_under_way(tmp_path, events, condition):
    run = built(tmp_path, *MOTIVATED, "--motivation-condition", condition, "--epochs", "1", "-b", "5")
    events.clear()
    train(run)
    update = ["forward", "sent", "backward", "step", "read"]
    done = run.pair.counts.total
    assert done == 23
    assert events[: done * len(update)] == update * done  # so the decision for the next update is never late


@pytest.fixture
def watched(events, monkeypatch):
    """Function that trains an epoch and returns its log: events, ``select``, ``decide``, and all that waits."""

    def waiting(method):
        def call(self, *args):
            events.append(f"waits: {method.__qualname__}")
            return method(self, *args)

        return call

    for kind in (torch.cuda.Event, torch.cuda.Stream):
        monkeypatch.setattr(kind, "synchronize", waiting(kind.synchronize))

    def log_of(run):
        def before(name, call):
            return lambda *args: (events.append(name), call(*args))[1]

        run.pair.select = before("select", run.pair.select)
        run.pair.condition.observe = before("decide", run.pair.condition.observe)
        events.clear()
        with HostReads(lambda name: events.append(f"waits: {name}"), lambda tensor: is_on_host(tensor, run)):
            train(run)
        return events

    return log_of


def waits(log):
    """What waited, or was read, between the choice of the model and the next decision; of each update."""
    found, inside = [], False
    for event in log:
        if event == "select":
            found.append([])
        inside = event == "select" or (inside and event != "decide")
        if inside and (event == "read" or event.startswith("waits")):
            found[-1].append(event)
    return found


RUNS = {
    "plain": ["--model-ema", "--opt", "adamw", "--clip-grad", "1", "--clip-mode", "value", "-b", "15"],
    "slope": [*MOTIVATED, "--motivation-condition", "slope", "--clip-grad", "0.01", "--clip-mode", "agc", "-b", "15"],
    "all together": [
        *MOTIVATED, "--motivation-condition", "ema", "--model-ema", "--opt", "lamb", "--clip-grad", "1",
        "--grad-accum-steps", "2", "-b", "7", "-j", "2",
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", RUNS)
def test_nothing_is_read_from_the_device_before_the_decision(tmp_path, watched, name):
    """Neither by us nor by timm and torch: forward, backward, clipping, step, switch and EMA are enqueued by then."""
    run = built(tmp_path, *RUNS[name], "--epochs", "1")
    log = watched(run)
    updates = run.pair.counts.total
    assert waits(log) == [[]] * updates
    assert updates >= 7
    assert log.count("read") > 0
    assert run.pair.motivated is None or run.pair.counts.switches > 1


def test_float16_waits_before_every_step():
    """Its scaler asks whether a gradient has overflowed."""
    scaler = torch.amp.GradScaler("cpu")
    one = learner(Toy(), opt="momentum", rule=UpdateRule(scaler=scaler))
    log = []
    with HostReads(log.append, lambda tensor: False):
        one.train([batch()])
    assert log == ["_local_scalar_dense.default of []"]


@pytest.mark.parametrize(
    "wait",
    [
        torch.Tensor.item, float, bool, int, torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.cpu, torch.nonzero,
        torch.unique, lambda loss: torch.equal(loss, loss), lambda loss: loss[loss > 0], lambda loss: f"{loss:.2f}",
        lambda loss: torch.tensor(3.0, device=loss.device), lambda loss: loss.to("meta"),
        lambda loss: loss.to("meta", non_blocking=True), lambda loss: torch.empty((), device="meta").copy_(loss),
    ],
)  # fmt: skip
def test_whatever_waits_is_seen(wait):
    log = []
    with HostReads(log.append, lambda tensor: False):
        wait(torch.ones(()))
    assert log


def test_what_waits_for_nothing_is_not_recorded():
    log, numbers, indices = [], torch.ones(3), torch.tensor([0, 1])
    with HostReads(log.append, lambda tensor: False):
        some = numbers[indices].to(torch.float64)
        some.add_(torch.full((), 2.0))
        some.copy_(torch.where(some > 2, some, 0.0), non_blocking=True)
    assert not log


def test_a_plain_run_reads_losses_for_its_log_lines_only(tmp_path, events):
    """Run the guard as on a GPU (`_guard_delay`); of the epoch's 23 updates the first and the last have a log line."""
    run = built(tmp_path, "--epochs", "1", "-b", "5", "--log-interval", "100")
    run.guard = NonFiniteLossGuard(delay=10)
    events.clear()
    train(run)
    update = ["forward", "sent", "backward", "step"]
    with_read = [*update, "read"]  # the first for its line; the guard reads the others ten updates late
    assert events[: 22 * 4 + 12] == [*with_read, *update * 10, *with_read * 11]
    assert events[22 * 4 + 12 :] == [*update, *["read"] * 11]


@pytest.mark.parametrize("accum_steps", [1, 2])
def test_ranks_add_up_their_losses_while_the_backward_pass_runs(events, monkeypatch, accum_steps):
    class Work:
        """A sum over two ranks with equal losses, of which the other has been asked to stop too."""

        def __init__(self, tensor):
            self._tensor = tensor

        def wait(self):
            events.append("wait")
            self._tensor.mul_(2)

    def all_reduce(tensor, async_op=False):
        assert async_op
        events.append("message")
        return Work(tensor)

    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    one = learner(Toy(), rule=UpdateRule(world_size=2))
    parts = [batch(0, accum_steps=accum_steps, is_last=number + 1 == accum_steps) for number in range(accum_steps)]
    outcome = one.train(parts, stop_vote=True)
    first = ["forward", "sent", "backward"] * (accum_steps - 1)
    assert events == [*first, "forward", "sent", "message", "backward", "wait", "sent", "sent", "step"]
    local = sum(loss.value for loss, _ in outcome.local_losses) / accum_steps
    assert outcome.loss.value == pytest.approx(local, rel=1e-6)
    assert outcome.stop_votes.value == 2


def test_the_sum_of_losses_on_a_gpu_is_waited_for_by_a_stream_of_its_own(monkeypatch):
    used = []
    device = torch.device("cuda", 1)
    tensor = SimpleNamespace(device=device, record_stream=lambda stream: used.append(("keeps its memory for", stream)))
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: f"a stream of {device}")
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: used.append(("works on", stream)))
    loss_message._copy_stream.cache_clear()
    loss_message._beside_computation(tensor)
    loss_message._copy_stream.cache_clear()
    assert used == [("keeps its memory for", "a stream of cuda:1"), ("works on", "a stream of cuda:1")]


class Counting(Hook):
    """Graphs that were compiled until the end of each epoch."""

    def __init__(self):
        self._graphs = []

    def epoch_end(self, record):
        self._graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])


def test_both_models_are_compiled_once_and_a_switch_compiles_nothing(tmp_path):
    """An epoch trains and evaluates both, and the EMA of both; whatever comes after it compiles nothing."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    flags = ["--model-ema", "--model-ema-decay", "0.9", "-b", "5", "-vb", "8", "--epochs", "3"]
    run = built(tmp_path, *MOTIVATED, *flags, "--torchcompile", "eager")
    counting = Counting()
    run.hooks.hooks.append(counting)
    train(run)
    assert run.pair.counts.switches > 10
    assert len(set(counting._graphs)) == 1, counting._graphs
    assert counting._graphs[0] > 0


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


class NoWaiting(Hook):
    """From the fifth update of an epoch to its last but one, whatever makes the host wait for the GPU is an error."""

    def update_end(self, record):
        if record.update == 5:
            torch.cuda.set_sync_debug_mode("error")
        if record.update == 21:
            torch.cuda.set_sync_debug_mode("default")


@needs_gpu
@pytest.mark.parametrize("data", [[], ["--data-on-device"]], ids=["loader", "on-device"])
@pytest.mark.parametrize("precision", [[], ["--amp", "--amp-dtype", "bfloat16"]], ids=["fp32", "bf16"])
@pytest.mark.parametrize("condition", ["none", "loss", "ema"])
def test_no_update_makes_a_gpu_wait(tmp_path, data, precision, condition):
    role = [] if condition == "none" else [*MOTIVATED, "--motivation-condition", condition]
    flags = ["-b", "5", "--epochs", "1", "--device", "cuda", "--log-interval", "100"]
    run = built(tmp_path, *flags, *data, *precision, *role)
    run.hooks.hooks.append(NoWaiting())
    try:
        train(run)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert run.pair.counts.total == 23


@needs_gpu
@pytest.mark.parametrize("name", RUNS)
def test_nothing_is_read_from_a_gpu_before_the_decision(tmp_path, watched, name):
    """Events, pageable copies and reads of losses too, which sync-debug mode does not see; after the first updates."""
    run = built(tmp_path, *RUNS[name], "--epochs", "1", "--device", "cuda")
    assert not any(waits(watched(run))[4:])


@needs_gpu
def test_the_sum_of_losses_over_ranks_makes_no_gpu_wait(tmp_path):
    torch.distributed.init_process_group("nccl", f"file://{tmp_path}/meeting", rank=0, world_size=1)
    try:
        for number in range(6):
            if number == 3:
                torch.cuda.set_sync_debug_mode("error")
            loss = torch.full((), 0.5, device="cuda")
            mean, votes, _ = loss_message.LossMessage(loss, True, 1).receive()
        torch.cuda.set_sync_debug_mode("default")
        assert (mean.value, votes.value) == (0.5, 1.0)
    finally:
        torch.cuda.set_sync_debug_mode("default")
        torch.distributed.destroy_process_group()
