"""Damaged files of the reproduction: single byte flips and truncations of cached results, records and data.

A damaged result is computed again, a damaged figure is refused, and what is drawn or answered is right, never anything else.
"""

from __future__ import annotations

import contextlib
import io
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.papers.engine.figure import Claim, Figure, Job, job
from analysis.papers.engine.jobs import Cache, Finished
from analysis.papers.engine.report import redraw, write_figure, write_page
from odernn import json_values

from .campaign import Outcomes


@job("squares")
def squares(start: float, seed: int) -> dict[str, Any]:
    return {
        "values": [(start + k / 3) ** 2 for k in range(6)],
        "rate": start / 7,
        "law": "power",
        "bound": float("inf"),
        "seed": seed,
    }


def _figure() -> Figure:
    return Figure(
        name="squares", title="Squares", source="[X] Fig 1", published="Squares.", settings="Ours.",
        jobs=lambda options: [Job(squares, {"start": start, "seed": 1}) for start in (0.5, 1.5)],
        assemble=lambda results: {"curves": [{**job.settings, **result} for job, result in results]},
        claims=lambda data: [Claim("Squares grow", data["curves"][0]["values"][-1] > 1, f"{data['curves'][0]['values'][-1]}")],
        plot=lambda data, path: path.write_text(repr(data)),
        rows=lambda data: data["curves"],
    )  # fmt: skip


def damaged(content: bytes, random: random.Random) -> tuple[str, bytes]:
    """A fault's name and the file with it."""
    kind = random.choice(("byte", "byte", "byte", "bit", "digit", "cut", "empty", "other JSON"))
    place = random.randrange(len(content))
    if kind == "digit":
        place = random.choice([k for k, byte in enumerate(content) if chr(byte).isdigit()])
    if kind in ("digit", "byte", "bit"):
        old = content[place]
        others = {"digit": b"0123456789", "byte": bytes(range(256)), "bit": bytes(old ^ 1 << k for k in range(8))}[kind]
        new = random.choice([other for other in others if other != old])
        return kind, content[:place] + bytes([new]) + content[place + 1 :]
    if kind == "cut":
        return kind, content[:place]
    foreign = (b"{}", b"null", b"[]", b"1", b"NaN", b'{"result": {}}', b"[" * 100_000)
    return kind, b"" if kind == "empty" else random.choice(foreign)


def of_cache(folder: Path, name: str, content: bytes, jobs: dict[str, Job], right: dict[str, Any]) -> tuple[str, str | None]:
    (folder / name).write_bytes(content)
    job = jobs[name.partition(".")[0]]
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        found = Cache(folder).get(job)
    lines = said.getvalue().splitlines()
    if found is None:
        aside = (folder / name).with_suffix(".damaged")
        good = len(lines) == 1 and aside.exists() and not (folder / name).exists()
        return "computed again", None if good else f"said {lines}, {aside.exists()}"
    # As text: nan is not equal to itself.
    same = json_values.dumps([found.result, found.seconds]) == json_values.dumps(right[job.key])
    return "same value", None if same else f"believed {found.result}"


def of_figure(folder: Path, name: str, content: bytes, right: dict[str, bytes]) -> tuple[str, str | None]:
    (folder / "squares" / name).write_bytes(content)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            redraw(_figure(), folder)
            write_page([_figure()], folder)
    except ValueError as error:
        if name not in str(error) or "\n" in str(error):
            return "refused", f"in the words {error}"
        with contextlib.redirect_stderr(said):
            page = write_page([_figure()], folder).read_text()
        unread = (folder / "squares" / "squares.png").read_bytes() == right["squares.png"]
        if name == "record.json" and ("Squares grow" in page or not said.getvalue()):
            return "refused", "but it stands on the page"
        return "refused", None if unread else "but drawn"
    same = all((folder / "squares" / other).read_bytes() == bytes_ for other, bytes_ in right.items() if other != "data.json")
    return "same value", None if same else "drawn from other data"


@dataclass(frozen=True)
class CacheCampaign:
    """Size: faults in each kind of file."""

    name: str = "cache"
    full: int = 500
    short: int = 60

    def run(self, seed: int, size: int) -> Outcomes:
        outcomes, chance = Outcomes(), random.Random(seed)
        figure = _figure()
        jobs = {job.key: job for job in figure.jobs(None)}  # type: ignore[arg-type]
        with tempfile.TemporaryDirectory() as root:
            cache, out = Path(root) / "cache", Path(root) / "out"
            finished = [Cache(cache).put(Finished(job, job.compute(**job.settings), 1.25)) for job in jobs.values()]
            write_figure(figure, finished, out)
            write_page([figure], out)
            right = {one.job.key: [one.result, one.seconds] for one in finished}
            drawn = {path.name: path.read_bytes() for path in (out / "squares").iterdir()}
            for folder, tell in (
                (cache, lambda at, name, content: of_cache(at, name, content, jobs, right)),
                (out, lambda at, name, content: of_figure(at, name, content, drawn)),
            ):
                _try(outcomes, folder, tell, chance, size)
        return outcomes


def _try(outcomes: Outcomes, folder: Path, tell: Callable[..., tuple[str, str | None]], chance: random.Random, size: int) -> None:
    for path in _files(folder):
        row = "cached result" if folder.name == "cache" else path.name
        for _ in range(size if row != "cached result" else size // 2):
            kind, content = damaged(path.read_bytes(), chance)
            with tempfile.TemporaryDirectory() as copy:
                at = Path(copy) / folder.name
                shutil.copytree(folder, at)
                try:
                    outcome, wrong = tell(at, path.name, content)
                except Exception as error:
                    outcome, wrong = "an exception", repr(error)
            outcomes.count(f"{row}, {kind}", outcome, wrong)


def _files(folder: Path) -> Iterator[Path]:
    yield from sorted(path for path in folder.rglob("*.json"))


CAMPAIGNS = [CacheCampaign()]
