"""The papers behind what was used, as BibTeX.

Docstrings name their sources by the keys of papers.bib: "Source: [IA] Def 3.1". A function that rests on other papers than the main
one says `record(function)` where it starts, and a class where it is made.
"""

from __future__ import annotations

import inspect
import re
from importlib.resources import files
from typing import Any

MAIN = "IA"
# Key -> BibTeX, in the order of the file.
PAPERS = {
    entry.partition("{")[2].partition(",")[0]: entry.strip()
    for entry in re.split(r"\n(?=@)", files(__package__).joinpath("papers.bib").read_text(encoding="utf-8"))
}
_used: dict[Any, None] = {}


def record(thing: Any) -> None:
    """Remembers a function or class for `citation()`."""
    _used[thing] = None


def sources(thing: Any) -> list[str]:
    """The keys of papers that the docstring of a function, class, object or module names."""
    documented = thing if inspect.isroutine(thing) or inspect.isclass(thing) or inspect.ismodule(thing) else type(thing)
    named = re.findall(r"\[(\w+)\]", inspect.getdoc(documented) or "")
    return [key for key in PAPERS if key in named]


def citation(*things: Any) -> str:
    """BibTeX of the papers to cite: the one that this toolkit implements, and those behind what was used.

    Args:
        things: functions, classes, models or other objects; without any, all that were used in this session: models that were
            made, solvers that were named, measures that were called.

    Returns:
        BibTeX entries, the main paper first. Their keys are those of the docstrings.

    Example:
        >>> import odernn, analysis
        >>> print(odernn.citation(analysis.memory_capacity)[-210:])
    """
    used = things or tuple(_used)
    keys = {MAIN, *(key for thing in used for key in sources(thing))}
    return "\n\n".join(entry for key, entry in PAPERS.items() if key in keys) + "\n"
