"""Packages of the user's own that hide ours: others have folders called `targets` or `analysis`, too."""

from __future__ import annotations

import importlib.util
from pathlib import Path


def require_ours(name: str) -> None:
    """Refuses another package in the place of one of ours. It looks where an import would look, and runs nothing.

    Raises:
        ImportError: Python finds another one first; the message says which.
    """
    spec = importlib.util.find_spec(name)
    if spec is None:
        return  # the import itself says so
    found = Path(next(iter(spec.submodule_search_locations or [spec.origin or name]))).resolve()
    ours = Path(__file__).resolve().parents[1] / name
    if found != ours:
        raise ImportError(
            f"{found} hides the package {name!r} that comes with odernn ({ours}): rename it, or start Python where it is not "
            "found first (first come the folder of the script, or the working directory, and PYTHONPATH)",
            name=name,
            path=str(found),
        )


# Here, because odernn imports it next.
require_ours("targets")
