"""What a sweep came to: its table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from odernn.experiment import LoadedRun, load_run
from odernn.json_values import decode

from ..results import Result, columns, line
from ..results import draw as draw_result
from .axes import known
from .picture import draw
from .trained import is_good

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False, repr=False)
class Sweep(Result):
    """The runs of a sweep.

    Args:
        axes: the settings that vary, the last fastest.
        rows: for each run the varied settings, and

            validation_error    relative L2, of the validation set, at the best weights
            initial_error       E_m(0) on the same sequences, relative to |H|
            linear_error        the same of the best linear model of its width and structure; None where there is none
            stability_margin, slowest_rate, seconds, epochs
            stopped             as `Trainer.stopped`, 'diverged', 'refused' (settings that do not fit together) or 'failed'
            reason              why it diverged, was refused or failed; else what it warned of
            path                of the run directory, within `out`

            Numbers that are not there are None.
        out: the directory.
        verdicts: for each combination of the other settings whether the widths approximate the target stably; empty where it
            was not asked for.

    Example:
        >>> from analysis import sweep
        >>> from odernn import ExperimentConfig
        >>> found = sweep(ExperimentConfig(), over={"hidden_size": [4, 8], "seed": range(3)}, out="widths")  # doctest: +SKIP
        >>> found.best()["path"], found.to_frame(), found.run(hidden_size=8, seed=0).model  # doctest: +SKIP
    """

    axes: tuple[str, ...]
    rows: tuple[Mapping[str, Any], ...]
    out: str
    verdicts: tuple[Mapping[str, Any], ...] = ()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Sweep:
        found = super().from_dict(values)
        return replace(found, rows=tuple(map(decode, found.rows)), verdicts=tuple(map(decode, found.verdicts)))

    def best(self) -> dict[str, Any]:
        """The row with the smallest validation error.

        Raises:
            ValueError: no run ended well.
        """
        good = [row for row in self.rows if is_good(row)]
        if not good:
            raise ValueError(f"no run of {self.out} ended well: their reasons are in the rows")
        return dict(min(good, key=lambda row: row["validation_error"]))

    def run(self, *, trust_code: bool = False, **settings: Any) -> LoadedRun:
        """The one run of these settings, as `load_run` gives it.

        Raises:
            ValueError: none, or several, or one without weights.
        """
        wanted = {known(name): value for name, value in settings.items()}
        found = [row for row in self.rows if all(row.get(name) == value for name, value in wanted.items())]
        if len(found) != 1:
            raise ValueError(f"{len(found)} runs have {wanted}: give a value of each of {', '.join(self.axes)} that was swept")
        return load_run(Path(self.out) / found[0]["path"], trust_code=trust_code)


@line.register(Sweep)
def _(result: Sweep) -> str:
    good = [row for row in result.rows if is_good(row)]
    text = f"Sweep over {', '.join(result.axes)}: {len(result.rows)} runs in {result.out}, {len(good)} with a result"
    if not good:
        return text
    best = result.best()
    return f"{text}; best {best['validation_error']:.3g} at {', '.join(f'{name}={best[name]}' for name in result.axes)}"


@columns.register(Sweep)
def _(result: Sweep) -> dict[str, Any]:
    names = dict.fromkeys(name for row in result.rows for name in row)
    return {name: [row.get(name) for row in result.rows] for name in names}


@draw_result.register(Sweep)
def _(result: Sweep, axes: Axes) -> None:
    """The validation error over the first axis of numbers, see `analysis.sweeps.picture.draw`."""
    draw(result, axes)
