"""What the README and the pages show runs: blocks of Python from the top of a page to its end; of commands, their flags."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

import matplotlib as mpl
import pytest
from odernn_commands.main import COMMANDS
from shown_output import PARSERS
from sybil import Sybil
from sybil.parsers.markdown import SkipParser

import odernn

ROOT = Path(odernn.__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *(path for path in sorted((ROOT / "docs").rglob("*.md")) if not {"notebooks", "gallery", "inventories"} & set(path.parts)),
]
NAMES = [str(path.relative_to(ROOT)) for path in PAGES]
# A block after <!-- skip: next --> is shown and not run.
SYBIL = Sybil(parsers=[*PARSERS, SkipParser()], path=str(ROOT), patterns=["*.md"])
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
SHELLS = {"", "bash", "sh", "console"}
# Lines that begin with a command; of a console those behind its prompt, the others are its answers.
CALL = re.compile(r"^(?:\$ )?((?:python|odernn|pip) .+)$", flags=re.MULTILINE)
RECORDINGS = "sequence,t,x,y\n" + "".join(f"{n},{k},{k % 3},{k}\n" for n in range(8) for k in range(6))
MODULES = {module: module for module, _ in COMMANDS.values()} | {name: module for name, (module, _) in COMMANDS.items()}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of a user's own, with the data that pages speak of."""
    monkeypatch.chdir(tmp_path)
    mpl.use("agg")
    (tmp_path / "recordings.csv").write_text(RECORDINGS)


def has_python(path):
    return re.search(r"^```python$", path.read_text(encoding="utf-8"), flags=re.MULTILINE) is not None


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, path in zip(NAMES, PAGES) if has_python(path)])
def test_python_on_pages_runs(name, folder):
    document = SYBIL.parse(ROOT / name)
    for example in document.examples():
        example.evaluate()


def commands():
    """(command, its words) of every line that calls a command of ours, in blocks of a shell or without a language."""
    for name, path in zip(NAMES, PAGES):
        blocks = [block for language, block in FENCE.findall(path.read_text(encoding="utf-8")) if language in SHELLS]
        for line in CALL.findall("\n".join(blocks).replace("\\\n", " ")):
            for part in line.split("&&"):
                words = shlex.split(part, comments=True)
                if words[:1] == ["python"] and re.fullmatch(r"scripts/\w+\.py", words[1]):
                    yield pytest.param(Path(words[1]).stem, words[2:], id=f"{name}: {part.strip()}")
                elif words[:1] == ["odernn"] and not words[1].startswith("-"):
                    yield pytest.param(words[1], words[2:], id=f"{name}: {part.strip()}")


@pytest.mark.parametrize(("command", "words"), list(commands()))
def test_commands_on_pages_have_these_flags(command, words):
    module = importlib.import_module(f"odernn_commands.{MODULES[command]}")
    _, rest = module.parser().parse_known_args(words)
    if rest:
        # A sweep passes what it does not know on to its trainings.
        assert MODULES[command] == "sweep"
        importlib.import_module("odernn_commands.train_ode").parser().parse_args(rest)
