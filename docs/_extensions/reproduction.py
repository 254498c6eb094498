"""The page of the papers' figures, from reproduction/README.md.

Anchors become labels, and the data files stay in the repository: the site would be twice as large with them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any


def write(app: Any) -> None:
    text = (Path(app.srcdir).parent / "reproduction" / "README.md").read_text(encoding="utf-8")
    text = re.sub(r'<a id="([\w-]+)"></a>', r"(claims-\1)=", text)
    text = re.sub(r"\]\(#([\w-]+)\)", r"](#claims-\1)", text)
    text = re.sub(r"!\[(.*?)\]\(", r"![\1](../reproduction/", text)
    text = re.sub(r"\[(data\.json|data\.csv|record\.json)\]\((.*?)\)", r"`reproduction/\2`", text)
    page = Path(app.srcdir) / "reproduction.md"
    if not page.exists() or page.read_text(encoding="utf-8") != text:
        page.write_text(text, encoding="utf-8")


def setup(app: Any) -> dict[str, bool]:
    app.connect("builder-inited", write, priority=1)
    return {"parallel_read_safe": True}
