"""Measure whether a long run grows: memory, descriptors, threads, and the time of an update, at its begin and its end.

    python tests/growth.py [--updates 20000] [--folder FOLDER]

trains a plain and a motivated run on digits with logs, TensorBoard, EMA, data workers and recovery files, and prints a
table as Markdown.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from support.processes import environment
from support.program import DIGITS, MOTIVATED, ROOT, rows

PLUGIN = '''
import csv, gc, os, time
from motivation.training.hooks import Hook, register_hook


@register_hook("growth")
class Growth(Hook):
    """Writes a row for each stretch of updates; a stretch begins where the row before ends."""

    def __init__(self, file, stretch):
        self._file, self._stretch, self._seconds = file, stretch, []

    def epoch_start(self, epoch):
        self._since = None  # what is between two epochs is no update

    def update_end(self, record):
        now = time.perf_counter()
        if self._since is not None:
            self._seconds.append(now - self._since)
        self._since = now
        if record.run_counts.total % self._stretch == 0:
            self._write(record.run_counts.total)
            self._seconds, self._since = [], None

    def _write(self, updates):
        gc.collect()
        with open("/proc/self/status") as status:
            values = dict(line.split(":", 1) for line in status)
        middle = sorted(self._seconds)[len(self._seconds) // 2]
        row = {
            "updates": updates,
            "resident_mb": int(values["VmRSS"].split()[0]) / 1000,
            "descriptors": len(os.listdir("/proc/self/fd")),
            "threads": int(values["Threads"]),
            "children": len(os.popen(f"pgrep -P {os.getpid()}").read().split()) - 1,
            "ms_per_update": 1000 * middle,
        }
        with open(self._file, "a", newline="") as file:
            writer = csv.DictWriter(file, list(row))
            if file.tell() == 0:
                writer.writeheader()
            writer.writerow(row)
'''


def measured(folder: Path, name: str, updates: int, flags: list[str]) -> list[dict[str, str]]:
    """Train and return the rows of the plugin."""
    plugin, table = folder / "growth_plugin.py", folder / f"{name}.csv"
    plugin.write_text(PLUGIN)
    epochs = -(-updates // 47)  # updates of an epoch of 30 images each
    command = [
        sys.executable, "train_motivated.py", *DIGITS, *flags, "-b", "30", "-j", "1", "--epochs", str(epochs),
        "--val-interval", "20", "--recovery-interval", "100", "--log-interval", "1", "--model-ema",
        "--log-tensorboard", "--motivation-plugins", str(plugin),
        "--motivation-plugin-kwargs", f"file={str(table)!r}", f"stretch={max(1, updates // 10)}",
        "--output", str(folder), "--experiment", name,
    ]  # fmt: skip
    with open(folder / f"{name}.log", "w") as log:
        subprocess.run(command, cwd=ROOT, env=environment(), stdout=log, stderr=log, check=True)
    return rows(table)


def main() -> None:
    """Measure both runs and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=20_000)
    parser.add_argument("--folder", type=Path)
    args = parser.parse_args()
    folder = args.folder or Path(tempfile.mkdtemp())
    os.makedirs(folder, exist_ok=True)
    print("| run | updates | resident MB | descriptors | threads | children | ms per update |\n" + "|---" * 7 + "|")
    for name, flags in {"plain": [], "motivated": MOTIVATED}.items():
        found = measured(folder, name, args.updates, flags)
        for row in (found[0], found[len(found) // 2], found[-1]):
            numbers = f"{float(row['resident_mb']):.0f} | {row['descriptors']} | {row['threads']} | {row['children']}"
            print(f"| {name} | {row['updates']} | {numbers} | {float(row['ms_per_update']):.2f} |")


if __name__ == "__main__":
    main()
