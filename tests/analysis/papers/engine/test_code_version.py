from __future__ import annotations

import pytest

from analysis.papers.engine.code_version import code_version, source_files


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
    sources = set(source_files("analysis.papers.compute.linear_families"))
    assert {"analysis.linear.fits", "odernn.solvers.exact", "odernn.solvers.numba.backend", "targets.kernels"} <= sources
    assert not {"analysis.plotting", "analysis.perturbation.picture", "analysis.papers.engine.figure"} & sources


def test_the_code_version_ignores_where_definitions_stand(package):
    """The module is split and its parts renamed, their statements stay what they are."""
    value = "def value():\n    return FACTOR * half()\n"
    (package / "used.py").write_text(f"FACTOR = 2\n\n\ndef half():\n    return 0.5\n\n\n{value}")
    before = version(package)
    (package / "used.py").unlink()
    (package / "parts.py").write_text("def half():\n    return 0.5\n\n\nFACTOR = 2\n")
    (package / "whole.py").write_text(f"from .parts import FACTOR, half\n\n\n{value}")
    (package / "toy.py").write_text((package / "toy.py").read_text().replace("from .used import", "from .whole import"))
    assert version(package) == before


@pytest.mark.parametrize(
    ("body", "first", "second"),
    [
        ("return value()", "from .one import value", "from .two import value"),
        ("return module.value()", "from . import one as module", "from . import two as module"),
        ("return value()", "from .one import value", "from .two import other as value"),
    ],
)
def test_the_code_version_tells_which_of_two_definitions_a_name_stands_for(package, body, first, second):
    """All statements are the same: what differs is the import."""
    (package / "one.py").write_text("def value():\n    return 1\n")
    (package / "two.py").write_text("def value():\n    return 2\n\n\ndef other():\n    return 3\n")
    seen = []
    for line in (first, second):
        text = f"from . import one as a, two as b\n{line}\n\n\ndef compute():\n    {body}\n"
        (package / "toy.py").write_text(text)
        seen.append(version(package))
    assert seen[0] != seen[1]


def test_a_constant_that_goes_by_the_same_name_elsewhere_is_another(package):
    """A function moved to a module whose constant of that name differs computes something else."""
    function = "def value():\n    return TOLERANCE\n"
    modules = {"used": "TOLERANCE = 1\n\n\ndef one():\n    return TOLERANCE\n", "also": "TOLERANCE = 2\n"}
    seen = []
    for home in modules:
        for module, text in modules.items():
            (package / f"{module}.py").write_text(text + (f"\n\n{function}" if module == home else ""))
        imports = f"from .{home} import value\nfrom . import used, also\n"
        (package / "toy.py").write_text(f"{imports}\n\ndef compute():\n    return value()\n")
        seen.append(version(package))
    assert seen[0] != seen[1]


SYNTAX = '''
from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Point:
    """A class."""

    x: float = 1e-3
    name: str | None = None

    def moved(self, *by: int, scale: complex = 2j, **more: bytes) -> Point:
        match by:
            case (first, *rest) if first > 0:
                return Point(first, f"{self.name!r:>{len(rest)}} {self.x=:.3f} über {{}} and" "so on")
            case None | True:
                pass
        with open("a") as one, open("b") as two:
            del one, two
        return [y for y in by if (z := y) and not ...] or (lambda a, /, b=1, *, c: -a ** b)(1, c={**more})


async def wait(x=u"text"):
    async for _ in x:
        try:
            yield await x
        except (ValueError, OSError) as error:
            raise KeyError from error
        finally:
            global COUNT
            COUNT += x[1:, ..., ::2] @ x
'''


def test_the_code_version_is_the_same_in_all_versions_of_python(package):
    (package / "toy.py").write_text(SYNTAX)
    assert version(package) == "87e2b8429f04c227"


def test_the_engine_is_no_part_of_what_it_runs(package):
    (package / "toy.py").write_text(
        "from analysis.papers.engine.figure import job\n\n\n@job('one')\ndef compute():\n    return 1\n"
    )
    assert set(source_files(f"{package.name}.toy")) == {f"{package.name}.toy"}
