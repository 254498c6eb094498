"""Writes the reproduction: data and picture of each figure, and one page about them all.

OUT/README.md                 the sections of all figures that are there
OUT/<name>/data.json          the figure's data
OUT/<name>/data.csv           the same as one long table, where that is natural
OUT/<name>/<name>.png         the picture, drawn from data.json alone
OUT/<name>/record.json        jobs, versions, claims, the figure's section of the page, and checksums of itself and the data
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from odernn import json_values
from odernn.tables import csv_text, markdown

from . import records
from .figure import Claim, Data, Figure, Job, Options
from .jobs import Finished, duration, versions

DATA, _TABLE, RECORD, _PAGE = "data.json", "data.csv", "record.json", "README.md"
OF_DATA = "data_sha256"
_TITLE = "# The papers' figures, computed again"
_CARRY_OVER = "analysis.papers.engine.carry_over"


def require_room(figures: Iterable[Figure], options: Options, out: Path, *, overwrite: bool = False) -> None:
    """Refuses, before hours of computing, to write over what these figures would not come to themselves.

    Raises:
        ValueError: files in OUT that the reproduction did not write, or figures of other jobs (unless `overwrite` is set).
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file: give --out a folder")
    _require_own_page(out)
    for figure in figures:
        directory = out / figure.name
        if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
            continue
        if not (directory / RECORD).is_file():
            raise ValueError(f"{directory} is not a figure of the reproduction: choose another --out")
        if overwrite:
            continue
        try:
            record = _read(directory)
        except ValueError as error:
            raise ValueError(f"{error}: choose another --out, or give --overwrite to replace it") from error
        if options.quick and not record["quick"]:
            raise ValueError(f"{directory} holds a full run, which --quick would replace: choose another --out, or --overwrite")
        if _known(record["jobs"]) != [(job.name, job.settings) for job in figure.jobs(options)]:
            raise ValueError(f"{directory} holds {figure.name} of other settings: choose another --out, or give --overwrite")


def _require_own_page(out: Path) -> None:
    page = out / _PAGE
    if page.exists() and not page.read_bytes().startswith(_TITLE.encode()):
        raise ValueError(f"{page} was not written by the reproduction: choose another --out")


def write_figure(figure: Figure, results: Sequence[Finished], out: Path, *, quick: bool = False) -> list[Claim]:
    """Puts a figure together from its finished jobs, and writes all its files. Returns its claims."""
    directory = out / figure.name
    data = figure.assemble([(finished.job, finished.result or {}) for finished in results])
    record = {
        "figure": figure.name,
        "quick": quick,
        "seconds": sum(finished.seconds for finished in results),
        "versions": versions(),
        "jobs": [{"job": f.job.name, "settings": f.job.settings, "seconds": f.seconds} for f in results],
        OF_DATA: records.checksum(data),
    }
    # Before the data, and without claims: what stands there is about other data from here on.
    records.write(directory / RECORD, record, indent=1)
    records.write_text(directory / DATA, json_values.dumps(data, indent=1) + "\n")
    return _finish(figure, _data(directory, record), record, directory)


def redraw(figure: Figure, out: Path) -> list[Claim]:
    """Draws and judges a figure again, from its data.json. Returns its claims.

    Raises:
        ValueError: the figure is not there, is damaged, or was computed by other jobs than it has now, which its texts would not
            fit.
    """
    _require_own_page(out)
    directory = out / figure.name
    for path in (directory / DATA, directory / RECORD):
        if not path.exists():
            raise ValueError(f"there is no {path}: run the figure first, or name its folder with --out")
    try:
        record = _read(directory)
        if not _same_jobs(record["jobs"], figure.jobs(Options(quick=record["quick"]))):
            raise ValueError(f"{directory} was computed with other settings than {figure.name} has now")
        data = _data(directory, record)
    except ValueError as error:
        raise ValueError(f"{error}: run the figure again") from error
    return _finish(figure, data, record, directory)


def _read(directory: Path) -> dict[str, Any]:
    """The record of a figure.

    Raises:
        ValueError: it is damaged.
    """
    record = records.read(directory / RECORD)
    if missing := sorted({"figure", "quick", "seconds", "jobs", OF_DATA} - record.keys()):
        raise ValueError(f"{directory / RECORD} is of an earlier version (it has no {', '.join(missing)})")
    if any("job" not in job for job in record["jobs"]):
        raise ValueError(
            f"{directory / RECORD} is of an earlier version (its jobs have no names): python -m {_CARRY_OVER} {directory.parent}"
        )
    return record


def _data(directory: Path, record: Mapping[str, Any]) -> Data:
    return records.read_value(directory / DATA, expected=record[OF_DATA])


def _same_jobs(recorded: Sequence[Mapping[str, Any]], jobs: Sequence[Job]) -> bool:
    """Whether names and settings are the same; of jobs about a user's own files (MNIST, a classifier) that is not known."""
    known = [job for job in recorded if "fingerprint" not in (job["settings"].get("source") or {})]
    return _known(known) == [(job.name, job.settings) for job in jobs]


def _known(recorded: Sequence[Mapping[str, Any]]) -> list[tuple[str, Any]]:
    return [(job["job"], job["settings"]) for job in recorded]


def _finish(figure: Figure, data: Data, record: dict[str, Any], directory: Path) -> list[Claim]:
    if figure.rows is not None:
        records.write_text(directory / _TABLE, csv_text(figure.rows(data)))
    if figure.plot is not None:
        figure.plot(data, directory / f"{figure.name}.png")
    claims = list(figure.claims(data))
    record["claims"] = [asdict(claim) for claim in claims]
    record["section"] = _section(figure, data, record, claims, directory)
    records.write(directory / RECORD, record, indent=1)
    return claims


def write_page(figures: Iterable[Figure], out: Path) -> Path:
    """Writes OUT/README.md about every one of the figures that is there, whenever it was computed; those that are damaged or
    were not finished are left out, with a line on stderr."""
    there: list[tuple[Figure, dict[str, Any]]] = []
    for figure in figures:
        if (out / figure.name / RECORD).exists():
            try:
                record = _read(out / figure.name)
                if "section" not in record:
                    raise ValueError(f"{out / figure.name} was not finished")
                there.append((figure, record))
            except ValueError as error:
                print(f"{error}: left out of {out / _PAGE}, run {figure.name} again", file=sys.stderr)
    recorded = [record for _, record in there]
    lines = [
        _TITLE,
        "",
        "Written by `python scripts/reproduce_figures.py`. A claim is *held*, *failed*, or it *differs*: it does not hold here, "
        "for the reason given. Each picture can be redrawn from the `data.json` beside it (`--redraw`). "
        f"Computing time of all: {duration(_seconds(recorded))} on one core.",
        "",
    ]
    rows = []
    for figure, record in there:
        result = outcomes([Claim(**claim) for claim in record["claims"]]) + (" (quick run)" if record["quick"] else "")
        rows.append((f"[{figure.name}](#{figure.name})", f"{_cell(figure.title)} ({figure.source})", result))
    lines.append(markdown(("figure", "", "claims"), rows))
    records.write_text(out / _PAGE, "\n".join([*lines, "", *(record["section"] for record in recorded)]))
    return out / _PAGE


def _seconds(records: Sequence[Mapping[str, Any]]) -> float:
    """Computing time of all jobs, each counted once however many figures share it."""
    jobs = {json.dumps([job["job"], job["settings"]], sort_keys=True): job for record in records for job in record["jobs"]}
    return float(sum(job["seconds"] for job in jobs.values()))


def outcomes(claims: Sequence[Claim]) -> str:
    """'3 held, 1 differs'."""
    counts = Counter(claim.outcome for claim in claims)
    named = [f"{counts[outcome]} {outcome}" for outcome in ("held", "failed", "differs") if counts[outcome]]
    return ", ".join(named) or "none"


def _section(figure: Figure, data: Data, record: Mapping[str, Any], claims: Sequence[Claim], directory: Path) -> str:
    name = figure.name
    parts = [f'<a id="{name}"></a>', f"## {name}: {figure.title}"]
    if record["quick"]:
        parts.append("*A quick run: smaller than what is described here; `record.json` has the settings.*")
    if (directory / f"{name}.png").exists():
        parts.append(f"![{figure.title}]({name}/{name}.png)")
    if figure.table is not None:
        parts.append(figure.table(data))
    parts.append(f"**Published** ({figure.source}). {figure.published}")
    parts.append(f"**Here.** {_text(figure.settings, data)}")
    if claims:
        rows = [(_cell(claim.statement), claim.outcome, _cell(_evidence(claim))) for claim in claims]
        parts.append(markdown(("claim", "", "evidence"), rows))
    parts.append(_text(figure.findings, data))
    files = [f"[{file}]({name}/{file})" for file in (DATA, _TABLE) if (directory / file).exists()]
    files.append(f"[{RECORD}]({name}/{RECORD})")
    parts.append(f"*{_effort(record)} {', '.join(files)}*")
    return "".join(f"{part}\n\n" for part in parts if part)


def _effort(record: Mapping[str, Any]) -> str:
    jobs = record["jobs"]
    seeds = sorted({seed for job in jobs for seed in _seeds(job["settings"])})
    named = f"; seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}" if seeds else ""
    return f"{len(jobs)} job{'s' * (len(jobs) != 1)}, {duration(record['seconds'])}{named}."


def _seeds(settings: Any) -> list[int]:
    """Every setting called seed or seeds, however deep."""
    if isinstance(settings, list):
        return [seed for part in settings for seed in _seeds(part)]
    if not isinstance(settings, dict):
        return []
    named = [settings[key] for key in ("seed", "seeds") if key in settings]
    own = [seed for part in named for seed in (part if isinstance(part, list) else [part]) if isinstance(seed, int)]
    return own + [seed for part in settings.values() for seed in _seeds(part)]


def _evidence(claim: Claim) -> str:
    return f"{claim.evidence} *Why: {claim.difference}*" if claim.outcome == "differs" else claim.evidence


def _text(text: str | Callable[[Data], str], data: Data) -> str:
    return text(data) if callable(text) else text


def _cell(text: str) -> str:
    """Text that stays in its cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")
