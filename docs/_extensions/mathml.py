"""Formulas as MathML, which browsers draw themselves: no script, and nothing to fetch from elsewhere."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util import logging

# LaTeX that docutils does not know -> what it does.
_ALIKE = {r"\dots": r"\ldots"}


def _inline(self: Any, node: Any) -> None:
    self.body.append(_mathml(node, as_block=False))
    raise nodes.SkipNode


def _block(self: Any, node: Any) -> None:
    self.body.append(self.starttag(node, "div", CLASS="math") + _mathml(node, as_block=True) + "</div>")
    raise nodes.SkipNode


def _mathml(node: Any, as_block: bool) -> str:
    tex = node.astext()
    for theirs, known in _ALIKE.items():
        tex = tex.replace(theirs, known)
    try:
        return tex2mathml(tex, as_block=as_block)
    except MathError as error:
        logging.getLogger(__name__).warning("a formula that docutils cannot write, %s: %s", tex, error, location=node)
        return f"<code>{tex}</code>"


def setup(app: Any) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    return {"parallel_read_safe": True}
