"""Kill real runs at random points, resume them, and compare the outcome with the run that nobody killed.

``PYTHONPATH=. python tests/kill_runs.py [--kills N] [--seed S] [--only NAME ... | --all] [FLAGS]``; the last line is a
summary in JSON. Further flags are those of all runs.

Each run is a process of its own (forked, so that the packages are imported once). It dies by SIGKILL at one of the
points that `arrange` counts, half written files among them, of the kind that was chosen least so far, and is started
again with ``--resume auto`` until it is done. One signal in five is SIGTERM, to one rank: then all of them must save
and stop, or complete the run. At the end every file is compared, bit for bit, but for seconds and what was asked on the
command line.
"""

import argparse
import csv
import io
import json
import os
import random
import shutil
import signal
import socket
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

import sklearn.datasets
import sklearn.model_selection  # noqa: F401
import torch
from support.program import DIGITS, MOTIVATED, FewDigits, assert_equal, load

import motivation.data.datasets
import motivation.method.switch
import motivation.training.checkpoint
import motivation.training.evaluate
import motivation.training.learner
import motivation.training.loggers
from motivation.tools.train import main

COMMON = [*DIGITS, "--epochs", "3", "--recovery-interval", "2", "--drop", "0.1",
          "--checkpoint-hist", "2"]  # fmt: skip
SCENARIOS = {
    "plain": [],
    "workers": [*MOTIVATED, "-j", "2", "--aa", "rand-m5-mstd0.5", "--mixup", "0.3", "--mixup-off-epoch", "1",
                "--reprob", "0.2"],
    "accumulation": [*MOTIVATED, "-b", "8", "--grad-accum-steps", "3", "--mixup", "0.2", "--mixup-off-epoch", "1",
                     "--motivation-bn", "separate", "--motivation-bn-recalibrate", "2", "--model-ema"],
    "scheduled_lr": [*MOTIVATED, "--sched-on-updates", "--sched", "cosine", "--motivation-condition", "random",
                     "--clip-grad", "1", "--amp", "--amp-dtype", "bfloat16", "-j", "1", "--opt", "lamb", "--model-ema",
                     "--model-ema-decay", "0.9", "--reprob", "0.3"],
    "device": [*MOTIVATED, "--data-on-device", "--hflip", "0.5", "--mixup", "0.3", "--cutmix", "0.5", "--reprob", "0.3",
               "--remode", "pixel", "--mixup-off-epoch", "1", "--color-jitter", "0"],
    "ranks": [*MOTIVATED, "-b", "10", "--model-ema", "--reprob", "0.3", "-j", "2", "--aa", "rand-m5",
              "--motivation-condition", "valloss", "--motivation-valloss-images", "5"],
    "no_recovery": [*MOTIVATED, "--recovery-interval", "0", "--checkpoint-hist", "3"],
}  # fmt: skip
MORE = {
    "loss": [*MOTIVATED, "--opt", "lamb", "--model-ema", "--model-ema-decay", "0.9", "--reprob", "0.3"],
    "ranks_no_workers": [*MOTIVATED, "-b", "10", "--dist-bn", ""],
    "plateau": [*MOTIVATED, "--recovery-interval", "0", "--sched", "plateau", "--patience-epochs", "0", "--decay-rate",
                "0.1", "--checkpoint-hist", "1", "--eval-metric", "loss"],
    "plateau_noise": [*MOTIVATED, "--sched", "plateau", "--patience-epochs", "0", "--decay-rate", "0.1",
                      "--val-interval", "2", "--lr-noise", "0.1", "0.9"],
    "val_interval": [*MOTIVATED, "--val-interval", "2", "--epochs", "4", "--recovery-interval", "0",
                     "--checkpoint-hist", "1"],
    "lookahead": [*MOTIVATED, "--opt", "lookahead_adamw", "--lr", "0.005", "--model-ema", "--model-ema-warmup"],
    "adahessian": [*MOTIVATED, "--opt", "adahessian", "--motivation-condition", "ema", "--grad-accum-steps", "2"],
    "lookahead_adahessian": [*MOTIVATED, "--opt", "lookahead_adahessian"],
    "bfloat16_ema": [*MOTIVATED, "--model-dtype", "bfloat16", "--model-ema", "--model-ema-decay", "0.9"],
    "jsd": [*MOTIVATED, "--aug-splits", "3", "--jsd-loss", "--aa", "rand-m5", "--split-bn", "-j", "3", "-b", "40",
            "--resplit", "--reprob", "0.3"],
    "sizes": [*MOTIVATED, "--train-img-sizes", "8", "12", "--train-batch-sizes", "20", "10", "-j", "2"],
    "sizes_progressive": [*MOTIVATED, "--train-img-sizes", "8", "12", "--train-batch-sizes", "20", "10",
                          "--train-size-schedule", "progressive"],
    "ranks_repeats": [*MOTIVATED, "-b", "10", "--aug-repeats", "3", "--grad-accum-steps", "2",
                      "--motivation-condition", "slope"],
    "layer_decay": ["--layer-decay", "0.7", "--recovery-interval", "0", "--sched", "plateau", "--patience-epochs", "0"],
    "folds": [*MOTIVATED, "--folds", "3", "--fold", "1", "--motivation-condition", "slope", "--grad-accum-steps", "2",
              "--no-prefetcher", "--mixup", "0.3", "-j", "3"],
    "half_precision": [*MOTIVATED, "--val-split", "", "--model-dtype", "bfloat16", "-j", "3", "-b", "40", "--opt",
                       "adafactor", "--worker-seeding", "part"],
    "ema_on_cpu": [*MOTIVATED, "--motivation-bn", "separate", "--model-ema", "--model-ema-warmup",
                   "--motivation-condition", "always", "--model-ema-force-cpu"],
    "no_prefetcher": [*MOTIVATED, "--no-prefetcher", "--mixup", "0.3", "--cutmix", "0.5", "--mixup-off-epoch", "2",
                      "--drop-path", "0.1", "--reprob", "0.2", "--opt", "nadamw", "--lr", "0.001"],
    "warmup": [*MOTIVATED, "-b", "8", "--grad-accum-steps", "4", "--recovery-interval", "1", "-j", "3", "--aa",
               "rand-m5", "--sched-on-updates", "--warmup-epochs", "1", "--warmup-prefix"],
}  # fmt: skip
"""Too many for the suite: they are run where ``--only`` names them, or by ``--all``."""
PROCESSES = {"ranks": 2, "ranks_no_workers": 2, "ranks_repeats": 2}
PATIENCE_S = 180
KINDS = ("micro-batch", "step", "switch", "evaluation", "replace", "link", "fsync", "half a checkpoint", "half a line",
         "whole lines")  # fmt: skip
"""Of points where a run may be killed."""
OUTSIDE = " outside training"
"""There a signal ends the process as it ends any other."""


def arrange(fatal, number, counter):
    """Count the points of interest of this process, and send it a signal at point number ``fatal``."""

    def point(name):
        counter["points"].append(KINDS.index(name))
        if len(counter["points"]) == fatal:
            if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
                name += OUTSIDE
            os.write(counter["pipe"], f"{name}\n".encode())
            os.kill(os.getpid(), number)

    def before(owner, attribute, name):
        inner = getattr(owner, attribute)

        def wrapped(*args, **kwargs):
            point(name)
            return inner(*args, **kwargs)

        setattr(owner, attribute, wrapped)

    def save(contents, file, real=torch.save):
        buffer = io.BytesIO()
        real(contents, buffer)
        whole = buffer.getbuffer()
        half = len(whole) // 2
        file.write(whole[:half])
        file.flush()
        point("half a checkpoint")
        file.write(whole[half:])

    def append_rows(path, rows, real=motivation.training.loggers.append_rows):
        with open(path, "ab") as file:
            size = file.tell()
            file.write(b"0,1,ba")
        point("half a line")
        os.truncate(path, size)
        if not size:
            path.unlink()
        real(path, rows)
        point("whole lines")

    motivation.data.datasets.SklearnDigits = FewDigits
    motivation.training.checkpoint.torch = type("torch", (), {"save": save, "load": torch.load, **_modules(torch)})
    motivation.training.loggers.append_rows = append_rows
    before(motivation.training.learner.Learner, "_forward", "micro-batch")
    before(motivation.training.learner.Learner, "_step", "step")
    before(motivation.method.switch, "copy_all", "switch")
    before(motivation.training.evaluate.Validator, "forward", "evaluation")
    for name in ("replace", "link", "fsync"):
        before(os, name, name)


def _modules(package):
    return {"serialization": package.serialization, "Tensor": package.Tensor}


def launch(argv, fatal=0, number=0, victim=0, processes=1):
    """Run to the end or the signal; return exit statuses, the point of the signal or None, and kinds of points."""
    read, write = os.pipe()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(processes):
        children.append(_fork(argv, rank, processes, port, fatal if rank == victim else 0, number, write))
    os.close(write)
    statuses = [_wait(child) for child in children]
    os.set_blocking(read, False)  # data workers of a killed run have the other end open for some seconds
    try:
        lines = os.read(read, 1 << 16).decode().split("\n")
    except BlockingIOError:
        lines = []
    os.close(read)
    died = next((line for line in lines if line and not line.startswith("points ")), None)
    ended = [line.split(" ") for line in lines if line.startswith("points ")]  # a rank may stop before any point
    points = {int(rank): [KINDS[int(kind)] for kind in kinds] for _, rank, kinds in ended}
    return statuses, died, points


def _fork(argv, rank, processes, port, fatal, number, pipe):
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        quiet = os.open(os.environ.get("KILL_RUNS_LOG", os.devnull), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        if processes > 1:
            names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "MASTER_PORT": port}
            os.environ.update({name: str(value) for name, value in names.items()}, MASTER_ADDR="127.0.0.1")
        counter = {"points": [], "pipe": pipe}
        arrange(fatal, number, counter)
        code = main(argv)
        os.write(pipe, f"points {rank} {''.join(map(str, counter['points']))}\n".encode())
    except Exception:  # noqa: BLE001  (the parent sees the exit status)
        traceback.print_exc()
    finally:
        os._exit(code)


def _wait(child):
    """The exit status; a process that does not end is killed, and its status is 'stuck'."""
    until = time.time() + PATIENCE_S
    while time.time() < until:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "stuck"


def rows(path):
    with open(path, newline="") as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def compare(whole, part, stopped):
    """What differs between two folders, in words; a run that was stopped has recovery files of other updates."""
    faults = []
    names = [
        sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
        for folder in (whole, part)
    ]
    apart = ("recovery-", ".previous") if stopped else (".previous",)
    names = [[name for name in listed if not any(word in name for word in apart)] for listed in names]
    if names[0] != names[1]:
        faults.append(f"files differ: {sorted(set(names[0]) ^ set(names[1]))}")
    for name in sorted(set(names[0]) & set(names[1])):
        try:
            if name.endswith(".csv"):
                assert rows(whole / name) == rows(part / name), "rows differ"
            elif name.endswith(".json"):
                assert (whole / name).read_text() == (part / name).read_text(), "text differs"
            elif name.endswith(".pth.tar"):
                assert_equal(*(comparable(load(folder / name)) for folder in (part, whole)), name)
        except AssertionError as error:
            faults.append(f"{name}: {str(error)[:200]}")
    return faults


def comparable(contents):
    contents = {key: value for key, value in contents.items() if key != "args"}
    for record in contents["motivation"].get("records", ()):
        record.pop("elapsed_s")
    return contents


def choose(kinds, stream, seen):
    """The number of a point of the kind that was chosen least so far, from 1; late ones have more to lose."""
    rarest = min(seen[kind] for kind in kinds)
    numbers = [number for number, kind in enumerate(kinds, 1) if seen[kind] == rarest]
    return max(stream.choice(numbers), stream.choice(numbers))


def kill_and_resume(name, folder, kills, stream, seen, flags):
    """Kill one scenario so many times, over as many runs as it takes; returns the faults."""
    processes = PROCESSES.get(name, 1)
    argv = [*COMMON, *(SCENARIOS | MORE)[name], *flags, "--output", str(folder), "--resume", "auto"]
    statuses, _, points = launch([*argv, "--experiment", f"{name}-whole"], processes=processes)
    faults = [] if statuses == [0] * processes else [f"{name}: the whole run ended with {statuses}"]
    run, done = 0, 0
    while not faults and done < kills:
        experiment, run, stopped = f"{name}-{run}", run + 1, False
        for _ in range(20):
            number = stream.choice([signal.SIGKILL] * 4 + [signal.SIGTERM])
            victim = stream.randrange(processes)
            fatal = choose(points[victim], stream, seen["points"]) if done < kills else 0
            statuses, point, _ = launch([*argv, "--experiment", experiment], fatal, number, victim, processes)
            if statuses == [0] * processes:
                break
            expected = {128 + number}
            if number == signal.SIGKILL:
                expected = {-number, 1}
            if point is not None and point.endswith(OUTSIDE):
                expected = {-number, 1, 0}  # the other ranks may have ended already
            if point is None or not expected.issuperset(statuses):
                faults.append(f"{name}: {number.name} to rank {victim} at {point!r}: ended with {statuses}")
                break
            done += number == signal.SIGKILL
            seen["kills" if number == signal.SIGKILL else "stops"] += 1
            stopped |= number == signal.SIGTERM
            seen["points"][point.removesuffix(OUTSIDE)] += 1
            seen["resumes"] += 1
        faults += [
            f"{experiment}: {fault}" for fault in compare(folder / f"{name}-whole", folder / experiment, stopped)
        ]
        seen["runs"] += 1
        if not faults:
            shutil.rmtree(folder / experiment)
    return faults


def run_all(kills, seed, only, flags):
    torch.set_num_threads(1)
    stream = random.Random(seed)
    seen = {"kills": 0, "stops": 0, "resumes": 0, "runs": 0, "points": Counter()}
    names = only or list(SCENARIOS)
    faults, began = [], time.time()
    with tempfile.TemporaryDirectory() as folder:
        for index, name in enumerate(names):
            share = kills * (index + 1) // len(names) - kills * index // len(names)
            faults += kill_and_resume(name, Path(folder), share, stream, seen, flags)
            print(f"{name}: {seen['kills']} kills, {len(faults)} faults, {time.time() - began:.0f} s", flush=True)
    return {**seen, "mismatches": faults}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", default=[], choices=[*SCENARIOS, *MORE])
    parser.add_argument("--all", action="store_true")
    args, flags = parser.parse_known_args()
    summary = run_all(args.kills, args.seed, [*SCENARIOS, *MORE] if args.all else args.only, flags)
    print(json.dumps(summary))
    raise SystemExit(bool(summary["mismatches"]))
