"""What the reproduction leaves on disk: data and picture of each figure, and one page about them all.

OUT/README.md                 the sections of all figures that are there
OUT/<name>/data.json          the figure's data
OUT/<name>/data.csv           the same as one long table, where that is natural
OUT/<name>/<name>.png         the picture, drawn from data.json alone
OUT/<name>/record.json        jobs, versions, claims, and the figure's section of the page
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from . import json_values
from .figure import Claim, Data, Figure, Job, Options
from .jobs import Finished, versions

_DATA, _TABLE, _RECORD, _PAGE = "data.json", "data.csv", "record.json", "README.md"


def require_no_full_run(figures: Iterable[Figure], out: Path) -> None:
    """Raises ValueError where a quick run would replace a full one."""
    for figure in figures:
        path = out / figure.name / _RECORD
        if path.exists() and not json_values.read(path)["quick"]:
            raise ValueError(f"{path.parent} holds a full run, which --quick would replace: choose another --out")


def write_figure(figure: Figure, results: Sequence[Finished], out: Path, *, quick: bool = False) -> list[Claim]:
    """Puts a figure together from its finished jobs, and writes all its files. Returns its claims."""
    directory = out / figure.name
    # What stands there is about other data from here on.
    (directory / _RECORD).unlink(missing_ok=True)
    json_values.write(
        directory / _DATA, figure.assemble([(finished.job, finished.result or {}) for finished in results]), indent=1
    )
    record = {
        "figure": figure.name,
        "quick": quick,
        "seconds": sum(finished.seconds for finished in results),
        "versions": versions(),
        "jobs": [{"function": f.job.function, "settings": f.job.settings, "seconds": f.seconds} for f in results],
    }
    return _finish(figure, record, directory)


def redraw(figure: Figure, out: Path) -> list[Claim]:
    """Draws and judges a figure again, from its data.json. Returns its claims.

    Raises:
        ValueError: the figure is not there, or was computed by other jobs than it has now, which its texts would not fit.
    """
    directory = out / figure.name
    for path in (directory / _DATA, directory / _RECORD):
        if not path.exists():
            raise ValueError(f"there is no {path}: run the figure first")
    record = json_values.read(directory / _RECORD)
    if not _same_jobs(record["jobs"], figure.jobs(Options(quick=record["quick"]))):
        raise ValueError(f"{directory} was computed with other settings than {figure.name} has now: run the figure again")
    return _finish(figure, record, directory)


def _same_jobs(recorded: Sequence[Mapping[str, Any]], jobs: Sequence[Job]) -> bool:
    """Whether functions and settings are the same; of figures about a user's own data (MNIST, a classifier) that is not known."""
    if any("fingerprint" in (job["settings"].get("source") or {}) for job in recorded):
        return True
    return [(job["function"], job["settings"]) for job in recorded] == [(job.function, job.settings) for job in jobs]


def _finish(figure: Figure, record: dict[str, Any], directory: Path) -> list[Claim]:
    data = json_values.read(directory / _DATA)
    if figure.rows is not None:
        json_values.write_text(directory / _TABLE, _csv(figure.rows(data)))
    if figure.plot is not None:
        figure.plot(data, directory / f"{figure.name}.png")
    claims = list(figure.claims(data))
    record["claims"] = [asdict(claim) for claim in claims]
    record["section"] = _section(figure, data, record, claims, directory)
    json_values.write(directory / _RECORD, record, indent=1)
    return claims


def write_page(figures: Iterable[Figure], out: Path) -> Path:
    """Writes OUT/README.md about every one of the figures that is there, whenever it was computed."""
    there = [figure for figure in figures if (out / figure.name / _RECORD).exists()]
    records = [json_values.read(out / figure.name / _RECORD) for figure in there]
    lines = [
        "# The papers' figures, computed again",
        "",
        "Written by `python scripts/reproduce_figures.py`. A claim is *held*, *failed*, or it *differs*: it does not hold here, "
        "for the reason given. Each picture can be redrawn from the `data.json` beside it (`--redraw`). "
        f"Computing time of all: {_duration(_seconds(records))} on one core.",
        "",
        "| figure | | claims |",
        "|---|---|---|",
    ]
    for figure, record in zip(there, records):
        result = outcomes([Claim(**claim) for claim in record["claims"]]) + (" (quick run)" if record["quick"] else "")
        lines.append(f"| [{figure.name}](#{figure.name}) | {_cell(figure.title)} ({figure.source}) | {result} |")
    json_values.write_text(out / _PAGE, "\n".join([*lines, "", *(record["section"] for record in records)]))
    return out / _PAGE


def _seconds(records: Sequence[Mapping[str, Any]]) -> float:
    """Of all jobs, each counted once, however many figures share it."""
    jobs = {json.dumps([job["function"], job["settings"]], sort_keys=True): job for record in records for job in record["jobs"]}
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
        rows = [f"| {_cell(claim.statement)} | {claim.outcome} | {_cell(_evidence(claim))} |" for claim in claims]
        parts.append("\n".join(["| claim | | evidence |", "|---|---|---|", *rows]))
    parts.append(_text(figure.findings, data))
    files = [f"[{file}]({name}/{file})" for file in (_DATA, _TABLE) if (directory / file).exists()]
    files.append(f"[{_RECORD}]({name}/{_RECORD})")
    parts.append(f"*{_effort(record)} {', '.join(files)}*")
    return "".join(f"{part}\n\n" for part in parts if part)


def _effort(record: Mapping[str, Any]) -> str:
    jobs = record["jobs"]
    seeds = sorted({seed for job in jobs for seed in _seeds(job["settings"])})
    named = f"; seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}" if seeds else ""
    return f"{len(jobs)} job{'s' * (len(jobs) != 1)}, {_duration(record['seconds'])}{named}."


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


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
