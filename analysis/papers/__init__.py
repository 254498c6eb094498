"""The papers' figures and tables.

Each is one module in the folder of its paper (`engine.figure` shows how to write one).
"""

from __future__ import annotations

import re
from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from .engine.figure import Figure

# In this order on the page. A further paper is a folder with an entry here; a further figure needs none.
PAPERS = (
    "inverse_approximation",
    "layerwise_ssm",
    "stable_ssm",
    "echo_states",
    "vanishing_gradients",
    "generalization",
    "curse_of_memory",
    "decay_spectra",
    "hankel_operators",
)


@cache
def figures() -> dict[str, Figure]:
    """Every `Figure` in the modules of the papers, by name: papers in their order, figures by number.

    Raises:
        ValueError: two figures of one name.
    """
    found: dict[str, Figure] = {}
    for paper in PAPERS:
        package = import_module(f"{__name__}.{paper}")
        for module in sorted((module.name for module in iter_modules(package.__path__)), key=_by_number):
            for figure in vars(import_module(f"{package.__name__}.{module}")).values():
                if isinstance(figure, Figure) and found.setdefault(figure.name, figure) is not figure:
                    raise ValueError(f"{module} has a figure {figure.name}, and so has another place: rename one")
    return found


def _by_number(module: str) -> list[tuple[str, int]]:
    """fig_2 before fig_10."""
    return [(text, int(number or 0)) for text, number in re.findall(r"(\D+)(\d*)", module)]
