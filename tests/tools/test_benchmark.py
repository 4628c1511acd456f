"""The benchmark: what it computes of its measurements, and that each of its parts runs."""

import json
import os
import re
import time

import pytest
import timm
import torch
from support.program import FILES
from timm.optim import create_optimizer_v2
from torch.autograd import DeviceType
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.profiler import ProfilerActivity, profile, record_function

from motivation.__main__ import main as command
from motivation.build.datasets import open_datasets
from motivation.build.feasible import model_faults
from motivation.errors import InputError
from motivation.method.records import DeferredScalar
from motivation.method.side import Side
from motivation.method.switch import Switch
from motivation.options.checks import option_faults
from motivation.options.parse import parse
from motivation.tools.benchmark.around import _after_arrival
from motivation.tools.benchmark.command import main
from motivation.tools.benchmark.launches import LaunchCounter, launches
from motivation.tools.benchmark.probe import Probe
from motivation.tools.benchmark.race import (
    Program,
    RaceError,
    Result,
    Turn,
    expected_ratios,
    middle,
    race,
    ratios,
)  # fmt: skip
from motivation.tools.benchmark.recipes import (
    RECIPES,
    default_workers,
    make_jpegs,
    make_small_images,
    motivated_flags,
    plain_flags,
)
from motivation.tools.benchmark.scale import run_hours, scale_table
from motivation.tools.benchmark.switching import switch_row
from motivation.tools.benchmark.timeline import device_spans, gaps, idle_percent, profile_updates
from motivation.tools.benchmark.timing import median_ms, synchronize
from weight_maps import find_map

RESULTS = {
    "base": Result(3.0, [Turn(2.0, (10,)), Turn(4.0, (10,))]),
    "larger": Result(3.0, [Turn(4.0, (10,)), Turn(8.0, (10,))]),
    "pair": Result(3.0, [Turn(2.42, (9, 1)), Turn(6.0, (5, 5))]),
}


def test_ratios_compare_turns_of_the_same_round():
    assert ratios(RESULTS, "base", "larger") == [2.0, 2.0]
    assert RESULTS["base"].per_update_s == pytest.approx(0.3)


def test_a_motivated_run_is_expected_to_take_the_time_of_its_updates():
    """Round 1: 9 x 0.2 + 1 x 0.4 = 2.2 s; round 2: 5 x 0.4 + 5 x 0.8 = 6 s."""
    assert expected_ratios(RESULTS, "pair", "base", "larger") == pytest.approx([1.1, 1.0])
    assert middle([1.0, 2.0, 3.0, 4.0, 5.0]) == "3.000 (2.000 to 4.000)"


def test_calls_are_timed_in_turns():
    order = []
    calls = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    assert median_ms(calls, rounds=3, device=torch.device("cpu"), warmup=1).keys() == calls.keys()
    assert order == ["a", "b"] * 4


def test_the_device_that_is_measured_is_the_one_that_is_waited_for(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    synchronize(torch.device("cuda:1"))
    synchronize(torch.device("cpu"))
    assert waited == [torch.device("cuda:1")]


def test_a_motivated_run_on_paper_costs_the_mean_of_both_weighted_by_its_share():
    hours = dict(run_hours(1000.0, 500.0, ks=(1, 2)))
    assert hours["base"] == pytest.approx(100 * 1_281_167 / 1000 / 3600)
    assert hours["motivated, k = 1"] == pytest.approx((hours["base"] + hours["larger"]) / 2)
    assert hours["motivated, k = 2"] == pytest.approx(hours["base"] * 5 / 6 + hours["larger"] / 6)
    whole = hours["base"] / 0.9
    cells = ["base", f"{hours['base']:.1f}", f"{whole / 8:.1f}", f"{whole:.0f}", f"{whole * 2:.0f}", "50 %"]
    row = scale_table(1000.0, 500.0, (1, 8), (1, 2), 2.0, 0.9).splitlines()[2]
    assert [cell.strip() for cell in row.strip("|").split("|")] == cells


def test_a_switch_is_timed_with_all_that_it_copies():
    row = switch_row("resnet8_cifar", "resnet14_cifar", "adamw", torch.device("cpu"), 1)
    _, _, tensors, megabytes, kernels, on_host, *times, _ = row
    parameters = 78_330  # of resnet8_cifar with 10 classes
    assert float(megabytes) == pytest.approx((3 * parameters + 8) * 4 / 1e6, abs=0.06)
    assert int(tensors) > 3 * 20
    assert int(kernels) == 1 + -(-2 * int(on_host) // 64)  # weights; two moments of each, 64 at a time
    assert min(map(float, times)) > 0


LARGE, CHUNKS = torch.zeros(8, 8), torch.empty(321 * 65536, device="meta")


@pytest.mark.parametrize(
    ("pairs", "kernels"),
    [
        ([], 0),
        ([(torch.ones(3), torch.ones(3))] * 70, 2),  # 64 and 6
        ([(torch.ones(3), torch.ones(3, dtype=torch.int))] * 70, 2),
        ([(torch.ones(3), torch.ones(3)), (torch.ones(3), torch.ones(3, dtype=torch.int))], 2),
        ([(LARGE[:4, :4], torch.ones(4, 4)), (torch.ones(4), torch.ones(4))], 2),  # a slice, so one by one
        ([(LARGE[:1, :4], torch.ones(1, 4)), (torch.ones(4), torch.ones(4))], 1),  # an axis of one has no stride
        ([(torch.ones(2, 3), torch.ones(3, 2).t())] * 3, 3),
        ([(torch.ones(2), torch.ones(2, device="meta"))] * 3, 3),
        ([(CHUNKS, CHUNKS)] * 2, 3),  # 642 chunks, of which 320 in a launch
    ],
)
def test_kernels_are_counted_as_a_gpu_would_launch_them(pairs, kernels):
    assert launches(pairs) == kernels


def test_all_that_an_operation_does_is_counted():
    targets, sources = ([torch.zeros(3) for _ in range(70)] for _ in range(2))
    steps = [torch.tensor(1.0) for _ in range(5)]
    with LaunchCounter() as counter:
        torch._foreach_copy_([*targets, *steps], [*sources, *steps])
        targets[0].view(3, 1).add_(1)
    assert (counter.kernels, counter.host) == (3, 5)


def test_the_parts_of_a_fused_layer_are_one_kernel():
    sizes = {"img_size": 8, "patch_size": 4, "num_classes": 3, "in_chans": 2, "depth": 2}
    tiny = {"embed_dim": 64, "num_heads": 1, **sizes}, {"embed_dim": 128, "num_heads": 2, **sizes}
    small, large = (
        Side(model, torch.optim.AdamW(model.parameters()))
        for model in (timm.create_model("vit_tiny_patch16_224", **options) for options in tiny)
    )
    for side in (small, large):
        for parameter in side.model.parameters():
            parameter.grad = torch.ones_like(parameter)
        side.optimizer.step()
    switch = Switch(small, large, find_map("vit_tiny_patch16_224", "vit_small_patch16_224", small.model, large.model))
    switch.expand()
    slices = 3 * (2 * 4 + 2)  # weights and two moments of qkv, proj, fc1, fc2, and of position embedding and head
    with LaunchCounter() as counter:
        switch.expand()
    assert counter.kernels == slices + 2  # the other weights and the other moments, up to 64 at a time
    assert counter.host == len(small.optimizer.state)


SCRIPT = """
import sys, time, torch
model = torch.nn.Linear(2, 2)
optimizers = [torch.optim.SGD(model.parameters(), lr=0.1) for _ in range(int(sys.argv[1]))]
single = torch.optim.SGD([model.weight], lr=0.1)
number = 0
while True:
    if number == int(sys.argv[2]):
        sys.exit("that is all")
    single.step()
    model(torch.ones(1, 2)).sum().backward()
    optimizers[-(number % 3 == 2)].step()
    number += 1
"""
"""Two optimizers of which every third step is the second's; and a scratch step of one parameter each time."""


def test_a_program_trains_in_turns_and_its_models_are_told_apart(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    programs = {"one": Program(script, ("2", "-1"), models=2)}
    found = race(programs, turns=2, updates=6, warmup=3, folder=tmp_path)["one"]
    assert [turn.updates for turn in found.turns] == [(4, 2)] * 2
    assert found.start_up_s > 0
    assert found.new_graphs == 0


def test_a_program_that_ends_is_said_with_its_last_words(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    with pytest.raises(RaceError, match=r"(?s)one ended before its last turn.*that is all"):
        race({"one": Program(script, ("1", "8"))}, turns=3, updates=4, warmup=1, folder=tmp_path)


@pytest.mark.parametrize("name", RECIPES)
def test_both_scripts_take_the_flags_of_a_recipe(name, tmp_path):
    recipe = RECIPES[name]
    recipe.make_images(tmp_path / "data", 4)
    flags = plain_flags(recipe, recipe.base, tmp_path, "cpu", 2, 1)
    timms = {flag for one in json.loads((FILES / "timm_train_args.json").read_text()) for flag in one["flags"]}
    assert {flag.split("=")[0] for flag in flags if flag.startswith("--")} <= timms
    args, _ = parse([*flags, *motivated_flags(recipe, 2)])
    assert option_faults(args) == []
    assert model_faults(args) == []
    datasets, faults = open_datasets(args, 1)
    assert faults == []
    assert len(datasets.train) == 4


def test_a_gpu_has_as_many_data_workers_as_cores_are_left(monkeypatch):
    for cores, workers in ((16, 14), (3, 2), (1, 2)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: range(cores))
        assert default_workers("cuda") == workers
        assert default_workers("cpu") == 2


def test_what_a_program_waits_for_its_data_is_counted():
    reports = []
    probe = Probe(updates=1, warmup=1, models=1, since=0.0, end_turn=reports.append)

    def fetch(batches):
        time.sleep(0.002)
        return next(batches)

    batches, next_batch = iter(range(2)), probe.timed(fetch)
    assert [next_batch(batches), next_batch(batches)] == [0, 1]
    with pytest.raises(StopIteration):
        next_batch(batches)
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters())
    for _ in range(2):
        probe.before_step(optimizer)
        probe.after_step(optimizer)
    assert reports[0]["waited_s"] > 0.005
    assert reports[1]["waited_s"] == 0


def test_the_share_of_waiting_is_that_of_the_middle_turn():
    turns = [Turn(2.0, (4,), 0.2), Turn(4.0, (4,), 2.0), Turn(2.0, (4,), 0.0)]
    assert Result(1.0, turns).waiting == 0.1


def test_our_program_can_race(capsys):
    words = "race resnet20 --programs plain --turns 1 --updates 1 --warmup 1 --batch-size 2 --workers 0 --device cpu"
    assert main(words.split()) == 0
    assert "\n| plain " in capsys.readouterr().out


def test_a_step_inside_a_step_is_one_update():
    """torch looks at Lookahead's own steps from its first ``zero_grad`` on."""
    reports = []
    probe = Probe(updates=2, warmup=1, models=1, since=0.0, end_turn=reports.append)
    hooks = (
        register_optimizer_step_pre_hook(probe.before_step),
        register_optimizer_step_post_hook(probe.after_step),
    )
    model = torch.nn.Linear(2, 2)
    optimizer = create_optimizer_v2(model, "lookahead_momentum", lr=0.1)
    for _ in range(5):
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    for hook in hooks:
        hook.remove()
    assert [report["updates"] for report in reports] == [[1], [2], [2]]


def test_a_loss_has_arrived_before_the_condition_is_timed():
    loss = DeferredScalar(torch.tensor(0.5))
    shown = _after_arrival(lambda *signals: signals)(loss, None)
    assert loss._value == 0.5
    assert (shown[0].value, shown[1]) == (0.5, None)


def test_the_parts_around_an_update_are_accounted_for(capsys):
    assert main(["around", "resnet20", "--updates", "4", "--batch-size", "4", "--workers", "0", "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert "4 updates in" in printed
    assert printed.count(" % |") == 3


def test_scale_prints_a_row_for_each_run(capsys):
    assert main(["scale", "--base", "593", "--larger", "350"]) == 0
    rows = [[cell.strip() for cell in line.split("|")] for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[1] for row in rows] == ["base", *(f"motivated, k = {k}" for k in (2, 3, 4, 5)), "larger"]
    assert rows[0][2] == "60.0"


def test_timms_script_is_asked_for_by_its_flag(capsys):
    assert command(["benchmark", "race", "resnet20", "--programs", "timm", "--device", "cpu"]) == 2
    assert "error: --timm-script:" in capsys.readouterr().err


def test_what_the_benchmark_decides_is_not_told_to_programs_past_it(capsys):
    words = ["around", "resnet20", "--device", "cpu", "--", "--batch-size=4", "--grad-accum-steps", "2"]
    assert command(["benchmark", *words]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[1].strip() for line in lines] == ["--batch-size", "--grad-accum-steps"]


def test_made_images_are_read_by_both_kinds_of_data_sets(tmp_path):
    make_jpegs(tmp_path / "files", 70)
    assert len(list((tmp_path / "files" / "train").glob("*/*.jpg"))) == 70
    make_small_images(tmp_path / "small", 9)
    assert len(list((tmp_path / "small").glob("MNIST/raw/*"))) == 4


def test_gaps_are_where_nothing_at_all_was_done():
    spans = [(0.0, 4.0), (10.0, 12.0), (1.0, 5.0), (2.0, 3.0), (12.0, 20.0)]
    assert gaps(spans) == [5.0]
    assert idle_percent(spans) == 25.0
    assert idle_percent([]) == 0.0


def test_a_range_with_a_name_is_no_work():
    with profile(activities=[ProfilerActivity.CPU]) as profiler, record_function("a step"):
        torch.ones(2).add(1)
    names = [event.name for event in profiler.events()]
    assert "a step" in names
    assert len(device_spans(profiler.events(), DeviceType.CPU)) == len(names) - 1


def test_a_timeline_is_of_the_updates_that_were_asked_for(tmp_path):
    """Of the processor, which stands for a GPU: how often a step was done shows which updates were profiled."""
    recipe = RECIPES["resnet20"]
    recipe.make_images(tmp_path / "data", 26 * 2)
    flags = plain_flags(recipe, "resnet8_cifar", tmp_path, "cpu", 2, 0)
    spans = profile_updates(flags, 4, DeviceType.CPU)
    assert len(spans) > 4 * 20
    assert 0 <= idle_percent(spans) < 100


def test_a_timeline_wants_a_gpu(capsys):
    assert command(["benchmark", "timeline", "resnet20", "--device", "cpu"]) == 2
    assert "error: timeline: there is a timeline of a GPU only" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["race", "resnet20", "--turns", "0"], "--turns: a whole number from 1 on, not '0'"),
        (["scale", "--base", "-1", "--larger", "2"], "--base: a number above 0, not '-1'"),
        (["memory", "--models", "resnet51"], "--models: timm has no model 'resnet51'"),
    ],
)
def test_numbers_and_names_are_looked_at(words, said):
    with pytest.raises(InputError, match=re.escape(said)):
        main(words)


def test_control_characters_in_names_are_escaped(monkeypatch, capsys):
    monkeypatch.setattr("motivation.tools.benchmark.command.scale_table", lambda *_, **__: "resnet\x1b[31m")
    assert main(["scale", "--base", "593", "--larger", "350"]) == 0
    assert capsys.readouterr().out == "resnet\\x1b[31m\n"
