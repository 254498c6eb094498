"""The cost of `import odernn` and `import analysis`, and their answer where another package hides one of ours."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import odernn
from odernn.version import __version__

ROOT = Path(odernn.__file__).parents[1]
# A finder behind those of the path, as an editable installation has one: a folder without __init__.py is found before it.
EDITABLE = f"""
import importlib.util, pathlib, sys
class Finder:
    def find_spec(name, path=None, target=None):
        place = pathlib.Path({str(ROOT)!r}, name, "__init__.py")
        return importlib.util.spec_from_file_location(name, place) if place.exists() else None
sys.meta_path = [finder for finder in sys.meta_path if "Editable" not in repr(finder)] + [Finder]
"""


def python(code, cwd, path=(ROOT,)):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path))}
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, env=environment, capture_output=True, text=True)


def newly_imported(name, tmp_path):
    """The packages and modules that an import adds to those of torch."""
    code = f"import sys, torch; before = set(sys.modules); import {name}; print(*set(sys.modules) - before)"
    ended = python(code, tmp_path)
    assert not ended.returncode, ended.stderr
    return {module.partition(".")[0] for module in ended.stdout.split()}


def test_import_odernn_adds_nothing_slow_to_torch(tmp_path):
    slow = {"analysis", "joblib", "llvmlite", "matplotlib", "numba", "scipy", "sklearn", "torchdiffeq", "triton"}
    found = newly_imported("odernn", tmp_path)
    assert {"odernn", "targets"} <= found
    assert not found & slow


@pytest.mark.slow
def test_import_analysis_does_not_load_what_draws_or_compiles(tmp_path):
    found = newly_imported("analysis", tmp_path)
    assert "analysis" in found
    assert not found & {"joblib", "llvmlite", "matplotlib", "numba", "sklearn"}


def test_every_public_name_is_there():
    assert {name for name in odernn.__all__ if not hasattr(odernn, name)} == set()
    assert odernn.__all__ == sorted(odernn.__all__, key=lambda name: (name.islower(), name))


def test_the_version_is_that_of_the_project():
    assert odernn.__version__ == __version__
    assert re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(), re.M)[1] == __version__
    assert '[tool.hatch.version]\npath = "odernn/version.py"' in (ROOT / "pyproject.toml").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("file", ["targets.py", "targets/__init__.py", "targets/data.csv"])
@pytest.mark.parametrize("first", ["odernn", "analysis"])
def test_ours_is_used_where_a_package_of_ones_own_would_be_found_first(tmp_path, file, first):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text("raise SystemExit('this ran')")
    hiding = (tmp_path / file if file.endswith("s.py") else tmp_path / "targets").resolve()
    ended = python(f"import {first}\nfrom targets import kernels\nfrom targets import mine", tmp_path)
    last = ended.stderr.splitlines()[-1]
    if file.endswith("csv"):  # a folder without code hides nothing
        assert last.startswith("ImportError: cannot import name 'mine'")
    else:
        assert last == f"ImportError: no 'mine' in the package 'targets' of odernn, which hides {hiding}: rename that"
        assert f"`import targets` is the package of odernn from here on and hides {hiding}" in ended.stderr


def test_a_module_of_ones_own_that_imports_odernn_itself_is_named(tmp_path):
    (tmp_path / "targets.py").write_text("import odernn")
    assert f"ImportError: {(tmp_path / 'targets.py').resolve()} hides" in python("import targets", tmp_path).stderr


@pytest.mark.slow
def test_a_folder_without_code_hides_nothing_even_from_an_installation_that_is_asked_last(tmp_path):
    for name in ("targets", "analysis"):
        (tmp_path / name).mkdir()
    assert python("import odernn, analysis", tmp_path).returncode == 0
    ended = python(f"{EDITABLE}\nimport odernn\nprint(odernn.analysis.memory_function)", tmp_path, path=())
    assert ended.returncode == 0, ended.stderr


SAME = """
import sys, pickle
import odernn
assert "analysis" not in sys.modules
import odernn.analysis.decay.fit as fit
from odernn.analysis.probes import PROBES
from odernn.targets import kernels
import analysis.decay.fit, analysis.probes, targets.kernels
assert odernn.analysis is analysis and odernn.targets is targets
assert fit is analysis.decay.fit and kernels is targets.kernels and PROBES is analysis.probes.PROBES
assert fit.__name__ == fit.__spec__.name == "analysis.decay.fit"
assert pickle.loads(pickle.dumps(analysis.DecayFit)) is odernn.analysis.DecayFit
"""


@pytest.mark.slow
def test_analysis_and_targets_within_odernn_are_the_same_modules(tmp_path):
    ended = python(SAME, tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "No module named 'odernn.analysis.nothing'" in python("import odernn.analysis.nothing", tmp_path).stderr


@pytest.mark.slow
def test_an_analysis_of_ones_own_and_ours_within_odernn_are_two_modules(tmp_path):
    use = "import odernn.analysis.memory\nprint(odernn.analysis.memory_function.__module__, analysis.__file__)"
    (tmp_path / "analysis.py").write_text("import odernn\nodernn.analysis.fit_decay")
    for first in ("import analysis\nimport odernn", "import odernn\nodernn.analysis\nimport analysis"):
        ended = python(f"{first}\n{use}", tmp_path)
        assert ended.stdout == f"odernn.analysis.memory {tmp_path.resolve() / 'analysis.py'}\n", ended.stderr


def test_an_analysis_of_ones_own_is_in_nobodys_way_where_ours_is_not_used(tmp_path):
    (tmp_path / "analysis.py").touch()
    assert python("import odernn, analysis", tmp_path).returncode == 0
