"""Tell the rows of a report apart: in words, and only by what differs between them."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from motivation.options.faults import one_line
from motivation.options.flags import FLAGS
from motivation.tools.report.groups import Group, Settings, as_key
from motivation.tools.tables import text_table

DEFAULT_CONDITION = "loss"
"""The paper's condition; any other is shown in the label."""

TERMINAL = 120
"""Columns that a report on the console may have."""

WORDS = {
    "dataset": "{}",
    "motivation_condition": "{}",
    "motivation_k": "k = {}",
    "motivation_bn": "{}",
    "motivation_bn_recalibrate": "re-estimated on {}",
    "motivation_placement": "placed {}",
    "epochs": "{} epochs",
}
"""Words for options, in the order in which labels have them; others are named with their value."""

LONGEST_VALUE = 30
LEAST_LABEL = 24
"""Columns of a label that is broken into lines."""


def words_of(groups: Sequence[Group]) -> dict[Group, dict[str, str]]:
    """Return for each group the words that tell it from the others of the same models, by options; often none.

    Options that are off have no words, unless two groups would then be the same.
    """
    by_models: dict[tuple[str, str | None], list[Group]] = {}
    for group in groups:
        by_models.setdefault((group.base, group.motivated), []).append(group)
    found: dict[Group, dict[str, str]] = {}
    for alike in by_models.values():
        names = telling_options([group.settings for group in alike])
        brief = [_words(group.settings, names) for group in alike]
        for group, words in zip(alike, brief, strict=True):
            if brief.count(words) > 1:
                words = {name: f"{name}={one_line(group.settings.get(name))}" for name in names}
            if group.condition not in (None, DEFAULT_CONDITION):
                words = {"motivation_condition": str(group.condition)} | words
            found[group] = words
    return found


def telling_options(settings: Sequence[Settings]) -> dict[str, bool]:
    """Return the options in which some settings differ, and whether each has several values besides off.

    An option of motivation counts among the settings that have it: classical runs and other conditions have it not.
    """
    found = {}
    for name in dict.fromkeys([*WORDS, *sorted({name for one in settings for name in one})]):
        is_left_out = name in FLAGS and FLAGS[name].motivated
        values = [one.get(name) for one in settings if name in one or not is_left_out]
        if len(set(map(as_key, values))) > 1:
            found[name] = len({as_key(value) for value in values if not _is_off(value)}) > 1
    return found


def _is_off(value: Any) -> bool:
    return not value


def _words(settings: Settings, names: Mapping[str, bool]) -> dict[str, str]:
    words = {}
    for name, has_several in names.items():
        value = settings.get(name)
        if _is_off(value) or (name == "motivation_condition" and value == DEFAULT_CONDITION):
            continue
        if name == "motivation_bn_recalibrate" and not has_several:
            words[name] = "re-estimated"
        elif name in WORDS:
            words[name] = WORDS[name].format(value)
        else:
            words[name] = f"{name.removeprefix('motivation_').replace('_', ' ')} {_shown(value)}".rstrip()
    return words


def _shown(value: Any) -> str:
    if value is True:
        return ""
    if isinstance(value, float):
        return f"{value:g}"
    text = " ".join(map(str, value)) if isinstance(value, (list, tuple)) else one_line(value)
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 4] + " ..."


class ShortNames:
    """Leave the common ending of model names off, as in ``resnet20_cifar`` and ``resnet32_cifar``.

    >>> ShortNames(["resnet20_cifar", "resnet32_cifar"])("resnet20_cifar-resnet32_cifar-B")
    'resnet20-resnet32-B'
    """

    def __init__(self, names: Iterable[str]):
        parts = [name.split("_") for name in dict.fromkeys(names)]
        common = 0
        while len(parts) > 1 and all(len(own) > common + 1 for own in parts):
            if len({own[-common - 1] for own in parts}) > 1:
                break
            common += 1
        self.ending = "_" + "_".join(parts[0][-common:]) if common else ""
        self._names = sorted(("_".join(own) for own in parts), key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for name in self._names if self.ending else ():
            text = text.replace(name, name.removesuffix(self.ending))
        return text

    @property
    def remarks(self) -> list[str]:
        """Say what is left off."""
        return [f"model names without their common ending {self.ending}"] if self.ending else []


def short_names(groups: Iterable[Group]) -> ShortNames:
    """Return the short names of all models of these groups."""
    return ShortNames(name for group in groups for name in (group.base, group.motivated) if name)


def is_wide(rows: Sequence[Sequence[str]]) -> bool:
    """Return True if a table is wider than a terminal."""
    return any(len(line) > TERMINAL for line in text_table(rows).splitlines())


def fitted_table(rows: Sequence[Sequence[str]], indent: str = "  ") -> str:
    """Return a table whose labels, in the first column, are broken into lines where it is too wide."""
    if not is_wide(rows):
        return text_table(rows)
    others = len(text_table([["", *row[1:]] for row in rows]).splitlines()[0])
    width, lines = max(LEAST_LABEL, TERMINAL - others), []
    for row in rows:
        margin = row[0][: len(row[0]) - len(row[0].lstrip())]
        first, *more = textwrap.wrap(row[0], width, subsequent_indent=margin + indent, break_on_hyphens=False) or [""]
        lines.append([first, *row[1:]])
        lines += [[line, *[""] * (len(row) - 1)] for line in more]
    return text_table(lines)


def fitted_lines(remarks: Iterable[str]) -> str:
    """Return remarks in lines that fit a terminal."""
    return "\n".join(textwrap.fill(remark, TERMINAL, subsequent_indent="  ") for remark in remarks)
