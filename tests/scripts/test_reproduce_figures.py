from __future__ import annotations

import csv
import importlib
import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from analysis.papers import figures as all_figures
from analysis.papers.engine import records
from analysis.papers.engine.figure import Claim, Figure, Job
from analysis.papers.engine.report import _seconds
from analysis.plotting import label, picture

SCRIPT = Path(__file__).parents[2] / "scripts" / "reproduce_figures.py"

# A module of jobs, in a folder on the path.
JOBS = """
from analysis.papers.engine.figure import job


@job("square")
def square(x, seed, source=None, folder=""):
    with open({log!r}, "a") as file:
        file.write(f"{{x}} ")
    return {{"square": x * x}}


@job("refuse")
def refuse(x, seed):
    raise RuntimeError("too hot")
"""


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log"


@pytest.fixture
def jobs(tmp_path, monkeypatch, log):
    folder = tmp_path / "modules"
    folder.mkdir()
    name = f"jobs_{tmp_path.name}"
    (folder / f"{name}.py").write_text(JOBS.format(log=str(log)))
    monkeypatch.syspath_prepend(str(folder))
    yield importlib.import_module(name)
    del sys.modules[name]


def draw(data, path):
    with picture(path) as (_, (axes,)):
        axes.plot(data["x"], data["y"])
        label(axes, x="x", y="y")


@pytest.fixture
def figures(jobs, monkeypatch):
    """Three figures in place of the papers': squares, a claim that fails, and a job that does."""
    squares = Figure(
        name="squares",
        title="Squares | of numbers",
        source="[X] Fig 1",
        published="Squares were published.",
        settings=lambda data: f"{len(data['x'])} numbers.",
        jobs=lambda options: [Job(jobs.square, {"x": x, "seed": 7}) for x in range(2 if options.quick else 4)],
        assemble=lambda results: {"x": [job.settings["x"] for job, _ in results], "y": [one["square"] for _, one in results]},
        claims=lambda data: [
            Claim("Squares are not negative", min(data["y"]) >= 0, f"least {min(data['y'])}"),
            Claim("Squares are even", False, "1 | 9", difference="odd numbers have odd squares"),
        ],
        plot=draw,
        rows=lambda data: [{"x": x, "y": y} for x, y in zip(data["x"], data["y"])],
        findings="None to speak of.",
    )
    odd = replace(squares, name="odd", title="Odd", claims=lambda data: [Claim("Squares are odd", False, "0")], plot=None)
    hot = replace(squares, name="hot", title="Hot", jobs=lambda options: [Job(jobs.refuse, {"x": 1, "seed": 0})])
    known = all_figures()
    for name in list(known):
        monkeypatch.delitem(known, name)
    for figure in (squares, odd, hot):
        monkeypatch.setitem(known, figure.name, figure)
    return known


@pytest.fixture
def main(call_main, monkeypatch, tmp_path):
    """arguments -> (exit code, stdout, stderr), in a directory of its own."""
    monkeypatch.chdir(tmp_path)
    return partial(call_main, "reproduce_figures")


def test_a_figure_leaves_data_table_picture_and_page(figures, main, tmp_path):
    code, out, _ = main("squares", "--jobs", 1)
    assert code == 0
    assert "held    Squares are not negative: least 0" in out
    assert "differs Squares are even: 1 | 9 [odd numbers have odd squares]" in out
    folder = tmp_path / "reproduction-new" / "squares"
    assert json.loads((folder / "data.json").read_text()) == {"x": [0, 1, 2, 3], "y": [0, 1, 4, 9]}
    record = json.loads((folder / "record.json").read_text())
    assert [job["settings"] for job in record["jobs"]] == [{"x": x, "seed": 7} for x in range(4)]
    assert list(csv.DictReader((folder / "data.csv").read_text().splitlines()))[3] == {"x": "3", "y": "9"}
    assert (folder / "squares.png").stat().st_size > 0
    page = (tmp_path / "reproduction-new" / "README.md").read_text()
    for part in (
        "| [squares](#squares) | Squares | of numbers ([X] Fig 1) | 1 held, 1 differs |".replace(
            "Squares | of", "Squares \\| of"
        ),
        "![Squares | of numbers](squares/squares.png)",
        "Squares were published.",
        "4 numbers.",
        "| Squares are even | differs | 1 \\| 9 *Why: odd numbers have odd squares* |",
        "seed 7",
        "None to speak of.",
    ):
        assert part in page


def test_finished_jobs_and_other_figures_stay(figures, main, log, tmp_path):
    main("squares", "--jobs", 1)
    code, _, _ = main("odd", "--jobs", 1)
    assert code == 1
    # The same jobs for another figure: none ran again.
    assert log.read_text().split() == ["0", "1", "2", "3"]
    page = (tmp_path / "reproduction-new" / "README.md").read_text()
    assert page.index('<a id="squares">') < page.index('<a id="odd">')


def test_a_claim_that_fails_ends_with_code_1(figures, main):
    code, out, _ = main("odd", "--jobs", 1)
    assert code == 1
    assert "failed  Squares are odd: 0" in out
    assert "1 of 1 figures written, claims: 1 failed" in out


def test_a_job_that_fails_ends_with_code_1_after_the_others(figures, main, tmp_path):
    code, out, err = main("--all", "--jobs", 1)
    assert code == 1
    assert "FAILED refuse(x=1, seed=0): RuntimeError: too hot" in err
    assert "hot: not written, 1 of 1 jobs failed" in err
    assert "2 of 3 figures written" in out
    assert (tmp_path / "reproduction-new" / "squares" / "squares.png").exists()
    assert not (tmp_path / "reproduction-new" / "hot").exists()


def test_a_mistake_in_one_figure_leaves_the_others(figures, main, monkeypatch):
    monkeypatch.setitem(figures, "hot", replace(figures["squares"], name="hot", claims=lambda data: data["no such thing"]))
    code, out, err = main("hot", "squares", "--jobs", 1)
    assert code == 1
    assert "hot: not written" in err
    assert "KeyError" in err
    assert "1 of 2 figures written" in out


def test_quick_runs_are_smaller_and_apart(figures, main, log, tmp_path):
    assert main("squares", "--jobs", 1, "--quick")[0] == 0
    assert log.read_text().split() == ["0", "1"]
    assert "A quick run" in (tmp_path / "reproduction-quick" / "README.md").read_text()
    assert not (tmp_path / "reproduction-new").exists()


def test_quick_runs_replace_no_full_ones(figures, main):
    main("squares", "--jobs", 1)
    code, _, err = main("squares", "--quick", "--out", "reproduction-new")
    assert code == 2
    assert "holds a full run" in err


def test_pictures_are_redrawn_from_data_alone(figures, main, log, tmp_path):
    main("squares", "--jobs", 1)
    log.write_text("")
    path = tmp_path / "reproduction-new" / "squares" / "squares.png"
    before = path.read_bytes()
    path.unlink()
    code, out, _ = main("squares", "--redraw", "--cache", "empty")
    assert code == 0
    assert "1 held, 1 differs" in out
    assert path.read_bytes() == before
    assert log.read_text() == ""


def test_data_of_other_settings_are_not_redrawn(figures, main, monkeypatch):
    main("squares", "--jobs", 1)
    fewer = replace(figures["squares"], jobs=lambda options: figures["odd"].jobs(options)[:3])
    monkeypatch.setitem(figures, "squares", fewer)
    code, out, err = main("squares", "--redraw")
    assert (code, out) == (2, "")
    assert "computed with other settings than squares has now: run the figure again" in err


def test_files_of_a_users_own_are_known_by_their_fingerprint_and_not_by_their_place(figures, jobs, main, monkeypatch, tmp_path):
    """And the other jobs of such a figure must still be its own."""
    plain = figures["squares"].jobs

    def with_data(options):
        source = {"name": "mine", "fingerprint": "f00"}
        mine = [Job(jobs.square, {"x": 5, "seed": 7, "source": source}, places={"folder": str(options.data)})]
        return [*plain(options), *(mine if options.data else [])]

    monkeypatch.setitem(figures, "squares", replace(figures["squares"], jobs=with_data))
    (tmp_path / "data").mkdir()
    assert main("squares", "--jobs", 1, "--data", tmp_path / "data")[0] == 0
    folder = tmp_path / "reproduction-new" / "squares"
    assert json.loads((folder / "data.json").read_text())["x"] == [0, 1, 2, 3, 5]
    for path in (*folder.glob("*.*"), *(tmp_path / ".cache" / "reproduction").iterdir()):
        assert str(tmp_path).encode() not in path.read_bytes(), path
    assert main("squares", "--redraw")[0] == 0
    monkeypatch.setitem(figures, "squares", replace(figures["squares"], jobs=lambda options: plain(options)[:3]))
    assert "other settings" in main("squares", "--redraw")[2]


def one_digit(text):
    """The text with its last digit changed."""
    place = max(k for k, letter in enumerate(text) if letter.isdigit())
    return text[:place] + str((int(text[place]) + 1) % 10) + text[place + 1 :]


@pytest.mark.parametrize("name", ["data.json", "record.json"])
@pytest.mark.parametrize("damage", [one_digit, lambda text: text[:40], lambda text: "", lambda text: "{}", lambda text: "null"])
def test_damaged_data_are_not_redrawn(figures, main, tmp_path, name, damage):
    main("squares", "--jobs", 1)
    folder = tmp_path / "reproduction-new" / "squares"
    picture = (folder / "squares.png").read_bytes()
    (folder / name).write_text(damage((folder / name).read_text()))
    code, out, err = main("squares", "--redraw")
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert name in err
    assert "run the figure again" in err
    assert (folder / "squares.png").read_bytes() == picture
    # The page of the others is written, without this one.
    code, _, err = main("odd", "--jobs", 1)
    page = (tmp_path / "reproduction-new" / "README.md").read_text()
    assert ('<a id="squares">' in page) == (name == "data.json")
    assert "odd" in page


def test_what_the_project_keeps_is_written_only_when_named(figures, main, tmp_path):
    (tmp_path / "reproduction").mkdir()
    assert main("squares", "--jobs", 1)[0] == 0
    assert list((tmp_path / "reproduction").iterdir()) == []
    assert main("squares", "--jobs", 1, "--out", "reproduction")[0] == 0
    assert (tmp_path / "reproduction" / "squares" / "data.json").exists()


def test_files_of_somebody_else_are_not_replaced(figures, main, tmp_path, log):
    (tmp_path / "README.md").write_text("mine")
    code, _, err = main("squares", "--jobs", 1, "--out", ".")
    assert code == 2
    assert "README.md was not written by the reproduction" in err
    (tmp_path / "other" / "squares").mkdir(parents=True)
    (tmp_path / "other" / "squares" / "data.json").write_text("mine")
    for flags in ([], ["--overwrite"]):
        code, _, err = main("squares", "--jobs", 1, "--out", "other", *flags)
        assert code == 2
        assert "not a figure of the reproduction" in err
    assert (tmp_path / "README.md").read_text() == "mine"
    assert (tmp_path / "other" / "squares" / "data.json").read_text() == "mine"
    assert not log.exists()


def test_a_figure_of_other_settings_is_replaced_only_when_told(figures, main, monkeypatch, tmp_path):
    main("squares", "--jobs", 1)
    fewer = replace(figures["squares"], jobs=lambda options: figures["odd"].jobs(options)[:3])
    monkeypatch.setitem(figures, "squares", fewer)
    code, _, err = main("squares", "--jobs", 1)
    assert code == 2
    assert "other settings" in err
    assert main("squares", "--jobs", 1, "--overwrite")[0] == 0
    # The same again is no other.
    assert main("squares", "--jobs", 1)[0] == 0


def test_the_committed_figures_are_whole():
    root = Path(__file__).parents[2] / "reproduction"
    folders = [path.parent for path in root.glob("*/record.json")]
    assert folders
    for folder in folders:
        record = records.read(folder / "record.json")
        records.read_value(folder / "data.json", expected=record["data_sha256"])


def test_of_all_figures_those_that_are_there_are_redrawn(figures, main):
    main("odd", "--jobs", 1)
    assert "1 of 1 figures written" in main("--all", "--redraw")[1]
    assert "nothing to redraw" in main("--all", "--redraw", "--out", "elsewhere")[2]


def test_shared_jobs_count_once_in_the_time_of_all(figures, main, tmp_path):
    main("squares", "odd", "--jobs", 1)
    records = [json.loads((tmp_path / "reproduction-new" / name / "record.json").read_text()) for name in ("squares", "odd")]
    assert records[0]["jobs"] == records[1]["jobs"]
    assert _seconds(records) == pytest.approx(records[0]["seconds"])


def test_a_folder_that_cannot_be_written_is_said_before_computing(figures, main, log, tmp_path):
    (tmp_path / "reproduction-new").write_text("a file")
    code, out, err = main("squares", "--jobs", 1)
    assert (code, out) == (2, "")
    assert "reproduction-new is a file: give --out a folder" in err
    assert not log.exists()


def test_the_list_names_every_figure(main):
    code, out, _ = main("--list")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == list(all_figures())
    assert {"ia-1a", "ia-1b", "ia-4a", "ia-4b"} <= set(all_figures())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name the figures"),
        (["squares", "--all"], "name the figures"),
        (["circles"], "unknown figure 'circles': choose from squares, odd, hot"),
        (["squares", "--jobs", "0"], "at least 1"),
        (["squares", "--address", "here"], "needs engine 'ray'"),
        (["squares", "--data", "nowhere"], "there is no folder nowhere"),
        (["squares", "--redraw"], "run the figure first"),
        (["squares", "--engine", "cloud"], "invalid choice"),
        (["squares", "--engine", "ray", "--address", "127.0.0.1:1"], "no Ray cluster at 127.0.0.1:1"),
    ],
)
def test_bad_input_is_one_line_and_code_2(figures, main, arguments, message):
    if "127.0.0.1:1" in arguments:
        pytest.importorskip("ray")
    code, out, err = main(*arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1


@pytest.mark.slow
def test_published_figures_come_out(main, tmp_path):
    """The two cheapest, quick: one that must be stable and one that must not."""
    code, out, err = main("ia-1a", "ia-1b", "--quick", "--jobs", 1)
    assert code == 0, out + err
    assert "held    The approximation is stable" in out
    assert "held    The approximation is unstable" in out
    for name in ("ia-1a", "ia-1b"):
        assert (tmp_path / "reproduction-quick" / name / f"{name}.png").stat().st_size > 0
