from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def call_main(monkeypatch, capsys):
    """A script without a new interpreter: (name, *arguments) -> (exit code, stdout, stderr)."""
    monkeypatch.syspath_prepend(str(SCRIPTS))

    def call(name, *arguments):
        module = importlib.import_module(name)
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        code = 0
        try:
            module.run(module.PROGRAM, module.main)
        except SystemExit as exit:
            code = exit.code
        return code, *capsys.readouterr()

    return call
