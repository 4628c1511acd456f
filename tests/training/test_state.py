"""The table of a checkpoint's parts is complete."""

from types import SimpleNamespace

from support.program import MOTIVATED, built
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from motivation.training.state import RANK_PARTS, RUN_PARTS


def test_whatever_in_a_run_has_a_state_is_a_row(tmp_path):
    stateful = {name for name, value in vars(built(tmp_path, *MOTIVATED)).items() if hasattr(value, "state_dict")}
    assert stateful == {"pair", "clock", "guard", "hooks", "feed", "losses"}
    rows = [part.name for part in (*RUN_PARTS, *RANK_PARTS)]
    assert stateful <= set(rows)
    assert len(rows) == len(set(rows))


def test_statistics_of_a_rank_are_on_the_host_whatever_device_trains():
    """From another device the first rank would open a context there, or fail where its machine has fewer."""
    with FakeTensorMode():
        norm = nn.BatchNorm1d(3, device="cuda:1")
        side = SimpleNamespace(eval_models=lambda: {"base": nn.Sequential(norm)})
        evaluator = SimpleNamespace(training_statistics={"base:ema": dict(norm.named_buffers())})
        run = SimpleNamespace(world_size=2, pair=SimpleNamespace(sides=[side]), evaluator=evaluator)
        (statistics,) = [part.state_in(run) for part in RANK_PARTS if part.name == "statistics"]
        assert statistics.keys() == {"base", "base:ema"}
        assert {value.device.type for values in statistics.values() for value in values.values()} == {"cpu"}
