from __future__ import annotations

import importlib
import sys

import pytest
from odernn_commands.command_line import run


@pytest.fixture
def call_main(monkeypatch, capsys):
    """A script without a new interpreter: (name, *arguments) -> (exit code, stdout, stderr)."""

    def call(name, *arguments):
        module = importlib.import_module(f"odernn_commands.{name}")
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        code = 0
        try:
            run(module.PROGRAM, module.main)
        except SystemExit as exit:
            code = exit.code
        return code, *capsys.readouterr()

    return call
