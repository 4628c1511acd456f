"""Make ``docs/api.md`` from the docstrings of the public names.

python tests/api_page.py > docs/api.md
"""

import inspect
import re
from importlib import import_module

HEAD = """# Python interface

Made from the docstrings by `python tests/api_page.py > docs/api.md`; a test compares.

[own_loop.md](own_loop.md) has a whole example; [conditions.md](conditions.md) and [weight_maps.md](weight_maps.md) show
what can be added.
"""


def markdown_of(docstring):
    """Return a docstring in Google's style as Markdown: its sections in bold, their entries as lists."""
    lines = inspect.cleandoc(docstring).replace("``", "`").splitlines()
    text, section, is_code = [], "", False
    for line in lines:
        if is_code or line.startswith(">>>"):
            text += [] if is_code else ["```python"]
            is_code = bool(line)
            text += [line] if line else ["```", ""]
        elif re.fullmatch(r"(Args|Attributes|Raises|Returns|Yields):", line):
            section = line[:-1]
            text += [f"**{section}**", ""]
        elif not line.startswith("    "):
            text.append(line)
        elif section and re.match(r" {4}\S", line):
            text.append(re.sub(r"^ {4}(\*{0,2}[\w, ]+):", r"- `\1`:", line) if section != "Returns" else line.strip())
        else:
            text.append("  " + line.strip() if section else line)
    joined = "\n".join([*text, "```"] if is_code else text).strip()
    return re.sub("::$", ":", joined, flags=re.MULTILINE)


def entry(name, thing, level):
    """Return heading, signature and docstring of a class or function, and those of a class' own public methods."""
    try:
        annotations_quoted = str(inspect.signature(thing))
        signature = re.sub(r"(: |-> )'([^']*)'", r"\1\2", annotations_quoted)
        signature = re.sub(r"\(self(, )?", "(", signature)
    except (TypeError, ValueError):
        signature = ""
    parts = [f"{'#' * level} {name}", f"```python\n{name}{signature}\n```", markdown_of(thing.__doc__ or "")]
    if inspect.isclass(thing):
        methods = {key: getattr(thing, key) for key, value in vars(thing).items() if inspect.isroutine(value)}
        parts += [
            entry(f"{name}.{key}", method, level + 1)
            for key, method in methods.items()
            if not key.startswith("_") and method.__doc__
        ]
    return "\n\n".join(part for part in parts if part)


def page():
    """Return the whole page."""
    parts = [HEAD.strip()]
    for package in ("motivation", "weight_maps"):
        module = import_module(package)
        things = {name: getattr(module, name) for name in module.__all__}
        parts.append(f"## {package}")
        parts += [
            entry(name, thing, 3)
            for name, thing in things.items()
            if getattr(thing, "__module__", "").startswith(("motivation", "weight_maps"))
        ]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    print(page(), end="")
