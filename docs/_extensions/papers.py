"""The directive `papers`: every entry of papers.bib, at an anchor of its key."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from odernn.citations import PAPERS


class _Papers(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        shown: list[nodes.Node] = []
        for key, entry in PAPERS.items():
            target = nodes.target("", "", ids=[nodes.make_id(key)], names=[key.lower()])
            self.state.document.note_explicit_target(target)
            code = nodes.literal_block(entry, entry, language="bibtex")
            shown += [target, nodes.paragraph("", "", nodes.strong("", f"[{key}]")), code]
        return shown


def setup(app: Any) -> dict[str, bool]:
    app.add_directive("papers", _Papers)
    return {"parallel_read_safe": True}
