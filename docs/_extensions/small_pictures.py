"""Pictures of the built site in 256 colours, a third of the size: charts have few."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image


def _shrink(app: Any, exception: Exception | None) -> None:
    if exception is None and app.builder.format == "html":
        for path in Path(app.outdir, "_images").glob("*.png"):
            with Image.open(path) as picture:
                small = picture if picture.mode == "P" else picture.convert("RGB").quantize(256)
            if small is not picture:
                small.save(path, optimize=True)


def setup(app: Any) -> dict[str, Any]:
    app.connect("build-finished", _shrink)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
