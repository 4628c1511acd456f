"""Texts, tables and data in HTML; whatever comes out of a run's folder is escaped."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Sequence
from typing import Any

from motivation.errors import printable

Table = Sequence[Sequence[object]]


class Markup(str):
    """A text that is HTML already."""


def escaped(text: object) -> str:
    """Return a text for HTML, with control characters as `printable` has them.

    >>> escaped('</script>"\\x1b'), escaped(Markup("<b>"))
    ('&lt;/script&gt;&quot;\\\\x1b', '<b>')
    """
    return text if isinstance(text, Markup) else html.escape(printable(text))


def json_text(value: Any) -> str:
    """Return a value as JSON for a script element, which it cannot end.

    >>> json_text("</script>")
    '"\\\\u003c/script\\\\u003e"'
    """
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def html_table(rows: Table, caption: str, left: int = 1) -> Markup:
    """Return a header and rows as a table in a box that scrolls.

    Args:
        rows: the header first.
        caption: what it is, for those who do not see it.
        left: how many columns stand to the left; the others stand to the right.
    """

    def line(cells: Sequence[object], kind: str) -> str:
        written = []
        for position, cell in enumerate(cells):
            tag = f'th scope="{kind}"' if kind == "col" or not position else "td"
            side = "left" if position < left else "right"
            written.append(f'<{tag} class="{side}">{escaped(cell)}</{tag[:2]}>')
        return f"<tr>{''.join(written)}</tr>"

    header, *body = rows
    lines = "\n".join(line(row, "row") for row in body)
    return Markup(
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escaped(caption)}"><table>\n'
        f"<thead>{line(header, 'col')}</thead>\n<tbody>{lines}</tbody>\n</table></div>\n"
    )


def remarks_text(remarks: Iterable[object]) -> Markup:
    """Return what stands under a table."""
    return Markup('<ul class="remarks">' + "".join(f"<li>{escaped(remark)}</li>" for remark in remarks) + "</ul>\n")
