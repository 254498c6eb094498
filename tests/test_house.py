"""The rooms of the house: imports go one way and in no circle, and files are short."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import odernn

ROOT = Path(odernn.__file__).parents[1]
# Each room may import the rooms after it.
ROOMS = ("scripts", "analysis", "odernn", "targets")
SOURCES = {path.relative_to(ROOT): path.read_text() for room in ROOMS for path in (ROOT / room).rglob("*.py")}
MODULES = {".".join(path.with_suffix("").parts).removesuffix(".__init__").removeprefix("scripts."): path for path in SOURCES}
LONGEST = 450


def imports(module, tree):
    """The modules of this project that the statements of a tree import, those within functions included; not those for types."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom):
            package = module.split(".") if MODULES[module].name == "__init__.py" else module.split(".")[:-1]
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            names = {f"{source}.{alias.name}" for alias in node.names}
            yield from (names & MODULES.keys()) or {source} & MODULES.keys()
        else:
            yield from imports(module, node)


IMPORTS = {module: set(imports(module, ast.parse(SOURCES[path]))) - {module} for module, path in MODULES.items()}


def room(module):
    return ROOMS.index(MODULES[module].parts[0])


def test_imports_go_one_way_between_rooms():
    assert [f"{module} imports {name}" for module, names in IMPORTS.items() for name in names if room(name) < room(module)] == []


def test_modules_import_each_other_in_no_circle():
    waiting = dict(IMPORTS)
    while free := [module for module, names in waiting.items() if not names & waiting.keys()]:
        for module in free:
            del waiting[module]
    assert not waiting


def test_docstrings_cite_files_that_are_there():
    there = {path.name for path in ROOT.rglob("*.*") if ".git" not in path.parts}
    cited = {
        (str(path), name)
        for path, text in SOURCES.items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        for name in re.findall(r"[\w-]+\.(?:md|py)\b", ast.get_docstring(node) or "")
    }
    # Files of the user's own, in examples.
    examples = {"file.py", "decay_fits.py", "fig_13.py"}
    assert sorted((path, name) for path, name in cited if name not in there | examples) == []


def test_no_file_is_long():
    assert [str(path) for path, text in SOURCES.items() if len(text.splitlines()) > LONGEST] == []
