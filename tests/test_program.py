"""The program on real images: the invariants of the algorithm, its files, its flags together."""

import json
import multiprocessing
import re

import numpy as np
import pytest
import timm
import torch
import yaml
from support.program import DIGITS, MOTIVATED, assert_equal, load, rows

from motivation.build.run import build_run
from motivation.method.conditions import next_streak
from motivation.method.random_states import get_rng_state, set_rng_state
from motivation.options.parse import parse
from motivation.training.loop import train as train_loop


def losses(folder):
    return [row["loss"] for row in rows(folder / "updates.csv")]


VARIANTS = {
    "plain": (),
    "recipe": (
        "--opt",
        "lamb",
        "--mixup",
        "0.2",
        "--reprob",
        "0.3",
        "--drop",
        "0.2",
        "--model-ema",
        "--clip-grad",
        "1",
    ),
    "recalibrated": ("--motivation-bn-recalibrate", "2"),
    "separate": ("--motivation-bn", "separate", "--dist-bn", "", "-j", "1"),
}


@pytest.mark.parametrize("flags", VARIANTS.values(), ids=VARIANTS)
def test_never_is_training_the_base_alone(train, flags):
    plain = train(*flags, name="plain")
    never = train(*flags, *MOTIVATED, "--motivation-condition", "never", name="never")
    assert losses(plain) == losses(never)
    a, b = load(plain / "last.pth.tar"), load(never / "last.pth.tar")
    for key in ("state_dict", "state_dict_ema", "optimizer", "metric"):
        assert (key in a) == (key in b)
        if key in a:
            assert_equal(b[key], a[key], key)
    for one, other in zip(rows(plain / "summary.csv"), rows(never / "summary.csv")):
        assert one.items() <= other.items()


def built(*flags, output):
    return build_run(*parse([*DIGITS, "--output", str(output), *map(str, flags)]))


def test_always_is_training_the_motivated_model_alone(tmp_path):
    flags = ("--opt", "adamw", "--lr", "0.01", "--mixup", "0.3", "--drop", "0.1")
    always = built(*flags, *MOTIVATED, "--motivation-condition", "always", output=tmp_path / "a")
    always.pair.sync_idle_model()
    start = tmp_path / "start.pth"
    torch.save(always.pair.motivated.model.state_dict(), start)
    state = get_rng_state()
    train_loop(always)

    alone = built(*flags, "--model", "resnet14_cifar", "--initial-checkpoint", start, output=tmp_path / "b")
    set_rng_state(state)
    train_loop(alone)
    assert losses(always.folder) == losses(alone.folder)
    assert_equal(always.pair.motivated.model.state_dict(), alone.pair.base.model.state_dict())
    assert [r.motivated for r in always.records] == [r.base for r in alone.records]


def test_the_rule_can_be_recomputed_from_updates_csv(train):
    folder = train(*MOTIVATED, "-b", "5", "--epochs", "3")
    streak, previous, epoch, actives = 0, None, None, []
    for row in rows(folder / "updates.csv"):
        if row["epoch"] != epoch:
            streak, previous, epoch = 0, None, row["epoch"]
        assert row["active"] == ("motivated" if streak >= 1 else "base")
        streak, previous = next_streak(streak, previous, float(row["loss"])), float(row["loss"])
        assert int(row["streak"]) == streak
        actives.append(row["active"])
    assert {"motivated", "base"} == set(actives)
    summary = rows(folder / "summary.csv")
    assert sum(int(row["motivated_updates"]) for row in summary) == actives.count("motivated")
    assert sum(int(row["base_updates"]) for row in summary) == actives.count("base")


def test_what_a_motivated_run_leaves_behind(train, capsys):
    folder = train(*MOTIVATED)
    base = ["args.yaml", "checkpoint-0.pth.tar", "checkpoint-1.pth.tar", "last.pth.tar", "model_best.pth.tar"]
    assert sorted(p.name for p in folder.iterdir()) == sorted(
        [*base, "label_names.json", "motivated", "result.json", "summary.csv", "updates.csv"]
    )
    assert sorted(p.name for p in (folder / "motivated").iterdir()) == base[1:]
    columns = list(rows(folder / "summary.csv")[0])
    assert columns[:6] == ["epoch", "train_loss", "eval_loss", "eval_top1", "eval_top5", "lr"]
    assert columns[6:] == [
        "motivated_eval_loss", "motivated_eval_top1", "motivated_eval_top5", "base_updates", "motivated_updates",
        "switches", "average_flops", "seconds",
    ]  # fmt: skip
    out = capsys.readouterr().out
    results = json.loads(out[out.index("--result") + 8 : out.index("]\n") + 1])
    assert results[0].keys() == {"epoch", "train", "validation", "motivated_validation"}
    assert "share     " in out
    assert "(expected 0.3000)" in out  # 1/2, but for the first two of five updates
    assert yaml.safe_load((folder / "args.yaml").read_text())["motivated_model"] == "resnet14_cifar"


@pytest.mark.parametrize("bn", [(), ("--motivation-bn-recalibrate", "2"), ("--motivation-bn", "separate")])
def test_the_files_hold_the_models_that_were_evaluated(train, bn):
    folder = train(*MOTIVATED, *bn)
    from motivation.data.datasets import SklearnDigits

    data = SklearnDigits("validation")
    images = torch.stack([torch.from_numpy(np.array(image)).float()[None] / 255 for image, _ in data])
    images, targets = (images - 0.3) / 0.36, torch.tensor(data.targets)
    last = rows(folder / "summary.csv")[-1]
    for name, file, column in (
        ("resnet8_cifar", folder / "last.pth.tar", "eval_top1"),
        ("resnet14_cifar", folder / "motivated" / "last.pth.tar", "motivated_eval_top1"),
    ):
        model = timm.create_model(name, num_classes=10, in_chans=1, checkpoint_path=str(file)).eval()
        with torch.no_grad():
            top1 = (model(images).argmax(1) == targets).float().mean().item() * 100
        assert top1 == pytest.approx(float(last[column]), abs=0.01)
        assert load(file)["arch"] == name
        assert load(file)["metric"] == float(last[column])


def test_recalibration_is_undone_after_the_checkpoint(train):
    kept = train(*MOTIVATED, name="kept")
    again = train(*MOTIVATED, "--motivation-bn-recalibrate", "3", name="again")
    assert losses(kept) == losses(again)
    a, b = load(kept / "last.pth.tar"), load(again / "last.pth.tar")
    statistics = b["motivation"]["ranks"][0]["statistics"]["base"]
    for name, value in a["state_dict"].items():
        if name in statistics:
            assert torch.equal(statistics[name], value), name
        else:
            assert torch.equal(b["state_dict"][name], value), name
    assert not torch.equal(a["state_dict"]["bn1.running_mean"], b["state_dict"]["bn1.running_mean"])


COLOUR = ("--input-size", "3", "8", "8", "--mean", "0.3", "0.3", "0.3")

TOGETHER = {
    "ema_accumulation_clipping": (
        "--model-ema",
        "--model-ema-decay",
        "0.9",
        "--grad-accum-steps",
        "2",
        "-b",
        "10",
        "--clip-grad",
        "0.5",
    ),
    "bf16_channels_last": ("--amp", "--amp-dtype", "bfloat16", "--channels-last"),
    "bf16_weights": ("--model-dtype", "bfloat16", "--opt", "adamw", "--lr", "0.01"),
    "mixup_bce_lamb": ("--mixup", "0.1", "--cutmix", "1", "--bce-loss", "--bce-target-thresh", "0.2", "--opt", "lamb"),
    "updates_schedule_noise": ("--sched-on-updates", "--lr-noise", "0.2", "--warmup-epochs", "1"),
    "plateau": ("--sched", "plateau", "--patience-epochs", "0"),
    "no_schedule": ("--sched", "none"),
    "augmentation_splits": ("--aug-splits", "2", "--jsd-loss", "--split-bn", "--aa", "augmix-m3-w2", *COLOUR),
    "no_prefetcher_workers": ("--no-prefetcher", "-j", "1", "--reprob", "0.3"),
    "scheduled_sizes": ("--train-img-sizes", "8", "16", "--train-batch-sizes", "20", "10", "--train-pad", "0"),
    "drops": ("--drop", "0.1", "--drop-path", "0.1", "--motivated-drop", "0", "--motivated-drop-path", "0.3"),
    "val_interval_loss_metric": ("--val-interval", "2", "--eval-metric", "loss"),
    "no_validation": ("--val-split", ""),
    "not_evaluated": ("--motivated-eval", "none"),
    "recovery": ("--recovery-interval", "2"),
    "grad_checkpointing": ("--grad-checkpointing",),
    "sync_flags_alone": ("--sync-bn", "--dist-bn", "broadcast", "--synchronize-step"),
    "cifar_policy": ("--aa", "cifar10", "--input-size", "3", "16", "16", "--mean", "0.3", "0.3", "0.3"),
    "validation_size": ("--val-input-size", "1", "16", "16", "--crop-pct", "0.9"),
    "motivated_kwargs": ("--model-kwargs", "shortcut=A", "--motivated-model-kwargs", "bn_momentum=0.2"),
    "lookahead": ("--opt", "lookahead_adam", "--lr", "0.01"),
}


@pytest.mark.parametrize("flags", TOGETHER.values(), ids=TOGETHER)
def test_a_motivated_run_works_with(train, flags):
    folder = train(*MOTIVATED, *flags)
    updates = rows(folder / "updates.csv")
    assert {row["active"] for row in updates} == {"base", "motivated"}
    assert all(np.isfinite(float(row["loss"])) for row in updates)
    assert load(folder / "motivated" / "last.pth.tar")["arch"] == "resnet14_cifar"


def test_a_motivated_run_works_compiled(train):
    eager = train(*MOTIVATED, "--model-ema", name="eager")
    compiled = train(*MOTIVATED, "--torchcompile", "eager", "--model-ema", name="compiled")
    assert losses(eager) == losses(compiled)
    assert_equal(load(compiled / "last.pth.tar")["state_dict"], load(eager / "last.pth.tar")["state_dict"])


@pytest.mark.parametrize("kind", ["logit", "feature", "token"])
def test_a_motivated_run_distils(kind, train, monkeypatch):
    from support import comparison_models  # noqa: F401  (the distilled transformers)

    def teacher(**kwargs):
        torch.manual_seed(0)
        return timm.create_model("resnet8_cifar", num_classes=10)

    for module in ("distillation", "token_distillation"):
        monkeypatch.setattr(f"timm.task.{module}.create_model", teacher, raising=False)
    flags = ["--input-size", "3", "8", "8", "--mean", "0.3", "0.3", "0.3", "--kd-model-name", "resnet8_cifar"]
    models = MOTIVATED
    if kind == "token":
        models = ["--model", "comparison_deit", "--motivated-model", "comparison_deit_deeper", "--motivation-k", "1",
                  "--input-size", "3", "32", "32", "--lr", "0.01"]  # fmt: skip
    folder = train(*flags, *models, "--kd-distill-type", kind, "--model-ema")
    assert {row["active"] for row in rows(folder / "updates.csv")} == {"base", "motivated"}


def test_timms_own_loaders_read_the_files(train):
    folder = train(*MOTIVATED)
    from timm.models import load_state_dict
    from timm.task import ClassificationTask, resume_task_checkpoint

    model = timm.create_model("resnet14_cifar", num_classes=10, in_chans=1)
    task = ClassificationTask(model, torch.nn.CrossEntropyLoss(), verbose=False)
    path = str(folder / "motivated" / "last.pth.tar")
    assert resume_task_checkpoint(task, path) == 2
    assert_equal(model.state_dict(), load_state_dict(path))

    model = timm.create_model("resnet8_cifar", num_classes=10, in_chans=1)
    task = ClassificationTask(model, torch.nn.CrossEntropyLoss(), verbose=False)
    optimizer = timm.optim.create_optimizer_v2(model, opt="sgd", lr=0.1, weight_decay=2e-5, momentum=0.9)
    path = str(folder / "last.pth.tar")
    assert resume_task_checkpoint(task, path, optimizer=optimizer) == 2
    assert_equal(model.state_dict(), load_state_dict(path))
    assert_equal(optimizer.state_dict(), load(path)["optimizer"])


def test_console_lines_name_the_active_model(train, caplog):
    with caplog.at_level("INFO"):
        train(*MOTIVATED, "--log-interval", "1")
    lines = [r.message for r in caplog.records if r.message.startswith("Train:")]
    pattern = (
        r"Train: \d+ \[ +\d+/\d+ \( *\d+%\)\]  Loss: \S+ \(\S+\)  Time: \S+s, +\S+/s  \(\S+s, +\S+/s\)  LR: \S+  "
        r"Data: \S+ \(\S+\)  Active: (base|motivated) \(share 0\.\d{4}\)"
    )
    assert len(lines) == 10
    assert all(re.fullmatch(pattern, line) for line in lines)
    assert any("motivated" in line for line in lines)
    tests = [r.message for r in caplog.records if r.message.startswith("Test")]
    assert any(line.startswith("Test (motivated)") for line in tests)


def test_a_model_of_any_family_trains_with_auto_and_a_placement(train, capsys):
    models = ["--model", "convnext_atto", "--motivated-model", "convnext_femto", "--motivation-k", "1"]
    sizes = ["--in-chans", "1", "--input-size", "1", "32", "32", "--train-pad", "0", "--epochs", "1", "-b", "10"]
    folder = train(*models, *sizes, "--motivation-placement", "last", "--opt", "adamw", "--lr", "1e-3")
    assert ",motivated," in (folder / "updates.csv").read_text()
    assert "placement: last" in "\n".join(
        line.replace("motivation_", "") for line in (folder / "args.yaml").read_text().splitlines()
    )


@pytest.mark.parametrize("flags", [(), ("--use-multi-epochs-loader",)])
def test_no_data_worker_outlives_a_run(flags, train):
    before = set(multiprocessing.active_children())
    train("-j", "1", "--epochs", "1", *flags)
    assert set(multiprocessing.active_children()) <= before


def test_a_last_update_of_fewer_batches_waits_for_all_of_them(train):
    folder = train("-b", "5", "--grad-accum-steps", "8", "--epochs", "1")  # 23 batches; timm's script makes 4 updates
    assert [row["update"] for row in rows(folder / "updates.csv")] == ["0", "1", "2"]
