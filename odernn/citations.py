"""The papers behind what was used, as BibTeX.

Docstrings name their sources by the keys of odernn/papers.bib: "Source: [IA] Def 3.1". A function that rests on others than the
main paper says `record(function)` where it begins, and a class where its objects are made.
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


def record(*things: Any) -> None:
    """Remembers functions and classes for `citation()`."""
    _used.update(dict.fromkeys(things))


def sources(thing: Any) -> list[str]:
    """The keys of the papers that the docstring of a function, class, module or of an object's class names."""
    documented = thing if inspect.isroutine(thing) or inspect.isclass(thing) or inspect.ismodule(thing) else type(thing)
    named = re.findall(r"\[(\w+)\]", inspect.getdoc(documented) or "")
    return [key for key in PAPERS if key in named]


def citation(*things: Any) -> str:
    """BibTeX of the papers to cite: the main one of this toolkit, and those behind what was used.

    Without arguments these are the models that were made in this session, the trainings by Levenberg-Marquardt and the measures
    that were called. Solvers and losses are not remembered: give them as arguments.

    Args:
        things: functions, classes, models or other objects whose papers are wanted; none for those of this session.

    Returns:
        BibTeX entries, the main paper first, under the keys that docstrings give as sources.

    Example:
        >>> import odernn
        >>> entries = odernn.citation(odernn.LeakyRNN, odernn.TorchDiffEq())
        >>> [line for line in entries.splitlines() if line.startswith("@")]
        ['@inproceedings{IA,', '@inproceedings{Chen2018,', '@article{WilsonCowan1972,', '@article{Song2016,']
    """
    keys = {MAIN, *(key for thing in things or tuple(_used) for key in sources(thing))}
    return "\n\n".join(entry for key, entry in PAPERS.items() if key in keys) + "\n"
