"""One epoch is the best, wherever it is said: console, closing table, result.json, report, model_best, model card."""

import csv
import io
import json
import re

import pytest
from support.program import MOTIVATED, load, rows

WITHOUT_BATCHNORM = [
    "--model", "vit_tiny_patch16_224", "--motivated-model", "vit_small_patch16_224",
    "--model-kwargs", "img_size=8", "patch_size=2", "depth=2", "embed_dim=16", "num_heads=2",
    "--motivated-model-kwargs", "depth=3", "embed_dim=32", "num_heads=4",
]  # fmt: skip
TOP1 = {"base": "eval_top1", "motivated": "motivated_eval_top1"}


def best_row(folder, role, metric):
    """The row of ``summary.csv`` with the best metric of a model, the first of equal ones."""
    sign = 1 if metric == "loss" else -1
    column = TOP1[role].replace("top1", metric)
    return min(rows(folder / "summary.csv"), key=lambda row: sign * float(row[column]))


def assert_one_best(folder, metric, out, log, command):
    result = json.loads((folder / "result.json").read_text())
    for role, name, place in (("base", "best", ""), ("motivated", "best_motivated", "motivated/")):
        row = best_row(folder, role, metric)
        epoch, top1 = int(row["epoch"]), float(row[TOP1[role]])
        assert result[name]["epoch"] == epoch
        assert result[name][role]["top1"] == pytest.approx(top1)
        assert load(folder / f"{place}model_best.pth.tar")["epoch"] == epoch
        (line,) = [line for line in out.splitlines() if re.match(rf"{role} +(resnet|vit)", line)]
        assert line.split()[4] == f"{top1:.2f}"
    assert f"(epoch {result['best']['epoch']})" in log.rpartition("*** Best metric: ")[2]
    parsed = json.loads(out[out.index("--result") + 8 : out.index("]\n") + 1])
    assert parsed[-1]["epoch"] == result["best"]["epoch"]

    printed = csv.DictReader(io.StringIO(command("report", folder, "--best", "--csv", "-").out))
    found = {row["kind"]: float(row["top1_best_epoch_selected_on_validation_data"]) for row in printed}
    assert found["B"] == pytest.approx(result["best"]["base"]["top1"])
    assert found["M"] == pytest.approx(result["best_motivated"]["motivated"]["top1"])
    command("export", folder, folder / "exported", "--best")
    for role, name in (("base", "best"), ("motivated", "best_motivated")):
        card = (folder / "exported" / role / "README.md").read_text()
        (said,) = re.findall(r"best epoch, selected on the validation data \| ([\d.]+) %", card)
        assert said == f"{result[name][role]['top1']:.2f}"


@pytest.mark.parametrize("metric", ["top1", "top5", "loss"])
@pytest.mark.parametrize("interval", ["1", "2"])
def test_one_epoch_is_the_best(metric, interval, train, command, capsys, caplog):
    caplog.set_level("INFO")
    given = ["--eval-metric", metric, "--val-interval", interval, "--epochs", "5", "--lr", "0.4", "--sched", "none"]
    folder = train(*MOTIVATED, *given)
    assert_one_best(folder, metric, capsys.readouterr().out, caplog.text, command)


def test_of_equal_epochs_the_first_is_the_best(train, command, capsys, caplog):
    caplog.set_level("INFO")
    folder = train(*MOTIVATED, *WITHOUT_BATCHNORM, "--lr", "1e-12", "--epochs", "3")
    assert len({row["eval_top1"] for row in rows(folder / "summary.csv")}) == 1
    assert json.loads((folder / "result.json").read_text())["best"]["epoch"] == 0
    assert_one_best(folder, "top1", capsys.readouterr().out, caplog.text, command)


RESUMED = {
    "goes back with the weights of that epoch": ("checkpoint-0", [], "run"),
    "goes back with the weights of a later epoch": ("checkpoint-3", ["--start-epoch", "1"], "run"),
    "goes on in another folder": ("checkpoint-3", [], "other"),
    "is ranked by another metric": ("last", ["--eval-metric", "loss"], "run"),
}


@pytest.mark.parametrize(("file", "flags", "name"), RESUMED.values(), ids=RESUMED)
def test_a_resumed_run_has_the_best_of_the_epochs_behind_it(file, flags, name, train, command, capsys, caplog):
    caplog.set_level("INFO")
    # the first run is best after its last epoch, the resumed one can only get worse
    first = train(*MOTIVATED, "--epochs", "4", "--motivation-bn", "separate")
    epochs = 4 if file == "checkpoint-0" else 6
    given = [*MOTIVATED, "--epochs", epochs, "--motivation-bn", "separate", "--lr", "30", "--sched", "none", *flags]
    capsys.readouterr()
    caplog.clear()
    folder = train(*given, "--resume", first / f"{file}.pth.tar", name=name)
    if name != "run":  # the rows of the epochs that are not in this folder
        text = (folder / "summary.csv").read_text().partition("\n")[2]
        (folder / "summary.csv").write_text((first / "summary.csv").read_text() + text)
    assert_one_best(folder, "loss" if "loss" in flags else "top1", capsys.readouterr().out, caplog.text, command)
