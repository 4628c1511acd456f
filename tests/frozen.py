"""Frozen behaviour: what runs gave before the program was rebuilt, to be compared with what they give now.

::

    python tests/frozen.py record FILE      every figure of all `CASES`, to the last bit; good on this machine only
    python tests/frozen.py compare FILE     run them again and name what differs
    python tests/frozen.py links            compare the maps of 1,316 pairs of timm models with the frozen ones
    python tests/frozen.py commit [PART]    write options, losses or files anew (`tests/files/frozen`)

The committed data are losses (equal up to the last digits that processors differ in), resolved options of all
configurations, names of files and columns, and link tables. ``tests/test_frozen.py`` checks them, or a fast part.

Runs are made by the command line programs, in forked processes, so that nothing here depends on inner modules.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import multiprocessing
import os
import runpy
import socket
import sys
import tarfile
import tempfile
import traceback
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # sums are taken in an order that depends on the number of threads

import torch

ROOT = Path(__file__).parent.parent
DATA = Path(__file__).parent / "files" / "frozen"
TRAIN, FINETUNE = "train_motivated.py", "finetune.py"
sys.path.insert(0, str(ROOT))

DIGITS = [
    "--dataset", "sklearn/digits", "--input-size", "1", "8", "8", "--num-classes", "10", "--mean", "0.3",
    "--std", "0.36", "--device", "cpu", "-b", "240", "-vb", "180", "-j", "0", "--epochs", "2", "--lr", "0.05",
    "--warmup-epochs", "0", "--model", "resnet8_cifar", "--train-pad", "1", "--hflip", "0", "--color-jitter", "0",
    "--smoothing", "0", "--output", ".",
]  # fmt: skip
DEPTH = ["--motivated-model", "resnet14_cifar", "--motivation-k", "1"]
WIDTH = [
    "--model", "vit_tiny_patch16_224", "--motivated-model", "vit_small_patch16_224", "--motivation-k", "1",
    "--model-kwargs", "img_size=8", "patch_size=2", "depth=2", "embed_dim=16", "num_heads=2",
    "--motivated-model-kwargs", "depth=3", "embed_dim=32", "num_heads=4", "--opt", "adamw", "--lr", "0.005",
]  # fmt: skip
EMA = ["--model-ema", "--model-ema-decay", "0.8"]
TUNE = [
    "--dataset", "sklearn/digits", "--device", "cpu", "-b", "240", "-vb", "180", "-j", "0", "--epochs", "2",
    "--aa", "", "--mixup", "0.2", "--cutmix", "0", "--aug-repeats", "0", "--train-pad", "1", "--hflip", "0",
    "--output", ".", "--checkpoint", "depth_ema",
]  # fmt: skip


FORMAT2 = [
    "--epochs", "3", "--recovery-interval", "3", *EMA, "--model", "resnet18", "--motivated-model", "resnet18",
    "--motivation-k", "1", "--model-kwargs", "layers=[1,1,1,1]", "stem_width=4", "channels=[4,4,4,4]",
    "--motivated-model-kwargs", "layers=[2,1,1,1]",
]  # fmt: skip
"""The flags of the run in ``tests/data/format2.tar.xz``, two tiny ResNets. It was written when the entry `motivation`
of a checkpoint had format 2: ``last.pth.tar`` after the first of three epochs, and a recovery file after the third
update of the second, while the motivated model is active."""


def _condition(name: str, *flags: str) -> list[str]:
    return [*DEPTH, "-b", "120", "--motivation-condition", name, *flags]


def _with_opt(name: str, lr: str, *flags: str) -> list[str]:
    return [*DEPTH, *EMA, "--opt", name, "--lr", lr, *flags]


FAST = {
    "plain": ["--epochs", "1"],
    "depth": DEPTH,
    "depth_ema": [*DEPTH, *EMA, "--recovery-interval", "2"],
    "width": WIDTH,
    "accumulation": [*DEPTH, "-b", "60", "--grad-accum-steps", "3", "--clip-grad", "0.5"],
    "two_workers": [*DEPTH, "-j", "2", "--aa", "rand-m6-mstd0.5-inc1", "--mixup", "0.2", "--epochs", "1"],
    "two_ranks": [*DEPTH, "-b", "120", "--epochs", "1"],
    "format2_between_epochs": [*FORMAT2, "--resume", "format2/last.pth.tar"],
    "format2_inside_epoch": [*FORMAT2, "--resume", "format2/recovery-1-2.pth.tar"],
    "format2": [*FORMAT2, "--resume", "auto"],
}  # fmt: skip
"""The cases that the suite runs."""

CASES = {
    **FAST,
    "bn_copy": [*DEPTH, "--motivation-bn", "copy"],
    "random": _condition("random", "--epochs", "1"),
    "plain_ema": [*EMA, "--opt", "lamb"],
    "width_ema": [*WIDTH, *EMA, "--model-ema-warmup", "--drop-path", "0.1", "--motivated-drop-path", "0.2"],
    "width_bce": [*WIDTH, "--bce-loss", "--mixup", "0.2", "--cutmix", "1.0", "--sched-on-updates", "--warmup-epochs",
                  "1"],
    "two_workers_long": [*DEPTH, "-j", "2", "--aa", "rand-m6-mstd0.5-inc1", "--mixup", "0.2", "--reprob", "0.3"],
    "two_ranks_all": [*DEPTH, *EMA, "-b", "60", "--grad-accum-steps", "2", "--opt", "lamb",
                      "--motivation-bn-recalibrate", "2", "--motivation-condition", "valloss",
                      "--motivation-valloss-images", "40"],
    "two_ranks_slope": [*_condition("slope"), "-j", "1", "--clip-grad", "0.5"],
    "bn_copy_recalibrated": [*DEPTH, *EMA, "--motivation-bn", "copy", "--motivation-bn-recalibrate", "2"],
    "bn_separate_recalibrated": [*DEPTH, *EMA, "--motivation-bn", "separate", "--motivation-bn-recalibrate", "2"],
    "never": _condition("never"),
    "always": _condition("always"),
    "ema": _condition("ema"),
    "slope": _condition("slope"),
    "valloss": _condition("valloss", "--motivation-valloss-images", "100"),
    "random_long": _condition("random", *EMA),
    "scheduled": _condition("scheduled", "--motivation-scheduled-runs", "depth", "bn_copy"),
    "loss_k3": [*DEPTH, "-b", "60", "--motivation-k", "3"],
    "lamb": _with_opt("lamb", "0.02", "--weight-decay", "0.02"),
    "adamw": _with_opt("adamw", "0.01", "--weight-decay", "0.05"),
    "rmsproptf": _with_opt("rmsproptf", "0.005", "--sched", "step", "--decay-epochs", "1", "--opt-eps", "1e-3"),
    "adafactor": _with_opt("adafactor", "0.01"),
    "adan": _with_opt("adan", "0.005"),
    "muon": _with_opt("muon", "0.01"),
    "nadamw": _with_opt("nadamw", "0.005"),
    "lookahead": _with_opt("lookahead_adamw", "0.005"),
    "adahessian": [*DEPTH, "--opt", "adahessian", "--lr", "0.02"],
    "plateau": [*DEPTH, "--sched", "plateau", "--patience-epochs", "0", "--eval-metric", "loss", "--epochs", "3"],
    "schedule_on_updates": [*DEPTH, "--sched-on-updates", "--sched", "cosine", "--warmup-epochs", "1"],
    "bfloat16_autocast": [*DEPTH, "--amp", "--amp-dtype", "bfloat16", "--clip-grad", "1"],
    "bfloat16_weights": [*DEPTH, "--model-dtype", "bfloat16", "--val-split", ""],
    "data_on_device": [*DEPTH, "--data-on-device", "--hflip", "0.5", "--mixup", "0.3", "--cutmix", "0.5", "--reprob",
                       "0.3", "--mixup-off-epoch", "1"],
    "folds": [*DEPTH, "--folds", "3", "--fold", "1", "--no-prefetcher", "--mixup", "0.3"],
    "jsd_split_bn": [*DEPTH, "--aug-splits", "3", "--jsd-loss", "--aa", "rand-m5", "--split-bn", "--resplit", "-j",
                     "1"],
    "image_sizes": [*DEPTH, "--train-img-sizes", "8", "12", "--train-batch-sizes", "240", "120"],
    "augmentation_repeats": [*DEPTH, "--aug-repeats", "3", "--smoothing", "0.1", "--drop", "0.1"],
    "val_interval": [*DEPTH, "--val-interval", "2", "--epochs", "3", "--motivated-eval", "none"],
    "ema_on_cpu": [*DEPTH, *EMA, "--model-ema-force-cpu", "--checkpoint-hist", "1"],
    "layer_decay": ["--layer-decay", "0.7"],
    "placement_first": [*DEPTH, "--motivated-model", "resnet20_cifar", "--motivation-placement", "first"],
    "resumed": [*DEPTH, *EMA, "--epochs", "3", "--resume", "depth_ema/checkpoint-0.pth.tar"],
    "finetune_base": TUNE,
    "finetune_motivated": [*TUNE, "--from", "motivated"],
    "finetune_pair": [*TUNE, *DEPTH],
}  # fmt: skip
"""Flags behind `DIGITS`, of ``train_motivated.py``, or of ``finetune.py``; each run is in the folder of its name."""

RANKS = {name: 2 for name in CASES if name.startswith("two_ranks")}


# Runs


def run(names: Iterable[str], folder: Path) -> dict[str, int]:
    """Make the named runs in a folder, one after the other; returns their exit codes."""
    for script in (TRAIN, FINETUNE):
        runpy.run_path(str(ROOT / script), run_name="imported")  # so that the forked processes have the imports
    import sklearn.datasets
    import sklearn.model_selection  # noqa: F401

    with tarfile.open(DATA.parent / "format2.tar.xz") as archive:
        archive.extractall(folder)
    return {name: run_one(name, folder) for name in names}


def run_one(name: str, folder: Path) -> int:
    """Make one run in ``folder/name``, its output in ``folder/name.log``; returns the exit code."""
    argv = [FINETUNE, *CASES[name]] if name.startswith("finetune") else [TRAIN, *DIGITS, *CASES[name]]
    return run_program([*argv, "--experiment", name], folder, folder / f"{name}.log", RANKS.get(name, 1))


def run_program(argv: Sequence[str], folder: Path, log: Path, ranks: int = 1) -> int:
    """Run one of the programs in forked processes with this working directory; returns the worst exit code."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(ranks):
        child = os.fork()
        if not child:
            if ranks > 1:  # as torchrun has it
                variables = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "MASTER_PORT": port}
                os.environ.update({key: str(value) for key, value in variables.items()}, MASTER_ADDR="127.0.0.1")
            _be_program(argv, folder, log)
        children.append(child)
    return max(abs(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])) for child in children)


def _be_program(argv: Sequence[str], folder: Path, log: Path) -> None:
    code = 1
    try:
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, 1)
        os.dup2(file, 2)
        os.chdir(folder)
        sys.argv = list(argv)
        torch.set_num_threads(1)
        runpy.run_path(str(ROOT / argv[0]), run_name="__main__")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001  (the log has it)
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


# What a run has left


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint."""
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(path, map_location="cpu", weights_only=True)


def rows(path: Path) -> list[dict[str, str]]:
    """Read a CSV file, without the column of seconds."""
    if not path.exists():
        return []
    with open(path, newline="") as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def training_state(path: Path) -> dict[str, Any]:
    """Take weights, EMA and optimizer state of both models from a checkpoint of the base, by their names.

    The only function that knows where in a checkpoint they are.
    """
    contents = load(path)
    parts = {f"base.{key}": contents.get(key) for key in ("state_dict", "state_dict_ema", "optimizer")}
    ours, decays = contents["motivation"], ("base_pending_decay", "pending_decay")
    if ours["format"] == 2:
        ours, decays = {"pair": ours["switcher"]}, ("base_idle_decay", "idle_decay")
    if motivated := ours["pair"].get("motivated"):
        keys = ("state_dict", "state_dict_ema", "optimizer")
        parts |= {f"motivated.{key}": motivated.get(key) for key in keys}
        parts["pending_ema_decay"] = [ours["pair"][decays[0]], motivated[decays[1]]]
    return {name: value for name, value in parts.items() if value is not None}


def deployed_state(path: Path) -> dict[str, Any]:
    """Take weights and EMA from a checkpoint of the motivated model, as timm reads them."""
    contents = load(path)
    return {f"deployed.{key}": contents[key] for key in ("state_dict", "state_dict_ema") if key in contents}


def digest(value: Any) -> str:
    """Hash nested values: dictionaries by sorted key, tensors by dtype, shape and bits."""
    hashed = hashlib.sha256()
    _feed(hashed, value)
    return hashed.hexdigest()


def _feed(hashed: Any, value: Any) -> None:
    if isinstance(value, torch.Tensor):
        hashed.update(f"tensor {value.dtype} {tuple(value.shape)}".encode())
        hashed.update(value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    elif isinstance(value, dict):
        hashed.update(f"dict {len(value)}".encode())
        for key in sorted(value, key=str):
            hashed.update(repr(key).encode())
            _feed(hashed, value[key])
    elif isinstance(value, (list, tuple)):
        hashed.update(f"list {len(value)}".encode())
        for item in value:
            _feed(hashed, item)
    else:
        hashed.update(repr(value).encode())


def figures(folder: Path) -> dict[str, Any]:
    """Everything of a run that must not change, to the last bit."""
    hashes = {}
    for path in sorted(folder.glob("*.pth.tar")):
        hashes |= {f"{path.name} {part}": digest(value) for part, value in training_state(path).items()}
    for path in sorted(folder.glob("motivated/*.pth.tar")):
        if not path.name.startswith("recovery"):
            hashes |= {f"motivated/{path.name} {part}": digest(value) for part, value in deployed_state(path).items()}
    return {
        "updates": rows(folder / "updates.csv"),
        "summary": rows(folder / "summary.csv"),
        "result": json.loads((folder / "result.json").read_text()),
        "hashes": hashes,
    }


def losses(folder: Path) -> dict[str, Any]:
    """Losses of a run, rounded, and the sequence of active models (``b`` and ``m``)."""
    updates, summary = rows(folder / "updates.csv"), rows(folder / "summary.csv")
    return {
        "active": "".join(row["active"][0] for row in updates),
        "updates": [_rounded(row["loss"]) for row in updates],
        "train": [_rounded(row["train_loss"]) for row in summary],
        "eval": [_rounded(row["eval_loss"]) for row in summary if row.get("eval_loss")],
        "motivated_eval": [_rounded(row["motivated_eval_loss"]) for row in summary if row.get("motivated_eval_loss")],
    }


def _rounded(text: str) -> float:
    return float(f"{float(text):.6g}")


def files_of(folder: Path) -> dict[str, Any]:
    """Names of a run's files, columns of its tables, keys of its result and of its checkpoints."""
    found: dict[str, Any] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name, contents = str(path.relative_to(folder)), None
        if path.suffix == ".csv":
            contents = path.read_text().splitlines()[0].split(",")
        elif path.suffix == ".json":
            contents = _keys(json.loads(path.read_text()))
        elif path.name.endswith(".pth.tar"):
            contents = sorted(load(path))
        found[name] = contents
    return found


def _keys(value: Any) -> Any:
    """Replace the values of nested dictionaries by None."""
    return {key: _keys(inner) for key, inner in value.items()} if isinstance(value, dict) else None


# Recording and comparing on one machine


def record(file: Path, names: Iterable[str]) -> dict[str, Any]:
    """Run the cases and write down their figures."""
    with tempfile.TemporaryDirectory() as folder:
        found = {}
        for name, code in run(names, Path(folder)).items():
            place = Path(folder)
            if code:
                raise SystemExit(f"{name} ended with {code}:\n{(place / f'{name}.log').read_text()[-3000:]}")
            found[name] = figures(place / name)
    file.write_text(json.dumps(found, indent=1) + "\n")
    return found


def differences(expected: Any, found: Any, where: str = "") -> list[str]:
    """Name every place where two nested values differ."""
    if isinstance(expected, dict) and isinstance(found, dict):
        faults = [f"{where}/{key}: missing" for key in expected if key not in found]
        faults += [f"{where}/{key}: new" for key in found if key not in expected]
        for key in expected.keys() & found.keys():
            faults += differences(expected[key], found[key], f"{where}/{key}")
        return faults
    if isinstance(expected, list) and isinstance(found, list):
        if len(expected) != len(found):
            return [f"{where}: {len(expected)} before, {len(found)} now"]
        return [fault for i, pair in enumerate(zip(expected, found)) for fault in differences(*pair, f"{where}/{i}")]
    same = expected == found or (expected != expected and found != found)
    return [] if same else [f"{where}: {expected!r} before, {found!r} now"]


# Link tables


PLACEMENTS = ("paper", "first", "last", "even")
NOT_MAPPED = "-"


@lru_cache(maxsize=200)
def _layout(name: str) -> Any:
    import timm

    import motivation.models  # noqa: F401
    from weight_maps import layout_of

    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                return layout_of(timm.create_model(name))
        except NotImplementedError:  # older versions of timm compute the widths of RegNets by tensors
            return layout_of(timm.create_model(name))


def link_hash(base: str, motivated: str) -> str:
    """Hash the map of a pair in all placements; ``-`` where there is no map."""
    from weight_maps import WeightMapError, find_map

    tables = []
    for placement in PLACEMENTS:
        try:
            found = find_map(base, motivated, _layout(base), _layout(motivated), placement=placement)
        except WeightMapError:
            if not tables:
                return NOT_MAPPED
            tables.append(None)
            continue
        links = sorted((link.base, link.motivated, _plain(link.index)) for link in found.links)
        tables.append([links, sorted(found.unmapped)])
    return digest(tables)[:12]


def _plain(index: Any) -> list[list[list[int]]]:
    return [[[int(start), int(stop)] for start, stop in axis] for axis in index]


def read_links() -> dict[str, dict[str, str]]:
    """Read the committed hashes: base, motivated model, hash."""
    lines = (DATA / "links.txt").read_text().splitlines()
    split = (line.split() for line in lines if not line.startswith("#"))
    return {base: dict(word.split("=") for word in words) for base, *words in split}


def _link_hashes(job: tuple[str, list[str]]) -> tuple[str, dict[str, str]]:
    torch.set_num_threads(1)
    base, motivated = job
    return base, {name: link_hash(base, name) for name in motivated}


def all_links(pairs: dict[str, list[str]], jobs: int) -> dict[str, dict[str, str]]:
    """Hash the maps of all pairs."""
    # neighbours share most of their motivated models, so that a process finds them in its cache
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        return dict(pool.map(_link_hashes, sorted(pairs.items()), chunksize=20))


# Resolved options


def config_files() -> dict[str, Path]:
    """Name every configuration that is run; folders that begin with an underscore hold bases only."""
    folder = ROOT / "configs"
    files = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*.yaml"))}
    return {name: path for name, path in files.items() if not any(part.startswith("_") for part in Path(name).parts)}


def options_of(program: str, argv: Sequence[str]) -> dict[str, Any]:
    """Resolve a command line of one of the programs, without what ``--checkpoint`` brings to fine-tuning."""
    from motivation.options.parse import make_parser, parse
    from motivation.tools import finetune

    parser = finetune.make_parser() if program == FINETUNE else make_parser()
    return vars(parse(list(argv), parser)[0])


def all_options() -> dict[str, Any]:
    """Resolve all configurations; of each only what differs from its program's defaults."""
    defaults = {program: options_of(program, []) for program in (TRAIN, FINETUNE)}
    found: dict[str, Any] = {"defaults": defaults[TRAIN]}
    found["finetune defaults"] = _unlike(defaults[FINETUNE], defaults[TRAIN])
    for name, path in config_files().items():
        program = FINETUNE if name.startswith("finetune/") else TRAIN
        found[name] = _unlike(options_of(program, ["--config", str(path)]), defaults[program])
    return json.loads(json.dumps(found))


def _unlike(options: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    return {key: options[key] for key in sorted(options) if key not in defaults or options[key] != defaults[key]}


# Commands


def write_json(name: str, found: dict[str, Any]) -> None:
    """Write committed data, one line for each entry."""
    lines = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in found.items()]
    (DATA / name).write_text("{\n" + ",\n".join(lines) + "\n}\n")


def read_json(name: str) -> dict[str, Any]:
    """Read committed data."""
    return json.loads((DATA / name).read_text())


FILES_OF = ("plain", "depth", "depth_ema")


def commit(parts: Sequence[str]) -> None:
    """Write the committed data anew."""
    DATA.mkdir(exist_ok=True)
    if "options" in parts:
        write_json("options.json", all_options())
    if {"losses", "files"} & set(parts):
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            names = list(CASES if "losses" in parts else FILES_OF)
            codes = run(names, place)
            assert not any(codes.values()), codes
            if "losses" in parts:
                write_json("losses.json", {name: losses(place / name) for name in names})
            write_json("files.json", {name: files_of(place / name) for name in FILES_OF})


def main() -> int:
    """Run a command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2, help="processes that build models")
    commands = parser.add_subparsers(dest="command", required=True)
    for command in ("record", "compare"):
        sub = commands.add_parser(command)
        sub.add_argument("file", type=Path)
        sub.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), metavar="CASE")
    commands.add_parser("links")
    sub = commands.add_parser("commit")
    sub.add_argument("parts", nargs="*", default=["options", "losses", "files"])
    sub = commands.add_parser("run")
    sub.add_argument("folder", type=Path)
    sub.add_argument("names", nargs="+", choices=CASES)
    args = parser.parse_args()
    if args.command == "run":
        return max(run(args.names, args.folder).values())
    if args.command == "commit":
        commit(args.parts)
        return 0
    if args.command == "record":
        record(args.file, args.only)
        return 0
    if args.command == "compare":
        with tempfile.TemporaryDirectory() as folder:
            found = record(Path(folder) / "found.json", args.only)
        before = json.loads(args.file.read_text())
        faults = differences({name: before[name] for name in args.only}, found)
        print(f"{len(args.only)} runs, {len({fault.split('/')[1] for fault in faults})} of them differ")
    else:
        before = read_links()
        found = all_links({base: list(row) for base, row in before.items()}, args.jobs)
        faults = differences(before, found)
        print(f"{sum(map(len, before.values()))} pairs, {len(faults)} of them differ")
    print(*faults[:100], sep="\n")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
