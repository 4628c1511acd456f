"""The table of a checkpoint's parts is complete."""

from support.program import MOTIVATED, built

from motivation.training.state import RANK_PARTS, RUN_PARTS


def test_whatever_in_a_run_has_a_state_is_a_row(tmp_path):
    stateful = {name for name, value in vars(built(tmp_path, *MOTIVATED)).items() if hasattr(value, "state_dict")}
    assert stateful == {"pair", "clock", "guard", "hooks", "feed", "losses"}
    rows = [part.name for part in (*RUN_PARTS, *RANK_PARTS)]
    assert stateful <= set(rows)
    assert len(rows) == len(set(rows))
