from __future__ import annotations

import importlib
import multiprocessing
import os
import pickle
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numba
import pytest
import torch
from problems import F64

from odernn import ContinuousRNN, Fused
from odernn.solvers.numba import cache as kernel_cache

PROGRAM = """
import sys, warnings
import torch
{before}
from odernn import Fused, StateSpaceModel
torch.set_num_threads(1)
model = StateSpaceModel(1, 2, 1, dtype=torch.float64)
x, t = torch.ones(2, 3, 1, dtype=torch.float64), torch.arange(3, dtype=torch.float64) / 10
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    y = model(x, t)
    y = model(x, t)
from odernn import Exact
expected = model(x, t, solver=Exact(backend="torch"))
assert torch.allclose(y, expected)
print("said", len([warning for warning in said if "compiled kernels" in str(warning.message)]))
"""
READ_ONLY = """
import os
import numba.core.caching as caching
os.environ["HOME"] = "/nonexistent"
def refuse(self): raise OSError(30, "Read-only file system", self.get_cache_path())
for locator in caching.CacheImpl._locator_classes: locator.ensure_cache_path = refuse
"""
DISK_FULL = """
import numba.core.caching as caching
def full(*_): raise OSError(28, "No space left on device")
caching.IndexDataCacheFile._open_for_write = full
"""


def solve_in_a_new_process(cache: Path, before: str = "") -> str:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache), "PYTHONPATH": os.pathsep.join(sys.path)}
    program = PROGRAM.format(before=before)
    result = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=200)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.mark.slow
@pytest.mark.parametrize("before", [READ_ONLY, DISK_FULL], ids=["read-only", "full disk"])
def test_without_a_place_for_compiled_kernels_they_are_compiled_in_memory_and_it_is_said_once(tmp_path, before):
    assert solve_in_a_new_process(tmp_path, before) == "said 1"


@pytest.mark.slow
def test_a_cache_directory_that_is_a_file_is_no_place(tmp_path):
    (tmp_path / "file").write_text("")
    assert solve_in_a_new_process(tmp_path / "file") in ("said 1", "said 0")  # 0: numba falls back to another directory
    assert (tmp_path / "file").read_text() == ""


@pytest.mark.slow
def test_a_damaged_kernel_is_compiled_again(tmp_path):
    assert solve_in_a_new_process(tmp_path) == "said 0"
    files = [file for file in tmp_path.rglob("*.nbc") if ".scan" in file.name]
    assert files
    for file in files:
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    assert solve_in_a_new_process(tmp_path) == "said 0"


def twice(x):
    return 2 * x


def called_anew() -> tuple[float, int]:
    """The answer of a freshly decorated function, and how many of its compiled forms came from disk."""
    function = kernel_cache.keep_on_disk(numba.njit(twice))
    return function(1.5), sum(function.stats.cache_hits.values())


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(kernel_cache, "_said", [])
    assert called_anew() == (3.0, 0)
    assert called_anew() == (3.0, 1)
    return tmp_path / "cache"


def test_compiling_is_announced_once_with_its_place_and_its_seconds_and_loading_is_not(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(kernel_cache, "_announced", [])
    assert called_anew() == (3.0, 0)
    begun, ended = caplog.messages
    assert begun.startswith(f"compiling kernels for this machine (once; kept in {tmp_path / 'cache'}")
    assert re.fullmatch(r"compiled twice in \d+\.\d s", ended)
    assert {record.name for record in caplog.records} == {"odernn"}
    assert called_anew() == (3.0, 1)
    assert len(caplog.messages) == 2  # from disk, in silence
    another = kernel_cache.keep_on_disk(numba.njit(lambda x: 3 * x))
    assert another(1.5) == 4.5
    assert len(caplog.messages) == 3  # the place is not said again


@pytest.mark.slow
def test_a_program_without_logging_shows_on_stderr_that_kernels_are_compiled(tmp_path):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    said = [
        subprocess.run([sys.executable, "-c", PROGRAM.format(before="")], env=environment, capture_output=True, text=True).stderr
        for _ in range(2)
    ]
    begun, ended = said[0].splitlines()
    assert begun.startswith("compiling kernels for this machine")
    assert ended.startswith("compiled scan")
    assert said[1] == ""


@pytest.mark.slow
def test_parts_of_kernels_have_no_machine_code_of_their_own(tmp_path):
    """What numba makes of them by itself takes a third of the time of a first run."""
    program = (
        "import odernn.solvers.numba.scan as scan, numba.core.codegen as codegen\n"
        "made = []\n"
        "add = codegen.JITCPUCodegen._add_module\n"
        "def noted(self, module):\n"
        "    made.append(' '.join(one.name for one in module.functions if not one.is_declaration))\n"
        "    return add(self, module)\n"
        "codegen.JITCPUCodegen._add_module = noted\n"
        + PROGRAM.format(before="")
        + "assert [names for names in made if 'scan_serial' in names]\n"
        "assert not [names for names in made if '_scan_item' in names and 'scan_serial' not in names]\n"
    )
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("suffix", [".nbi", ".nbc"])
def test_every_damage_to_a_file_of_the_cache_is_found_and_mended(cache, suffix):
    (file,) = cache.rglob(f"*{suffix}")
    whole = file.read_bytes()
    damaged = [b"", whole[:10], whole[: len(whole) // 2], whole[:-1], whole + b"0", bytes(len(whole)), pickle.dumps(None)]
    for place in range(0, len(whole), 1 + len(whole) // 12):
        damaged.append(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    for content in damaged:
        file.write_bytes(content)
        assert called_anew() == (3.0, 0)
        assert called_anew() == (3.0, 1)  # written anew


def test_a_file_of_the_cache_that_is_a_directory_or_has_gone_is_said_at_most(cache):
    for suffix in (".nbc", ".nbi"):
        (file,) = cache.rglob(f"*{suffix}")
        file.unlink()
        assert called_anew()[0] == 3.0
        (file,) = cache.rglob(f"*{suffix}")
        file.unlink()
        file.mkdir()
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            assert called_anew()[0] == 3.0
            assert called_anew()[0] == 3.0
        assert all("compiled kernels" in str(warning.message) for warning in said)
        file.rmdir()


def test_machine_code_is_compiled_anew_after_an_edit_of_a_file_that_it_inlined(tmp_path, monkeypatch):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "calling.py").write_text(
        "import numba\nimport inlined\nfrom odernn.solvers.numba.cache import keep_on_disk\n"
        "twice = inlined.twice\n"
        "def kernel(x):\n    return twice(x)\n"
        "kernel = keep_on_disk(numba.njit(kernel))\n"
    )

    def called(factor: int) -> tuple[float, int]:
        (tmp_path / "inlined.py").write_text(f"import numba\n@numba.njit\ndef twice(x):\n    return {factor} * x\n")
        for name in ("inlined", "calling"):
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)  # Python's own goes by the time of an edit, in seconds
        kernel = importlib.import_module("calling").kernel
        return kernel(1.5), sum(kernel.stats.cache_hits.values())

    assert called(2) == (3.0, 0)
    assert called(2) == (3.0, 1)
    assert called(4) == (6.0, 0)


def test_every_file_of_the_kernels_counts_for_the_cache(tmp_path):
    folder = Path(kernel_cache.__file__).parent
    stamps = {kernel_cache._source_stamp(folder / "scan.py")}
    files = [file.name for file in folder.glob("*.py")]
    for name in files:
        shutil.copytree(folder, tmp_path / name)
        with open(tmp_path / name / name, "a") as file:
            file.write("# edited\n")
        stamps.add(kernel_cache._source_stamp(tmp_path / name / "scan.py"))
    assert len(stamps) == 1 + len(files)


def problem():
    model = ContinuousRNN(1, 16, 1, seed=0, dtype=F64)
    t = torch.linspace(0, 2, 21, dtype=F64)
    return model, torch.sin(t + torch.arange(40)[:, None]).unsqueeze(-1), t


def solved(model, x, t, threads, queue=None):
    torch.set_num_threads(threads)
    y = model(x, t, solver=Fused())
    gradients = torch.autograd.grad(y.square().mean(), list(model.parameters()))
    found = [value.detach().numpy() for value in (y, *gradients)]
    if queue is not None:
        queue.put(found)
    return found


def same(one, other) -> bool:
    return all((a == b).all() for a, b in zip(one, other, strict=True))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
@pytest.mark.parametrize(("method", "threads"), [("fork", 1), ("fork", 2), ("spawn", 2)])
def test_workers_solve_to_the_numbers_of_their_parent(method, threads):
    """On two threads the parent has opened a parallel region, whose threads a fork leaves behind."""
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} here")
    model, x, t = problem()
    before = solved(model, x, t, threads)
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    workers = [context.Process(target=solved, args=(model, x, t, threads, queue), daemon=True) for _ in range(2)]
    for worker in workers:
        worker.start()
    try:
        assert all(same(queue.get(timeout=100), before) for _ in workers)
        for worker in workers:
            worker.join(100)
            assert worker.exitcode == 0
    finally:
        for worker in workers:
            worker.kill()
    assert same(solved(model, x, t, threads), before)


class Answers(torch.utils.data.Dataset):
    """Answers of a model, one sequence at a time."""

    def __init__(self) -> None:
        self.model, self.x, self.t = problem()

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, k):
        with torch.no_grad():
            return self.model(self.x[k : k + 1], self.t, solver=Fused())[0]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_the_workers_of_a_data_loader_solve(method):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} here")
    torch.set_num_threads(2)
    answers = Answers()
    with torch.no_grad():
        expected = answers.model(answers.x, answers.t, solver=Fused())
    batches = torch.utils.data.DataLoader(answers, batch_size=8, num_workers=2, multiprocessing_context=method, timeout=100)
    assert torch.allclose(torch.cat(list(batches)), expected, rtol=1e-12, atol=1e-14)
