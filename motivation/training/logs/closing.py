"""What is said when a run is over."""

from __future__ import annotations

import json
import math
from typing import Any

from motivation.method.records import Role
from motivation.training.flops import CONVENTION, average_flops, readable
from motivation.training.records import EpochRecord, Metrics


def best_record(records: list[EpochRecord], ranking: str, decreasing: bool) -> EpochRecord:
    """The epoch whose base was best on the validation data."""
    return (min if decreasing else max)(records, key=lambda record: record.metric(ranking))


def result_json(records: list[EpochRecord], ranking: str, decreasing: bool) -> str:
    """The ten best epochs, best last, in the form that timm prints for other programs to read."""
    results: list[dict[str, Any]] = []
    for record in sorted(records, key=lambda r: r.metric(ranking), reverse=decreasing)[-10:]:
        result: dict[str, Any] = {"epoch": record.epoch, "train": {"loss": record.train_loss}}
        for name, metrics in (("validation", record.base), ("motivated_validation", record.motivated)):
            if metrics:
                result[name] = metrics
        results.append(result)
    return json.dumps(results, indent=4)


def run_result(
    records: list[EpochRecord],
    names: dict[Role, str],
    ranking: str,
    flops: dict[Role, float] | None,
    expected_share: float | None,
    completed: bool,
    stopped_by: str | None = None,
    nonfinite_losses: int = 0,
) -> dict[str, Any]:
    """The figures of a run for other programs, as ``result.json`` holds them.

    Returns:
        ``completed`` (whether no epoch is left to train), ``stopped_by`` (what a hook said when it stopped the run),
        ``nonfinite_losses`` (how many updates had a loss that was not finite), ``models``, ``last`` and ``best``
        (``epoch``, ``base``, ``motivated``: metrics of that epoch; ``best`` is selected on the validation data by the
        base's ``ranking``), ``best_motivated`` (the same by the motivated model's), and of a motivated run ``flops`` of
        either model, ``convention``, ``updates`` of either model, ``switches``, ``share``, ``expected_share`` and
        ``average_flops``.
    """
    decreasing = ranking == "loss"
    result: dict[str, Any] = {"format": 1, "completed": completed, "stopped_by": stopped_by}
    result["nonfinite_losses"] = nonfinite_losses
    result["models"] = {role.value: name for role, name in names.items() if name}
    if records:
        result["last"] = _epoch_result(records[-1])
        result["best"] = _epoch_result(best_record(records, ranking, decreasing))
    judged = [record for record in records if record.motivated]
    if judged:
        choose = min if decreasing else max
        result["best_motivated"] = _epoch_result(choose(judged, key=lambda record: (record.motivated or {})[ranking]))
    if flops is not None and records:
        counts = records[-1].run_counts
        result |= {
            "flops": {role.value: value for role, value in flops.items()},
            "convention": CONVENTION,
            "updates": {role.value: counts.updates[role] for role in Role},
            "switches": counts.switches,
            "share": counts.share,
            "expected_share": expected_share,
            "average_flops": average_flops(counts, flops[Role.BASE], flops[Role.MOTIVATED]),
        }
    return result


def _epoch_result(record: EpochRecord) -> dict[str, Any]:
    return {"epoch": record.epoch, "base": _as_json(record.base), "motivated": _as_json(record.motivated)}


def _as_json(metrics: Metrics | None) -> dict[str, float | None] | None:
    """JSON has no numbers that are not finite."""
    if metrics is None:
        return None
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}


def closing_table(
    records: list[EpochRecord],
    names: dict[Role, str],
    flops: dict[Role, float],
    expected_share: float | None,
) -> str:
    """Accuracy of both models, share and cost of a motivated run.

    The accuracy of a run is its last epoch's; the best is shown beside it, selected on the validation data.
    """
    last = records[-1]
    lines = [f"{'':10} {'model':24} {'top-1':>7} {'top-5':>7} {'best*':>7} {'forward ' + CONVENTION:>14}"]
    for role in Role:
        metrics = last.base if role is Role.BASE else last.motivated
        history = [m["top1"] for r in records if (m := r.base if role is Role.BASE else r.motivated)]
        top1, top5 = (f"{metrics['top1']:.2f}", f"{metrics['top5']:.2f}") if metrics else ("-", "-")
        best = f"{max(history):.2f}" if history else "-"
        cost = readable(flops[role])
        lines.append(f"{role.value:10} {names[role]:24} {top1:>7} {top5:>7} {best:>7} {cost:>14}")
    counts = last.run_counts
    law = "" if expected_share is None else f" (expected {expected_share:.4f})"
    mean = average_flops(counts, flops[Role.BASE], flops[Role.MOTIVATED])
    lines += [
        "* best epoch, selected on the validation data",
        f"updates   {counts.total}: {counts.updates[Role.BASE]} base, {counts.updates[Role.MOTIVATED]} motivated; "
        f"{counts.switches} switches",
        f"share     {counts.share:.4f}{law}",
        f"cost      {readable(mean)} {CONVENTION} per forward pass on average: {mean / flops[Role.BASE]:.3f} x "
        f"{names[Role.BASE]} alone, {mean / flops[Role.MOTIVATED]:.3f} x {names[Role.MOTIVATED]} alone",
    ]
    return "\n".join(lines)
