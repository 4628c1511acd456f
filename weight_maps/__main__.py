"""``python -m weight_maps``: show where one timm model lies inside another, and convert checkpoints between them.

python -m weight_maps resnet50 resnet101
python -m weight_maps vit_tiny_patch16_224 vit_small_patch16_224 --plot map.png
python -m weight_maps resnet50 resnet101 --expand small.pth.tar big.safetensors
python -m weight_maps --list
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch

from motivation.errors import print_text
from weight_maps.checkpoints import convert
from weight_maps.containment import compare
from weight_maps.core import WeightMap
from weight_maps.depth import PLACEMENTS
from weight_maps.find import find_map, image_size, make_model
from weight_maps.layout import layout_of
from weight_maps.plugins import load_plugin
from weight_maps.registry import map_for, map_named, registered_maps
from weight_maps.summary import columns, summarise, table

OWN_MODELS = "motivation.models"
"""Registers the CIFAR ResNets with timm."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = make_parser()
    args = parser.parse_args(arguments)
    try:
        for plugin in (OWN_MODELS, *args.plugins):
            load_plugin(plugin)
        if args.list:
            print_text(_listing())
            return 0
        if args.suggest or args.inside:
            _suggest(args)
            return 0
        if args.motivated is None:
            parser.error("give two timm model names, the smaller first, or --list")
        _show(args)
    except BrokenPipeError:
        return 1
    except (ValueError, OSError) as error:
        print_text(f"error: {error}", file=sys.stderr)
        return 1
    return 0


class _ShowVersions(argparse.Action):
    """Print all versions and end."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from motivation.versions import version_text  # both packages are installed together

        print_text(version_text())
        parser.exit()


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the command's options."""
    parser = argparse.ArgumentParser(
        prog="python -m weight_maps", description="Show where one timm model lies inside another."
    )
    parser.add_argument(
        "--version", action=_ShowVersions, nargs=0, default=argparse.SUPPRESS, help="print versions, and the device"
    )
    parser.add_argument("base", nargs="?", metavar="BASE", help="timm model, the smaller")
    parser.add_argument("motivated", nargs="?", metavar="MOTIVATED", help="timm model that contains it")
    parser.add_argument("--list", action="store_true", help="show the registered maps and the model names they are for")
    parser.add_argument("--suggest", metavar="BASE", help="list timm's models that contain BASE, and what a pair costs")
    parser.add_argument("--inside", metavar="LARGER", help="list timm's models that LARGER contains")
    parser.add_argument(
        "--budget", metavar="1.2x", help="with --suggest, --inside: most that a run with k = 2 may cost, in bases alone"
    )
    parser.add_argument(
        "--in-stock", nargs="+", default=[], metavar="NAME", help="with these: only such models; wildcards, quoted"
    )
    parser.add_argument("--map", metavar="NAME", help="map by name; default by the names of the models")
    parser.add_argument(
        "--placement", default="paper", choices=PLACEMENTS, help="where blocks lie in a deeper model (default paper)"
    )
    own = "files or modules of yours, loaded first; motivation.models has CIFAR ResNets"
    parser.add_argument("--plugins", nargs="+", default=[], metavar="FILE_OR_MODULE", help=own)
    parser.add_argument("--num-classes", type=int, metavar="N", help="outputs of both heads")
    parser.add_argument("--in-chans", type=int, metavar="N", help="channels of the images")
    parser.add_argument("--img-size", type=int, metavar="PX", help="side of the images, for models that depend on it")
    parser.add_argument("--model-kwargs", nargs="+", default=[], metavar="KEY=VALUE", help="arguments of both models")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the map: .png, .svg or .pdf")
    parser.add_argument("--verify", action="store_true", help="compute whether the base is inside; exit code 1 if not")
    expand = "write a checkpoint of the motivated model with the weights of one of the base; .safetensors or .pth"
    parser.add_argument("--expand", nargs=2, type=Path, metavar=("SMALL", "BIG"), help=expand)
    onto = "with --expand: a checkpoint with the other weights; default timm's initialisation"
    parser.add_argument("--onto", type=Path, metavar="FILE", help=onto)
    extract = "cut the base out of a checkpoint of the motivated model"
    parser.add_argument("--extract", nargs=2, type=Path, metavar=("BIG", "SMALL"), help=extract)
    parser.add_argument(
        "--seed", type=int, default=42, metavar="N", help="for the new weights of --expand (default 42)"
    )
    return parser


def _suggest(args: argparse.Namespace) -> None:
    from motivation.tools.suggest import suggestion_table  # both packages are installed together

    try:
        budget = None if args.budget is None else float(args.budget.removesuffix("x"))
    except ValueError as error:
        raise ValueError(f"--budget: a multiple such as 1.2x, not {args.budget!r}") from error
    print_text(suggestion_table(args.suggest or args.inside, bool(args.inside), args.in_stock, budget))


def _listing() -> str:
    rows = [
        (entry.name, " ".join(entry.patterns) or "(by its name only)", _first_line(entry.builder.__doc__))
        for entry in registered_maps()
    ]
    return columns(rows)


def _first_line(doc: str | None) -> str:
    return (doc or "").strip().partition("\n")[0]


def _show(args: argparse.Namespace) -> None:
    for name in (args.base, args.motivated):
        if not timm.is_model(name):
            raise ValueError(f"timm has no model {name!r}; models of your own come with --plugins")
    if args.onto and not args.expand:
        raise ValueError("--onto goes with --expand")
    if sum(map(bool, (args.expand, args.extract, args.plot or args.json or args.verify))) > 1:
        raise ValueError("--expand, --extract and showing the map are three things; one at a time")
    if args.num_classes is not None and args.num_classes < 0:
        raise ValueError(f"--num-classes: a number of classes, not {args.num_classes}")
    if args.plot and not args.plot.suffix:
        raise ValueError(f"--plot: the ending of {str(args.plot)!r} says how to draw: .png, .svg or .pdf")
    kwargs = _model_kwargs(args)
    if args.expand or args.extract:
        _convert(args, kwargs)
        return
    names = args.base, args.motivated
    base, motivated = (layout_of(make_model(name, meta=True, **kwargs)) for name in names)
    entry = map_named(args.map) if args.map else map_for(*names)
    options = {"map_name": entry.name, "placement": args.placement}
    weights_map = find_map(*names, base, motivated, **options)
    summary = summarise(weights_map, base, motivated, names, **options)
    print_text(json.dumps(summary.as_json(), indent=1) if args.json else table(summary))
    if args.plot:
        from weight_maps.picture import draw  # matplotlib takes long to import

        draw(summary, args.plot)
    if args.verify:
        _verify(args, kwargs, weights_map)


def _model_kwargs(args: argparse.Namespace) -> dict[str, Any]:
    kwargs: dict[str, Any] = {
        name: value for name in ("num_classes", "in_chans", "img_size") if (value := getattr(args, name)) is not None
    }
    for word in args.model_kwargs:
        name, equals, value = word.partition("=")
        if not equals:
            raise ValueError(f"{word!r} is not of the form name=value")
        try:
            kwargs[name] = json.loads(value)
        except json.JSONDecodeError:
            kwargs[name] = value
    return kwargs


def _verify(args: argparse.Namespace, kwargs: dict[str, Any], weights_map: WeightMap) -> None:
    base, motivated = (make_model(name, **kwargs) for name in (args.base, args.motivated))
    images = torch.randn(1, *image_size(base, **kwargs))
    try:
        base.eval()(images)
    except Exception as error:  # a model may raise anything for images that it does not take
        shape = " x ".join(map(str, images.shape[1:]))
        raise ValueError(f"{args.base} does not take images of {shape}: {error}") from error
    found = compare(weights_map, base, motivated, images)
    if not found.holds:
        raise ValueError(f"{args.base} is not found inside {args.motivated}: {found.first_difference}")
    print_text(f"Computed: {found.layers} layers of {args.base} are found inside {args.motivated}.", file=sys.stderr)


def _convert(args: argparse.Namespace, kwargs: dict[str, Any]) -> None:
    torch.manual_seed(args.seed)
    source, target = args.expand or args.extract
    convert(
        (args.base, args.motivated),
        source,
        target,
        extract=bool(args.extract),
        onto=args.onto,
        kwargs=kwargs,
        map_name=args.map,
        placement=args.placement,
    )
    if args.expand:
        print_text(f"{target}: {args.motivated} with {args.base} of {source} inside")
    else:
        print_text(f"{target}: {args.base} out of {args.motivated} of {source}")


if __name__ == "__main__":
    sys.exit(main())
