"""The papers' figures and tables, computed again and compared with what was published.

python scripts/reproduce_figures.py --all
"""

from __future__ import annotations

import os
import sys
import traceback
from argparse import Namespace
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from tqdm import tqdm

from analysis.papers import figures as all_figures
from analysis.papers.engine.figure import Claim, Figure, Options
from analysis.papers.engine.jobs import Cache, Finished, run_jobs
from analysis.papers.engine.report import outcomes, redraw, require_room, write_figure, write_page

from .command_line import FAILED, Parser, naming, program

PROGRAM = program("reproduce_figures.py")
# Apart, so that a quick run never replaces the results of a full one, and neither those that the project keeps in reproduction/.
OUT, QUICK_OUT = Path("reproduction-new"), Path("reproduction-quick")
CACHE = Path(".cache/reproduction")
# Each is a process of some 500 MB: more than these would only wait for each other.
_JOBS_PER_CORE = 4


def parser() -> Parser:
    result = Parser("Computes the papers' figures and tables again; an interrupted run goes on where it stopped.")
    add = result.add_argument
    add("names", nargs="*", metavar="NAME", help="figures, as --list names them")
    add("--all", action="store_true", help="every figure")
    add("--list", action="store_true", help="name the figures and stop")
    add("--quick", action="store_true", help="smaller runs that show that everything works")
    add("--redraw", action="store_true", help="compute nothing: pictures and claims again from the data.json in --out")
    add("--jobs", type=int, default=None, metavar="N", help="jobs at a time; default: as many as cores")
    add("--engine", choices=("local", "ray"), default="local", help="processes of this machine, or a Ray cluster")
    add("--address", default=None, help="of a running Ray cluster; default: a local one of its own")
    add("--cache", type=Path, default=CACHE, metavar="DIR", help="where the results of finished jobs are kept")
    add("--out", type=Path, default=None, metavar="DIR", help=f"where to write; default: {OUT}, with --quick {QUICK_OUT}")
    add("--overwrite", action="store_true", help="replace figures in --out that were computed with other settings")
    add(
        "--data",
        type=Path,
        default=None,
        metavar="DIR",
        help="folder of data sets: MNIST in its IDX files (all of it takes hours), classifiers in sentiment/",
    )
    result.arrange(
        {
            "figures": ("names", "all", "list", "quick", "redraw", "out", "overwrite"),
            "jobs": ("jobs", "engine", "address", "cache"),
        }
    )
    return result


def main() -> None:
    arguments = parser().parse_args()
    if arguments.list:
        width = max(map(len, all_figures()), default=0)
        for figure in all_figures().values():
            print(f"{figure.name:{width}s}  {figure.title} ({figure.source})")
        return
    figures = _chosen(arguments)
    most = _JOBS_PER_CORE * (os.cpu_count() or 1)
    if arguments.engine == "local" and arguments.jobs is not None and arguments.jobs > most:
        raise ValueError(f"--jobs must be at most {most}, {_JOBS_PER_CORE} for each core of this machine, got {arguments.jobs}")
    if arguments.data is not None and not arguments.data.is_dir():
        raise ValueError(f"there is no folder {arguments.data}: give --data an existing one")
    out = arguments.out or (QUICK_OUT if arguments.quick else OUT)
    if arguments.redraw:
        figures = [figure for figure in figures if arguments.names or (out / figure.name).exists()]
        claims = _redraw(figures, out)
    else:
        claims = _compute(figures, arguments, out)
    page = write_page(all_figures().values(), out)
    every = [claim for part in claims.values() for claim in part]
    print(f"{len(claims)} of {len(figures)} figures written, claims: {outcomes(every)}; {page}")
    if len(claims) < len(figures) or any(claim.outcome == "failed" for claim in every):
        sys.exit(FAILED)


def _chosen(arguments: Namespace) -> list[Figure]:
    if arguments.all == bool(arguments.names):
        raise ValueError("name the figures, or ask for --all (--list shows their names)")
    known = all_figures()
    if unknown := [name for name in arguments.names if name not in known]:
        raise ValueError(f"unknown figure {unknown[0]!r}: choose from {', '.join(known)}")
    return [figure for name, figure in known.items() if arguments.all or name in arguments.names]


def _redraw(figures: Sequence[Figure], out: Path) -> dict[str, list[Claim]]:
    claims = {}
    if not figures:
        raise ValueError(f"there is nothing to redraw in {out}: run the figures first, or name their folder with --out")
    for figure in figures:
        claims[figure.name] = redraw(figure, out)
        _print(figure, claims[figure.name])
    return claims


def _compute(figures: Sequence[Figure], arguments: Namespace, out: Path) -> dict[str, list[Claim]]:
    """Claims of every figure that could be written; each is, as soon as its last job has finished."""
    options = Options(quick=arguments.quick, data=arguments.data)
    # Better now than after hours of computing.
    require_room(figures, options, out, overwrite=arguments.overwrite)
    jobs = {figure.name: list(figure.jobs(options)) for figure in figures}
    every = [job for part in jobs.values() for job in part]
    cache, engine = Cache(arguments.cache), arguments.engine
    with naming("--address", "address"), naming("--jobs", "jobs at a time"):
        settled = run_jobs(every, cache, workers=arguments.jobs, engine=engine, address=arguments.address)
    for folder in (out, arguments.cache):
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise ValueError(f"{folder} cannot be written: give another --{'out' if folder == out else 'cache'}")
    finished: dict[str, Finished] = {}
    waiting, claims = list(figures), {}
    with closing(settled):
        going = True
        while going:
            for figure in [figure for figure in waiting if all(job.key in finished for job in jobs[figure.name])]:
                waiting.remove(figure)
                results = [finished[job.key] for job in jobs[figure.name]]
                if (part := _write(figure, results, out, arguments.quick)) is not None:
                    claims[figure.name] = part
            one = next(settled, None)
            if one is not None:
                finished[one.job.key] = one
            going = one is not None
    return claims


def _write(figure: Figure, results: Sequence[Finished], out: Path, quick: bool) -> list[Claim] | None:
    """The figure's claims; None, with the reason on stderr, where it could not be written."""
    if failed := [one for one in results if one.error]:
        tqdm.write(f"{figure.name}: not written, {len(failed)} of {len(results)} jobs failed", file=sys.stderr)
        return None
    try:
        claims = write_figure(figure, results, out, quick=quick)
    except OSError:
        # A full disk is no figure's mistake; what has been computed is kept.
        raise
    except Exception:
        # A mistake in one figure must not end the jobs of the others.
        tqdm.write(f"{figure.name}: not written\n{traceback.format_exc()}", file=sys.stderr)
        return None
    _print(figure, claims)
    return claims


def _print(figure: Figure, claims: Sequence[Claim]) -> None:
    lines = [f"{figure.name}: {figure.title}"]
    for claim in claims:
        why = f" [{claim.difference}]" if claim.outcome == "differs" else ""
        lines.append(f"  {claim.outcome:8s}{claim.statement}: {claim.evidence}{why}")
    tqdm.write("\n".join(lines), file=sys.stdout)
