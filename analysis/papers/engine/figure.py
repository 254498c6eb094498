"""Jobs that compute, figures that put their results together, and claims that must come out.

A figure is one module, with its numbers computed in another one, so that a change to the picture repeats no computation:

    # analysis/papers/compute/decay_fits.py: module-level functions, settings in, JSON values out
    @job("fitted-rate")
    def fitted_rate(rate: float, seed: int) -> dict[str, Any]:
        ...
        return {"times": times, "values": values, "rate": fit.rate}

    # analysis/papers/inverse_approximation/fig_13.py
    def _jobs(options: Options) -> list[Job]:
        seeds = range(1 if options.quick else 3)
        return [Job(fitted_rate, {"rate": rate, "seed": seed}, cost=20) for rate in (0.5, 1.0) for seed in seeds]

    def _assemble(results: Sequence[tuple[Job, Result]]) -> Data:
        return {"fits": [{**job.settings, **result} for job, result in results]}

    def _plot(data: Data, path: Path) -> None:
        with picture(path) as (_, (axes,)):
            ...

    def _claims(data: Data) -> list[Claim]:
        worst = max(abs(fit["rate"] - ...) for fit in data["fits"])
        return [Claim("The fitted rate is the target's, to 0.01", worst < 0.01, f"largest deviation {worst:.2g}")]

    FIGURE = Figure(
        name="ia-13", title="Rates of decay", source="[IA] Fig 13", published="What the paper shows, and with which settings.",
        settings="Ours, where they differ, and why.", jobs=_jobs, assemble=_assemble, plot=_plot, claims=_claims,
    )

That is all: every `Figure` of every module beside it is found (`analysis.papers.figures`). What figures share in drawing stands
in `panels`; no figure imports another. Numbers go one way: jobs -> results (JSON) -> data (JSON) -> picture, claims, table, rows.
Compute modules import from modules, not through `analysis/__init__.py`: what they import decides when a job is repeated.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, TypeVar

from odernn.json_values import encode

from .code_version import code_version

Result = dict[str, Any]
Data = dict[str, Any]
# Longer lists are shortened in messages.
_LONG_LIST = 6
Outcome = Literal["held", "failed", "differs"]
_Compute = TypeVar("_Compute", bound=Callable[..., Result])
_NAME = "__job_name__"


@dataclass(frozen=True)
class Options:
    """Choices of a user for all figures.

    Args:
        quick: smaller runs that show that everything works; claims may then be about less.
        data: folder of data sets that do not come with the project (MNIST), None where there is none.
    """

    quick: bool = False
    data: Path | None = None


def job(name: str) -> Callable[[_Compute], _Compute]:
    """Gives a function the name by which its results are known, whatever the function and its module come to be called."""

    def give(compute: _Compute) -> _Compute:
        setattr(compute, _NAME, name)
        return compute

    return give


@dataclass(frozen=True, eq=False)
class Job:
    """One computation: compute(**settings) -> Result.

    A result is known by its `key`: the function's name as a job, its settings, the versions of its code (`code_version` of the
    function's module) and of the packages that compute (`package_versions`). Two figures that want the same job get the result
    of one.

    Args:
        compute: a module-level function of an importable module, named by `@job`. Its result holds JSON values: numbers, strings,
            None, lists, dicts with string keys; arrays and tensors become lists; inf and nan are kept. It must depend on its
            settings alone: seeds are settings, and so is a fingerprint of any file it reads.
        settings: keyword arguments, JSON values.
        cost: expected seconds on one core; longer jobs start first. No part of the key.
        places: further keyword arguments, which say where on this machine the files lie whose fingerprints are settings. No part
            of the key, and in no record.
        title: stands for it in messages, in place of its settings. No part of the key.

    Raises:
        ValueError: a function that a worker could not import, or that has no name, or settings that it does not take.
    """

    compute: Callable[..., Result]
    settings: Mapping[str, Any] = field(default_factory=dict)
    cost: float = 1.0
    places: Mapping[str, str] = field(default_factory=dict)
    title: str = ""

    def __post_init__(self) -> None:
        module, function = self.compute.__module__, self.compute.__qualname__
        if module == "__main__" or getattr(sys.modules.get(module), function, None) is not self.compute:
            raise ValueError(
                f"{module}.{function} is not a module-level function of an importable module: workers could not import it"
            )
        if not hasattr(self.compute, _NAME):
            raise ValueError(f"{module}.{function} has no name as a job: decorate it with @job('...')")
        try:
            object.__setattr__(self, "settings", json.loads(json.dumps(encode(self.settings))))
            inspect.signature(self.compute).bind(**self.settings, **self.places)
        except TypeError as error:
            raise ValueError(f"settings of {module}.{function}: {error}") from error

    def run(self) -> Result:
        """Computes it here and now."""
        return self.compute(**self.settings, **self.places)

    @property
    def name(self) -> str:
        """The function's name as a job."""
        return str(getattr(self.compute, _NAME))

    @cached_property
    def key(self) -> str:
        """Identifies the result: sha256 of name, settings, and versions of the code and of packages."""
        content = [self.name, self.settings, code_version(self.compute.__module__), package_versions()]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def __str__(self) -> str:
        if self.title:
            return self.title
        settings = ", ".join(f"{name}={_brief(value)}" for name, value in self.settings.items())
        return f"{self.name}({settings})"


@cache
def package_versions() -> dict[str, str]:
    """Versions of the packages that compute. Builds of one version ('2.13.0+cpu') count as the same."""
    return {name: version(name).partition("+")[0] for name in ("torch", "numpy", "scipy", "numba", "torchdiffeq")}


def _brief(value: Any) -> str:
    """A setting in a line among others: of long lists only the ends."""
    if isinstance(value, list) and len(value) > _LONG_LIST:
        return f"[{value[0]!r}, ..., {value[-1]!r}]"
    return repr(value)


def results_of(compute: Callable[..., Result], results: Sequence[tuple[Job, Result]], *settings: str) -> list[Data]:
    """Results of one function, each with these settings of its job."""
    return [{**{name: job.settings[name] for name in settings}, **result} for job, result in results if job.compute is compute]


@dataclass(frozen=True)
class Claim:
    """A statement that must come out, and whether it did.

    Args:
        statement: a sentence about the figure.
        held: whether the data agree. For some data it must be False: the statement names the condition.
        evidence: the numbers it was decided on.
        difference: the known reason why this claim of the papers does not hold here; empty where it must hold, and where the data
            do not show that reason.
    """

    statement: str
    held: bool
    evidence: str
    difference: str = ""

    @property
    def outcome(self) -> Outcome:
        """'held', 'differs' (not held, for a known reason), or 'failed'."""
        if self.held:
            return "held"
        return "differs" if self.difference else "failed"


@dataclass(frozen=True)
class Figure:
    """A published figure or table: how it is computed, drawn and judged.

    Texts are Markdown; those that may be functions are called with the data.

    Args:
        name: on the command line and of its directory: 'ia-1a'.
        title: one line.
        source: paper and number, '[IA] Fig 1a'.
        published: what the paper shows, with its settings.
        settings: ours, where they differ, and why.
        jobs: what must be computed. Must be cheap: it is asked again in every run.
        assemble: (job, result) in the order of `jobs` -> the figure's data, JSON values. Results come as JSON has them: lists,
            not arrays.
        claims: what must come out.
        plot: draws the data; None for a table.
        table: the data as a Markdown table, if that is natural.
        rows: the data as rows of one long CSV table, if that is natural.
        findings: caveats and their checks.
    """

    name: str
    title: str
    source: str
    published: str
    settings: str | Callable[[Data], str]
    jobs: Callable[[Options], Sequence[Job]]
    assemble: Callable[[Sequence[tuple[Job, Result]]], Data]
    claims: Callable[[Data], Sequence[Claim]]
    plot: Callable[[Data, Path], None] | None = None
    table: Callable[[Data], str] | None = None
    rows: Callable[[Data], Sequence[Mapping[str, Any]]] | None = None
    findings: str | Callable[[Data], str] = ""
