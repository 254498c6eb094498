"""Docstrings are plain text with a few habits; Sphinx reads reStructuredText. This translates.

`name`                a name or a piece of code
|x|, l*, [IA]         stand for themselves; [IA] and the other papers link to the page that lists them
*word*                is stressed
an indented block     is an equation or a piece of code, as it stands; and so are columns, as these are
"""

from __future__ import annotations

import re
from typing import Any

from sphinx.ext.napoleon.docstring import GoogleDocstring

from odernn.citations import PAPERS

_SECTION = re.compile(r"(Args|Returns|Raises|Warns|Yields|Attributes|Examples?|Source):")
# Where the text within a section begins; what is indented further, after an empty line, is a block.
_TEXT = {"Args": 8, "Attributes": 8, "Raises": 8, "Warns": 8, "Returns": 4, "Yields": 4, "Example": 0, "Examples": 0}
_COLUMNS = re.compile(r"\S {3,}\S")
_KEPT = re.compile(r"(`[^`]*`|(?<![\w*])\*[A-Za-z][A-Za-z ]*[A-Za-z]\*(?![\w*]))")
_PAPER = re.compile(r"\[(" + "|".join(PAPERS) + r")\]")


def translate(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = _translated(lines)


def _translated(lines: list[str]) -> list[str]:
    out: list[str] = []
    base, block, shift, columns = 0, None, 0, False
    for line in lines:
        indent = len(line) - len(line.lstrip())
        if not line.strip():
            out.append("")
            if columns:
                block, columns = None, False
            continue
        if indent == 0:
            match = _SECTION.match(line)
            base = _TEXT.get(match[1], 0) if match else 0
        if block is not None and indent < block:
            block, columns = None, False
        after_text = not out or not out[-1].strip() or out[-1].startswith("Example")
        if block is None and after_text and (indent >= base + 4 or _COLUMNS.search(line)):
            in_example = any(one.startswith("Example") for one in out[-2:])
            columns = indent < base + 4
            block, shift = indent, 0
            if not line.lstrip().startswith(">>>"):
                # The directive stands where the text does; below the text of a section that is one level further in.
                shift = 4 if in_example or columns else 0
                out.extend([" " * (indent - 4 + shift) + ".. code-block:: " + ("python" if in_example else "text"), ""])
        out.append(" " * shift + line if block is not None else _escaped(line))
    return out


def _escaped(line: str) -> str:
    """Every other part is code or stressed, and stays."""
    return "".join(part if number % 2 else _plain(part) for number, part in enumerate(_KEPT.split(line)))


def _plain(text: str) -> str:
    text = re.sub(r"[|*\\]", r"\\\g<0>", text)
    text = re.sub(r"(?<=\w)_(?=\W|$)", r"\_", text)
    return _PAPER.sub(r":ref:`[\1] <\1>`", text)


def _whole(docstring: GoogleDocstring) -> list[str]:
    """Of attributes and properties too: napoleon takes what stands before a colon for their type."""
    return list(type(docstring)(docstring._consume_to_end(), docstring._config).lines())


def _readable(app: Any, what: str, name: str, obj: Any, options: Any, signature: str | None, returns: str | None) -> Any:
    """`<factory>` is no Python: with it nothing in a signature becomes a link."""
    return (signature.replace("<factory>", "..."), returns) if signature else None


def _public_bases(app: Any, name: str, obj: Any, options: Any, bases: list[Any]) -> None:
    """In place of a private base the nearest public one above it."""
    for number, base in enumerate(bases):
        if getattr(base, "__name__", "").startswith("_"):
            bases[number] = next(one for one in base.__mro__ if not one.__name__.startswith("_"))


def setup(app: Any) -> dict[str, bool]:
    GoogleDocstring._parse_attribute_docstring = _whole  # type: ignore[method-assign]
    # Before napoleon, which has 500 like all others.
    app.connect("autodoc-process-docstring", translate, priority=400)
    app.connect("autodoc-process-signature", _readable)
    app.connect("autodoc-process-bases", _public_bases)
    return {"parallel_read_safe": True}
