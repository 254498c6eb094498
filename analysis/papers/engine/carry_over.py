"""Carries figures on disk over to names that have changed since they were computed.

python -m analysis.papers.engine.carry_over OUT
python -m analysis.papers.engine.carry_over OUT --value recurrence:orthogonal=symmetric

Records of earlier versions name the function of each job by its module; they get the jobs' own names. With --value a setting that
has the old value gets the new one, in the jobs of the record and everywhere in the figure's data. Nothing else changes. Then
`reproduce_figures.py --all --redraw --out OUT` writes tables, pictures and page again.

Results in a cache are not carried over: whether their code is still the same cannot be told from what is there. The first run
computes them anew.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from odernn import json_values

from . import records
from .report import DATA, OF_DATA, RECORD

# Functions of 'analysis.paper', as records of earlier versions name them -> job.
_NAMES = {
    "deep_ssm.deep_ssm_memory": "deep-ssm-memory",
    "gradient_scales.gradients": "gradient-scales",
    "gradient_scales.training_ratios": "gradient-over-weight",
    "image_classification.train_rnn": "image-rnn",
    "image_classification.train_ssm": "image-ssm",
    "kernel_gradient_flow.plateau": "plateau-by-flow",
    "kernel_gradient_flow.descent": "plateau-by-descent",
    "lasting_memory.random_memory": "lasting-memory-random",
    "lasting_memory.plane_memory": "lasting-memory-plane",
    "linear_families.published_curves": "linear-published-curves",
    "linear_families.ascent_curves": "linear-ascent-curves",
    "phase_plane.equilibria": "plane-equilibria",
    "phase_plane.periodic_orbit": "plane-periodic-orbit",
    "phase_plane.trajectories": "plane-trajectories",
    "phase_plane.leaving_the_edge": "plane-leaving-the-edge",
    "random_networks.network_memory": "random-network-memory",
    "random_networks.settled_rates": "random-network-rates",
    "sentiment.repetition_scores": "sentiment-of-repetition",
    "teacher_memory.teacher_memory": "teacher-memory",
    "trained_families.trained_curves": "trained-curves",
}
_FORMER = "analysis.paper."

# (setting, old value, new value)
Renamed = tuple[str, str, str]


def carry_over(directory: Path, renamed: Sequence[Renamed] = ()) -> bool:
    """Brings the figure in a directory up to date. Returns whether anything had to change.

    Raises:
        ValueError: data or record are damaged, or of a job that has no name.
    """
    path = directory / RECORD
    record = records.read(path)
    data = records.read_value(directory / DATA, expected=record[OF_DATA])
    new_data = _with_values(data, renamed)
    jobs = [_named(_with_values(job, renamed), path) for job in record["jobs"]]
    new = {**record, "jobs": jobs, OF_DATA: records.checksum(new_data)}
    if new_data != data:
        records.write_text(directory / DATA, json_values.dumps(new_data, indent=1) + "\n")
    if new != record:
        records.write(path, new, indent=1)
    return new != record


def _named(job: dict[str, Any], path: Path) -> dict[str, Any]:
    if "job" in job:
        return job
    function = job["function"].removeprefix(_FORMER)
    if function not in _NAMES:
        raise ValueError(f"{path} has a job {job['function']} that is not known: compute the figure again")
    return {"job": _NAMES[function], **{name: value for name, value in job.items() if name != "function"}}


def _with_values(value: Any, renamed: Sequence[Renamed]) -> Any:
    if isinstance(value, list):
        return [_with_values(part, renamed) for part in value]
    if not isinstance(value, dict):
        return value
    new = {(name, old): new for name, old, new in renamed}
    return {
        name: new.get((name, part), part) if isinstance(part, str) else _with_values(part, renamed)
        for name, part in value.items()
    }


def _renamed(text: str) -> Renamed:
    setting, _, values = text.partition(":")
    old, _, new = values.partition("=")
    if not (setting and old and new):
        raise ValueError(f"--value is {text!r}, expected SETTING:OLD=NEW")
    return setting, old, new


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of figures: reproduction")
    parser.add_argument(
        "--value", action="append", default=[], metavar="SETTING:OLD=NEW", help="a value that has another name now"
    )
    arguments = parser.parse_args()
    try:
        renamed = [_renamed(text) for text in arguments.value]
        directories = sorted(path.parent for path in arguments.out.glob(f"*/{RECORD}"))
        changed = [directory.name for directory in directories if carry_over(directory, renamed)]
    except ValueError as error:
        sys.exit(f"carry_over: {error}")
    print(f"{len(changed)} of {len(directories)} figures carried over: {', '.join(changed) or 'none had to change'}")


if __name__ == "__main__":
    main()
