"""Docstrings are plain text with a few habits; Sphinx reads reStructuredText. This translates.

`name`                a name or a piece of code
|x|, x*, [IA]         stand for themselves; [IA] and the other papers link to the page that lists them
an indented block     an equation or a piece of code, as it stands
"""

from __future__ import annotations

import re
from typing import Any

from sphinx.ext.napoleon.docstring import GoogleDocstring

from odernn.citations import PAPERS

# Sections that napoleon reads itself: what is indented below them is no block.
_SECTION = re.compile(r"(Args|Returns|Raises|Yields|Attributes|Examples?|Source):$")
# Where the text within them begins.
_TEXT = {"Args": 8, "Attributes": 8, "Raises": 8, "Returns": 4, "Yields": 4}
_CODE = re.compile(r"(`[^`]*`)")
_PAPER = re.compile(r"\[(" + "|".join(PAPERS) + r")\]")


def translate(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = _translated(lines)


def _translated(lines: list[str]) -> list[str]:
    out: list[str] = []
    section, block = "", None
    for line in lines:
        indent = len(line) - len(line.lstrip())
        if line.strip() and indent == 0:
            match = _SECTION.match(line)
            section = match[1] if match else ""
        if not line.strip():
            out.append("")
            continue
        base = _TEXT.get(section, 0)
        if block is not None and indent < block:
            block = None
        if block is None and _begins_block(out, indent, base, section):
            block = indent
            language = "python" if section.startswith("Example") else "text"
            if not line.lstrip().startswith(">>>"):
                out.extend([" " * (indent - 4) + f".. code-block:: {language}", ""])
        out.append(line if block is not None else _escaped(line))
    return out


def _begins_block(out: list[str], indent: int, base: int, section: str) -> bool:
    if section.startswith("Example"):
        return indent == 4 and (not out[-1].strip() or out[-1].startswith("Example"))
    return indent > base and bool(out) and not out[-1].strip() and indent >= base + 4


def _escaped(line: str) -> str:
    parts = _CODE.split(line)
    return "".join(part if part.startswith("`") and len(part) > 1 else _plain(part) for part in parts)


def _plain(text: str) -> str:
    text = re.sub(r"[|*\\]", r"\\\g<0>", text)
    text = re.sub(r"(?<=\w)_(?=\W|$)", r"\_", text)
    return _PAPER.sub(r":ref:`[\1] <\1>`", text)


def _whole(docstring: GoogleDocstring) -> list[str]:
    """Of attributes and properties too: napoleon takes what stands before a colon for their type."""
    return list(type(docstring)(docstring._consume_to_end(), docstring._config).lines())


def setup(app: Any) -> dict[str, bool]:
    GoogleDocstring._parse_attribute_docstring = _whole  # type: ignore[method-assign]
    # Before napoleon, which has 500 like all others.
    app.connect("autodoc-process-docstring", translate, priority=400)
    return {"parallel_read_safe": True}
