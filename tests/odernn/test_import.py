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


@pytest.mark.parametrize("file", ["targets.py", "targets/__init__.py"])
@pytest.mark.parametrize("first", ["odernn", "analysis"])
def test_a_package_of_ones_own_that_hides_ours_is_named_and_not_run(tmp_path, file, first):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text("raise SystemExit('this ran')")
    ended = python(f"import {first}", tmp_path)
    last = ended.stderr.splitlines()[-1]
    hiding = tmp_path / file if file.endswith("s.py") else tmp_path / "targets"
    assert last.startswith(
        f"ImportError: {hiding.resolve()} hides the package 'targets' that comes with odernn ({ROOT / 'targets'})"
    )


def test_a_module_of_ones_own_that_imports_odernn_itself_is_named(tmp_path):
    (tmp_path / "targets.py").write_text("import odernn")
    assert f"ImportError: {(tmp_path / 'targets.py').resolve()} hides" in python("import targets", tmp_path).stderr


def test_a_script_beside_a_folder_that_hides_ours_says_so_wherever_it_is_started(tmp_path):
    (tmp_path / "targets").mkdir()
    (tmp_path / "targets" / "__init__.py").touch()
    (tmp_path / "mine.py").write_text("import odernn")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(tmp_path / "mine.py")]
    ended = subprocess.run(command, cwd=tmp_path.parent, env=environment, capture_output=True, text=True)
    assert f"ImportError: {(tmp_path / 'targets').resolve()} hides" in ended.stderr


def test_a_test_beside_a_folder_that_hides_ours_says_so(tmp_path):
    (tmp_path / "targets").mkdir()
    (tmp_path / "targets" / "__init__.py").touch()
    (tmp_path / "test_mine.py").write_text("import odernn")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(tmp_path)]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert f"ImportError: {(tmp_path / 'targets').resolve()} hides" in ended.stdout


@pytest.mark.slow
def test_a_folder_without_code_hides_ours_only_from_an_editable_installation(tmp_path):
    for name in ("targets", "analysis"):
        (tmp_path / name).mkdir()
    assert python("import odernn, analysis", tmp_path).returncode == 0
    ended = python(f"{EDITABLE}\nimport odernn", tmp_path, path=())
    assert f"ImportError: {(tmp_path / 'targets').resolve()} hides" in ended.stderr
    (tmp_path / "targets").rmdir()
    assert python(f"{EDITABLE}\nimport odernn", tmp_path, path=()).returncode == 0


def test_an_analysis_of_ones_own_is_in_nobodys_way_where_ours_is_not_used(tmp_path):
    (tmp_path / "analysis.py").touch()
    assert python("import odernn, analysis", tmp_path).returncode == 0
