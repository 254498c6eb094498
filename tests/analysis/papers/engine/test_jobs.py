from __future__ import annotations

import importlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from analysis.papers.engine.figure import Claim, Job
from analysis.papers.engine.jobs import Cache, Finished, run_jobs


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache")


def run(jobs, cache, **options):
    return {str(one.job): one for one in run_jobs(jobs, cache, **options)}


# --- jobs -----------------------------------------------------------------------------------------------------------------------


def test_a_job_is_known_by_name_and_settings_alone(toy):
    job = Job(toy.note, {"log": "l", "name": "a"})
    assert job.key == Job(toy.note, {"name": "a", "log": "l"}, cost=5).key
    assert job.key != Job(toy.note, {"log": "l", "name": "b"}).key
    assert job.key != Job(toy.refuse, {"reason": "a"}).key


def test_settings_that_do_not_fit_are_refused_at_once(toy):
    with pytest.raises(ValueError, match="nonsense"):
        Job(toy.note, {"log": "l", "name": "a", "nonsense": 1})
    with pytest.raises(ValueError, match="JSON has no"):
        Job(toy.note, {"log": object(), "name": "a"})


def test_functions_that_a_worker_cannot_import_are_refused():
    with pytest.raises(ValueError, match="module-level function"):
        Job(lambda: {}, {})


def nameless():
    return {}


def test_a_function_without_a_name_is_refused():
    with pytest.raises(ValueError, match=r"nameless has no name as a job: decorate it with @job"):
        Job(nameless)


def test_the_key_knows_the_name_and_not_where_the_function_stands(package, toy):
    """Another name is another job; the same function, moved to another module and renamed, is the same job."""
    text = (package / "toy.py").read_text()
    (package / "elsewhere.py").write_text(text.replace("def note(", "def written(").replace("def refuse(", "def refused("))
    (package / "other.py").write_text(text.replace('@job("note")', '@job("another note")'))
    elsewhere, other = (importlib.import_module(f"{package.name}.{module}") for module in ("elsewhere", "other"))
    settings = {"log": "l", "name": "a"}
    assert Job(elsewhere.written, settings).key == Job(toy.note, settings).key
    assert Job(other.note, settings).key != Job(toy.note, settings).key


def test_long_lists_are_shortened_in_messages(toy):
    assert "[0, ..., 99]" in str(Job(toy.note, {"log": list(range(100)), "name": "a"}))


def test_outcomes_of_claims():
    assert Claim("s", True, "e", "reason").outcome == "held"
    assert Claim("s", False, "e").outcome == "failed"
    assert Claim("s", False, "e", "reason").outcome == "differs"


# --- running --------------------------------------------------------------------------------------------------------------------


def test_finished_jobs_are_not_repeated(toy, cache, tmp_path):
    log = tmp_path / "log"
    jobs = [Job(toy.note, {"log": str(log), "name": name}) for name in ("a", "b", "a")]
    first = run(jobs, cache, workers=1)
    assert sorted(log.read_text().split()) == ["a", "b"]
    second = run(jobs, cache, workers=1)
    assert sorted(log.read_text().split()) == ["a", "b"]
    assert {name: one.result for name, one in first.items()} == {name: one.result for name, one in second.items()}


def test_new_code_repeats_the_jobs_that_use_it(package, toy, cache, tmp_path):
    log = tmp_path / "log"
    settings = {"log": str(log), "name": "a"}
    run([Job(toy.note, settings)], cache, workers=1)
    (package / "used.py").write_text("def value():\n    return 1 + 1\n")
    assert Cache(cache.directory).get(Job(toy.note, settings)) is None


def test_the_longest_jobs_start_first(toy, cache, tmp_path):
    log = tmp_path / "log"
    run([Job(toy.note, {"log": str(log), "name": f"n{k}"}, cost=cost) for k, cost in enumerate((2, 9, 2, 5))], cache, workers=1)
    assert log.read_text().split() == ["n1", "n3", "n0", "n2"]


def test_results_are_the_same_fresh_and_from_the_cache(toy, cache):
    (fresh,) = run_jobs([Job(toy.special)], cache, workers=1)
    (kept,) = run_jobs([Job(toy.special)], cache, workers=1)
    assert repr(fresh.result) == repr(kept.result)
    assert kept.result["values"][1] == math.inf


@pytest.mark.slow
def test_a_job_that_fails_or_kills_its_worker_leaves_the_others(toy, cache, tmp_path, capsys):
    log, marker = str(tmp_path / "log"), str(tmp_path / "marker")
    failing = Job(toy.refuse, {"reason": "too\nhot"})
    jobs = [failing, Job(toy.kill_once, {"marker": marker}), Job(toy.unkeepable), Job(toy.note, {"log": log, "name": "a"})]
    results = run(jobs, cache, workers=2)
    assert results[str(failing)].error == "RuntimeError: too hot"
    assert "cannot be kept" in results["unkeepable()"].error
    assert [one.result for one in results.values() if one.job.compute is toy.kill_once] == [{"survived": True}]
    noted = cache.get(jobs[-1])
    assert noted.result["threads"] == 1
    assert noted.result["pid"] != os.getpid()
    assert "FAILED refuse(reason='too\\nhot'): RuntimeError: too hot" in capsys.readouterr().err.splitlines()
    assert any("raise RuntimeError(reason)" in path.read_text() for path in cache.directory.glob("*.error"))
    # A failure is no result: it is tried again.
    assert cache.get(failing) is None


INTERRUPTED = """
import signal
import sys
from pathlib import Path

from analysis.papers.engine.figure import Job
from analysis.papers.engine.jobs import Cache, run_jobs
from {package} import toy

if __name__ == "__main__":
    # Shells start what runs in the background without this.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    cache, log = sys.argv[1:]
    Path(log).touch()
    settings = [{{"log": log, "name": f"n{{k}}", "gate": log if k < 2 else log + ".open"}} for k in range(5)]
    list(run_jobs([Job(toy.note, part) for part in settings], Cache(Path(cache)), workers=2))
"""


@pytest.mark.slow
def test_after_an_interrupt_only_the_rest_runs(package, toy, cache, tmp_path, capsys):
    script, log = tmp_path / "interrupted.py", tmp_path / "log"
    script.write_text(INTERRUPTED.format(package=package.name))
    root = str(Path(__file__).parents[4])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([root, str(package.parent)]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), str(cache.directory), str(log)]

    # A group of its own, interrupted as a whole, as a terminal does it.
    process = subprocess.Popen(command, env=environment, start_new_session=True, stderr=subprocess.PIPE, text=True)
    while len(list(cache.directory.glob("*.json"))) < 2:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, complaints = process.communicate(timeout=60)
    assert process.returncode != 0
    # From the process itself only: workers leave the interrupt to it.
    assert complaints.count("KeyboardInterrupt") <= 2
    done = {json.loads(path.read_text())["settings"]["name"] for path in cache.directory.glob("*.json")}
    assert done == {"n0", "n1"}
    log.write_text("")
    gate = tmp_path / "log.open"
    gate.touch()

    settings = [{"log": str(log), "name": f"n{k}", "gate": str(log if k < 2 else gate)} for k in range(5)]
    assert len(run([Job(toy.note, part) for part in settings], cache, workers=1)) == 5
    assert "2 of 5 jobs are done already" in capsys.readouterr().err
    assert set(log.read_text().split()) == {f"n{k}" for k in range(5)} - done


KILLED = """
import sys
from pathlib import Path

from analysis.papers.engine.figure import Job
from analysis.papers.engine.jobs import Cache, run_jobs
from {package} import toy

if __name__ == "__main__":
    cache, log, seconds = sys.argv[1:]
    jobs = [Job(toy.begin_and_end, {{"log": log, "name": f"n{{k}}", "seconds": float(seconds)}}) for k in range(4)]
    print(*sorted(one.result["name"] for one in run_jobs(jobs, Cache(Path(cache)), workers=2)))
"""


@pytest.fixture
def start_jobs(package, cache, tmp_path):
    """seconds of each job -> a process that runs four of them, two at a time, and the log they write."""
    script, log = tmp_path / "four_jobs.py", tmp_path / "log"
    script.write_text(KILLED.format(package=package.name))
    root = str(Path(__file__).parents[4])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([root, str(package.parent)]), "OMP_NUM_THREADS": "1"}

    def start(seconds):
        command = [sys.executable, str(script), str(cache.directory), str(log), str(seconds)]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True, start_new_session=True), log

    return start


@pytest.mark.slow
def test_workers_end_with_the_process_that_started_them_however_it_ends(start_jobs):
    process, log = start_jobs(6)
    while not (log.exists() and log.read_text().count("begin") == 2):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    process.kill()
    process.communicate()
    time.sleep(7)
    assert "end" not in log.read_text()


@pytest.mark.slow
def test_two_runs_at_once_on_one_cache_come_to_the_same_whole_results(start_jobs, cache, toy, capsys):
    answers = [process.communicate(timeout=120) for process in [start_jobs(0.3)[0] for _ in range(2)]]
    assert [out for out, _ in answers] == ["n0 n1 n2 n3\n"] * 2, answers
    assert sorted(path.suffix for path in cache.directory.iterdir()) == [".json"] * 4


# --- damaged files of the cache ---


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace('"name": "a"}', '"name": "b"}'),
        lambda text: text.replace('"value": 1', '"value": 2'),
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "{}",
        lambda text: "null",
        lambda text: "[" * 100_000,
        lambda text: json.dumps({key: value for key, value in json.loads(text).items() if key != "sha256"}),
    ],
)
def test_a_damaged_result_is_set_aside_and_computed_again(damage, toy, cache, tmp_path, capsys):
    job = Job(toy.note, {"log": str(tmp_path / "log"), "name": "a"})
    cache.put(Finished(job, {"value": 1}, 1.0))
    (path,) = cache.directory.iterdir()
    path.write_text(damage(path.read_text()))
    assert cache.get(job) is None
    (line,) = capsys.readouterr().err.splitlines()
    assert path.name in line
    assert "runs again" in line
    assert [file.suffix for file in cache.directory.iterdir()] == [".damaged"]
    cache.put(Finished(job, {"value": 1}, 1.0))
    assert cache.get(job).result == {"value": 1}


def test_a_result_of_another_job_is_not_believed(toy, cache, tmp_path, capsys):
    jobs = [Job(toy.note, {"log": str(tmp_path / "log"), "name": name}) for name in "ab"]
    cache.put(Finished(jobs[0], {"value": 1}, 1.0))
    (path,) = cache.directory.iterdir()
    path.rename(path.with_name(f"{jobs[1].key}.json"))
    assert cache.get(jobs[1]) is None
    assert "another job" in capsys.readouterr().err


# --- Ray ------------------------------------------------------------------------------------------------------------------------

RAY = """
import sys
from pathlib import Path

from analysis.papers.engine.figure import Job
from analysis.papers.engine.jobs import Cache, run_jobs
from {package} import toy

if __name__ == "__main__":
    cache, log, marker = sys.argv[1:]
    jobs = [Job(toy.note, {{"log": log, "name": f"n{{k}}", "seconds": 0.2}}) for k in range(4)]
    jobs += [Job(toy.kill_once, {{"marker": marker}}), Job(toy.refuse, {{"reason": "too hot"}})]
    for one in run_jobs(jobs, Cache(Path(cache)), workers=2, engine="ray"):
        print(one.job, one.result, one.error)
"""


@pytest.mark.slow
def test_ray_tries_a_job_again_whose_worker_was_killed(package, cache, tmp_path):
    pytest.importorskip("ray")
    script, log, marker = tmp_path / "on_ray.py", tmp_path / "log", tmp_path / "marker"
    script.write_text(RAY.format(package=package.name))
    root = str(Path(__file__).parents[4])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([root, str(package.parent)])}
    command = [sys.executable, str(script), str(cache.directory), str(log), str(marker)]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert finished.returncode == 0, finished.stderr
    assert marker.exists()
    assert "{'survived': True}" in finished.stdout
    assert "refuse(reason='too hot') None RuntimeError: too hot" in finished.stdout
    assert sorted(log.read_text().split()) == ["n0", "n1", "n2", "n3"]
    assert len(list(cache.directory.glob("*.json"))) == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "cloud"}, "unknown engine"),
        ({"workers": 0}, "at least 1"),
        ({"address": "10.0.0.1:6379"}, "needs engine 'ray'"),
    ],
)
def test_impossible_choices_are_refused(toy, cache, options, message):
    with pytest.raises(ValueError, match=message):
        list(run_jobs([Job(toy.special)], cache, **options))


def test_ray_that_is_not_installed_is_named(toy, cache, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"pip install 'odernn\[ray\]'"):
        list(run_jobs([Job(toy.special)], cache, engine="ray"))
