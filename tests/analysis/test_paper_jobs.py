from __future__ import annotations

import importlib
import json
import math
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from analysis.decay import fit_decay
from analysis.paper.code_version import code_version, source_files
from analysis.paper.figure import Claim, Job
from analysis.paper.jobs import Cache, Finished, run_jobs
from analysis.perturbation import PerturbationCurve
from analysis.verdict import judge_stable_approximation
from odernn import json_values
from odernn.runs import RunDirectory

# Jobs that note each run of theirs in a file, in a package of their own that workers can import.
TOY = """
import os
import signal
import time
from pathlib import Path

import torch

from .{used} import value


def note(log, name, seconds=0.0):
    time.sleep(seconds)
    with open(log, "a") as file:
        file.write(name + "\\n")
    return {{"value": value(), "threads": torch.get_num_threads(), "pid": os.getpid()}}


def special():
    return {{"values": [1.5, float("inf"), float("-inf"), float("nan")], "array": torch.ones(2), "tuple": (1, 2)}}


def begin_and_end(log, name, seconds):
    for word in ("begin", "end"):
        with open(log, "a") as file:
            file.write(f"{{word}} {{name}}\\n")
        time.sleep(seconds if word == "begin" else 0)
    return {{"name": name}}


def refuse(reason):
    raise RuntimeError(reason)


def unkeepable():
    return {{"function": unkeepable}}


def kill_once(marker):
    if not Path(marker).exists():
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return {{"survived": True}}
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of jobs: toy imports used, unused stands beside it. Its name is new for each test, as imports are kept."""
    name = f"toy_{tmp_path.name}".replace("-", "_")
    folder = tmp_path / "modules" / name
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("from .unused import other\n")
    (folder / "toy.py").write_text(TOY.format(used="used"))
    (folder / "used.py").write_text("def value():\n    return 1\n")
    (folder / "unused.py").write_text("def other():\n    return 1\n")
    monkeypatch.syspath_prepend(str(folder.parent))
    yield folder
    for module in [module for module in sys.modules if module.partition(".")[0] == name]:
        del sys.modules[module]


@pytest.fixture
def toy(package):
    return importlib.import_module(f"{package.name}.toy")


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache")


def run(jobs, cache, **options):
    return {str(one.job): one for one in run_jobs(jobs, cache, **options)}


# --- results as files -----------------------------------------------------------------------------------------------------------


def test_values_come_back_from_json_as_numbers_and_lists():
    value = {"a": np.array([1.0, math.inf]), "b": (torch.tensor(2), -math.inf), "c": None, "d": "text", "e": np.float64(math.nan)}
    encoded = json_values.encode(value)
    json.dumps(encoded, allow_nan=False)
    back = json_values.decode(encoded)
    assert back["a"] == [1.0, math.inf]
    assert back["b"] == [2, -math.inf]
    assert back["c"] is None
    assert back["d"] == "text"
    assert math.isnan(back["e"])


def test_nothing_that_is_written_holds_words_that_json_lacks(tmp_path):
    assert json_values.dumps({"a": math.inf}) == '{"a": "inf"}'
    with pytest.raises(ValueError, match="NaN is no JSON value"):
        json_values.loads('{"a": NaN}')
    run = RunDirectory.create(tmp_path / "run", {"experiment": {}})
    run.write_summary({"error": math.inf})
    json.loads((tmp_path / "run" / "summary.json").read_text(), parse_constant=pytest.fail)
    verdict = judge_stable_approximation([curve((1.0, math.inf), width) for width in (2, 4)])
    json.dumps(verdict.as_dict(), allow_nan=False)
    json.dumps(fit_decay((np.arange(3.0), np.zeros(3))).as_dict(), allow_nan=False)


def curve(relative, width):
    errors = np.array(relative)
    return PerturbationCurve(
        betas=np.array([0.0, 0.1]), errors=errors, searched=errors, worst_case=None, initial=math.inf, scale=1.0,
        hidden_size=width, horizon=10.0, error="relative_l2", power=1, search="ascent", norm="spectral", blocks=("W",),
        block_choice="recurrent", evaluations=1, model={},
    )  # fmt: skip


@pytest.mark.parametrize("value", [{1: 2}, {"a": object()}, {"a": {1, 2}}])
def test_what_json_cannot_hold_is_refused(value):
    with pytest.raises(TypeError, match="JSON has"):
        json_values.encode(value)


# --- jobs -----------------------------------------------------------------------------------------------------------------------


def test_a_job_is_known_by_function_and_settings_alone(toy):
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


def test_long_lists_are_shortened_in_messages(toy):
    assert "[0, ..., 99]" in str(Job(toy.note, {"log": list(range(100)), "name": "a"}))


def test_outcomes_of_claims():
    assert Claim("s", True, "e", "reason").outcome == "held"
    assert Claim("s", False, "e").outcome == "failed"
    assert Claim("s", False, "e", "reason").outcome == "differs"


# --- code versions --------------------------------------------------------------------------------------------------------------


def version(package):
    return code_version(f"{package.name}.toy")


def test_the_code_version_follows_what_a_module_imports(package):
    before = version(package)
    (package / "used.py").write_text("def value():\n    return 22\n")
    assert version(package) != before


def test_the_code_version_ignores_modules_that_are_not_imported(package):
    before = version(package)
    (package / "unused.py").write_text("def other():\n    return 22\n")
    (package / "__init__.py").write_text("import os\n")
    assert version(package) == before


def test_the_code_version_ignores_comments_docstrings_and_layout(package):
    before = version(package)
    (package / "used.py").write_text('"""New."""\n\n\ndef value():\n    """New."""\n    # new\n    return (1)\n')
    assert version(package) == before


def test_names_that_a_package_reexports_lead_to_the_module_that_defines_them(package):
    (package / "toy.py").write_text(f"from {package.name} import other\n")
    assert set(source_files(f"{package.name}.toy")) == {f"{package.name}.toy", f"{package.name}.unused"}


def test_dynamic_imports_depend_on_all_modules_beside_them(package):
    (package / "toy.py").write_text("import importlib\n\n\ndef load(name):\n    return importlib.import_module(name)\n")
    assert f"{package.name}.unused" in source_files(f"{package.name}.toy")


def test_computations_depend_on_solvers_but_not_on_pictures():
    sources = set(source_files("analysis.paper.linear_families"))
    assert {"analysis.linear_fits", "odernn.solvers.exact", "odernn.solvers._numba_backend", "targets.kernels"} <= sources
    assert not {"analysis.plotting", "analysis.perturbation_picture", "analysis.paper.figure"} & sources


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
import sys
from pathlib import Path

from analysis.paper.figure import Job
from analysis.paper.jobs import Cache, run_jobs
from {package} import toy

if __name__ == "__main__":
    cache, log = sys.argv[1:]
    settings = [{{"log": log, "name": f"n{{k}}", "seconds": 0.2 if k < 2 else 1.2}} for k in range(5)]
    list(run_jobs([Job(toy.note, part) for part in settings], Cache(Path(cache)), workers=2))
"""


def test_after_an_interrupt_only_the_rest_runs(package, toy, cache, tmp_path, capsys):
    script, log = tmp_path / "interrupted.py", tmp_path / "log"
    script.write_text(INTERRUPTED.format(package=package.name))
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([root, str(package.parent)]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), str(cache.directory), str(log)]

    # A group of its own, interrupted as a whole, as a terminal does it.
    process = subprocess.Popen(command, env=environment, start_new_session=True, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while len(list(cache.directory.glob("*.json"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, complaints = process.communicate(timeout=60)
    assert process.returncode != 0
    # From the process itself only: workers leave the interrupt to it.
    assert complaints.count("KeyboardInterrupt") <= 2
    done = {json.loads(path.read_text())["settings"]["name"] for path in cache.directory.glob("*.json")}
    assert 2 <= len(done) < 5
    log.write_text("")

    settings = [{"log": str(log), "name": f"n{k}", "seconds": 0.2 if k < 2 else 1.2} for k in range(5)]
    assert len(run([Job(toy.note, part) for part in settings], cache, workers=1)) == 5
    assert f"{len(done)} of 5 jobs are done already" in capsys.readouterr().err
    assert set(log.read_text().split()) == {f"n{k}" for k in range(5)} - done


KILLED = """
import sys
from pathlib import Path

from analysis.paper.figure import Job
from analysis.paper.jobs import Cache, run_jobs
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
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([root, str(package.parent)]), "OMP_NUM_THREADS": "1"}

    def start(seconds):
        command = [sys.executable, str(script), str(cache.directory), str(log), str(seconds)]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True, start_new_session=True), log

    return start


def test_workers_end_with_the_process_that_started_them_however_it_ends(start_jobs):
    process, log = start_jobs(6)
    deadline = time.monotonic() + 60
    while not (log.exists() and log.read_text().count("begin") == 2):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.communicate()
    time.sleep(7)
    assert "end" not in log.read_text()


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

from analysis.paper.figure import Job
from analysis.paper.jobs import Cache, run_jobs
from {package} import toy

if __name__ == "__main__":
    cache, log, marker = sys.argv[1:]
    jobs = [Job(toy.note, {{"log": log, "name": f"n{{k}}", "seconds": 0.2}}) for k in range(4)]
    jobs += [Job(toy.kill_once, {{"marker": marker}}), Job(toy.refuse, {{"reason": "too hot"}})]
    for one in run_jobs(jobs, Cache(Path(cache)), workers=2, engine="ray"):
        print(one.job, one.result, one.error)
"""


def test_ray_tries_a_job_again_whose_worker_was_killed(package, cache, tmp_path):
    pytest.importorskip("ray")
    script, log, marker = tmp_path / "on_ray.py", tmp_path / "log", tmp_path / "marker"
    script.write_text(RAY.format(package=package.name))
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
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
