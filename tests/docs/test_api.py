"""Every public name has an entry in the API, and a docstring that says what a user needs; the examples run."""

from __future__ import annotations

import doctest
import importlib
import inspect
import re
from pathlib import Path

import matplotlib as mpl
import pytest

import analysis
import odernn
import targets

API = Path(odernn.__file__).parents[1] / "docs" / "api"
PAGES = {page.name: page.read_text(encoding="utf-8") for page in sorted(API.glob("*.rst"))}
PACKAGES = {package.__name__: package for package in (targets, odernn, analysis)}
PUBLIC = {f"{place}.{name}": getattr(package, name) for place, package in PACKAGES.items() for name in package.__all__}
CALLABLE = {name: value for name, value in PUBLIC.items() if inspect.isclass(value) or inspect.isroutine(value)}
# Modules whose functions have entries of their own.
OPEN = {"targets.functionals", "targets.kernels", "targets.inputs", "targets.quadrature"}


def entries():
    """The full names of all entries: the lines of each autosummary, and data."""
    found = set()
    for text in PAGES.values():
        module, listing = "", False
        for line in text.splitlines():
            if line.strip() and not line.startswith(" "):
                listing = line == ".. autosummary::"
            if match := re.match(r"\.\. currentmodule:: (\w+)", line):
                module = match[1] + "."
            elif (match := re.match(r"(   (?=\w)|\.\. py:data:: )([\w.]+)$", line)) and (listing or match[1].strip()):
                found.add(match[2] if match[2].split(".")[0] in PACKAGES else module + match[2])
    return found


def resolve(name):
    """The object of a full name, in whichever module it stands."""
    for cut in range(name.count("."), 0, -1):
        parts = name.split(".")
        try:
            value = importlib.import_module(".".join(parts[:cut]))
            for part in parts[cut:]:
                value = getattr(value, part)
        except (ImportError, AttributeError):
            continue
        return value
    raise AssertionError(f"{name} has an entry and is not there")


ENTRIES = {name: resolve(name) for name in sorted(entries())}


def test_every_public_name_has_an_entry():
    assert sorted(PUBLIC.keys() - OPEN - ENTRIES.keys()) == []


def test_docstrings_begin_with_one_line_or_paragraph_and_have_an_example():
    short = [name for name, value in CALLABLE.items() if not (value.__doc__ or "").strip()]
    without = [name for name, value in CALLABLE.items() if ">>>" not in (inspect.getdoc(value) or "")]
    shown = "".join(PAGES.values())
    assert short == []
    assert [name for name in without if not re.search(rf">>> .*\b{name.rpartition('.')[2]}\b", shown)] == []


def test_functions_say_what_they_take():
    """Arguments that the first paragraph does not name stand under Args."""

    def silent(function):
        text = inspect.getdoc(function) or ""
        names = [name for name in inspect.signature(function).parameters if name not in ("self", "args", "kwargs")]
        return [name for name in names if not re.search(rf"\b{name}\b", text)]

    functions = {name: value for name, value in ENTRIES.items() if inspect.isfunction(value)}
    # Of `get` the parameters are those of the kernel.
    assert {name: silent(value) for name, value in functions.items() if silent(value)} == {}


def examples():
    """Docstrings of entries, each once."""
    seen = {}
    for name, value in ENTRIES.items():
        if inspect.isclass(value) or inspect.isroutine(value) or inspect.ismodule(value):
            seen.setdefault((inspect.getdoc(value) or "", getattr(value, "__qualname__", name)), name)
    return [pytest.param(text, id=name) for (text, _), name in seen.items() if ">>>" in text]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Examples write where they are."""
    monkeypatch.chdir(tmp_path)
    mpl.use("agg")


def run(text, name):
    test = doctest.DocTestParser().get_doctest(text, {}, name, name, 0)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS, verbose=False)
    written = []
    runner.run(test, out=written.append)
    assert runner.failures == 0, "".join(written)


@pytest.mark.parametrize("text", examples())
def test_examples_in_docstrings_run(text, folder, request):
    run(text, request.node.name)


@pytest.mark.parametrize("page", [name for name, text in PAGES.items() if ">>>" in text])
def test_examples_on_pages_run(page, folder):
    run(PAGES[page], page)
