"""A run's CSV files can be cut back to a checkpoint, and keep what they had."""

import pytest

from motivation.training.csv_files import append_rows, keep_rows_before
from motivation.training.hooks import RunView

HEAD = "epoch,update,x\r\n"
LINES = [f"{epoch},{update},1.5\r\n" for epoch in range(2) for update in range(3)]


def view(epoch, update=0):
    return RunView(4, epoch, 3, True, start_update=update)


@pytest.mark.parametrize(
    ("before", "start", "after"),
    [
        (HEAD + "".join(LINES), (1, 1), HEAD + "".join(LINES[:4])),
        (HEAD + "".join(LINES) + "1,3,1.", (1, 3), HEAD + "".join(LINES)),  # a crash has cut the last line short
        ((HEAD + "".join(LINES)).rstrip(), (2, 0), HEAD + "".join(LINES[:-1])),
        ("epoch,x\r\n0,a\r\n1,b\r\n2,c\r\n", (2, 0), "epoch,x\r\n0,a\r\n1,b\r\n"),
        ("epoch,x\r\n0,a\r\n1,b\r\n2,c\r\n", (2, 1), "epoch,x\r\n0,a\r\n1,b\r\n"),
        *((cut, start, None) for cut in ("", "epo", "epoch,x", "epoch,x\r") for start in ((0, 0), (0, 1))),
    ],
)
def test_what_a_resumed_run_writes_again_is_dropped(before, start, after, tmp_path):
    path = tmp_path / "updates.csv"
    path.write_bytes(before.encode())
    keep_rows_before(path, view(*start))
    assert [file.name for file in tmp_path.iterdir()] == ([] if after is None else ["updates.csv"])
    assert after is None or path.read_bytes().decode() == after


def test_a_new_run_puts_the_files_of_earlier_ones_aside(tmp_path):
    path = tmp_path / "summary.csv"
    for value in "abc":
        append_rows(path, [{"epoch": 0, "x": value}])
        keep_rows_before(path, view(0))
    found = {file.name: file.read_text().split() for file in tmp_path.iterdir()}
    names = ("summary.csv.previous", "summary.csv.previous-2", "summary.csv.previous-3")
    assert found == {name: ["epoch,x", f"0,{value}"] for name, value in zip(names, "abc")}


def test_a_resumed_run_with_other_columns_keeps_those_of_both_and_rewrites_the_file_once(tmp_path, monkeypatch):
    path = tmp_path / "updates.csv"
    append_rows(path, [{"epoch": 0, "of an older version": "a", "loss": 1.0}])
    append_rows(path, [{"epoch": 1, "loss": 2.0}])
    monkeypatch.setattr("motivation.training.csv_files._rewrite", None)
    append_rows(path, [{"epoch": 2, "loss": 3.0}])
    assert path.read_text().splitlines() == ["epoch,loss,of an older version", "0,1.0,a", "1,2.0,", "2,3.0,"]


def test_appending_to_a_long_file_reads_no_more_than_its_header(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes(b"epoch,loss\n" + b"0,1.0\n" * 50_000 + b"\xff")  # whoever reads on meets what is no text
    append_rows(path, [{"epoch": 1, "loss": 2.0}])
    assert path.read_bytes().endswith(b"\xff1,2.0\r\n")
