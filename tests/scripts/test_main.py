"""The command `odernn`: its commands, and the scripts as doors to the same."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from odernn_commands import command_line
from odernn_commands.main import COMMANDS, main

import odernn

ROOT = Path(__file__).parents[2]


@pytest.fixture
def odernn_command(monkeypatch, capsys):
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["odernn", *arguments])
        code = 0
        try:
            main()
        except SystemExit as exit:
            code = exit.code
        return code, *capsys.readouterr()

    return call


def test_help_lists_every_command_and_the_version_is_that_of_the_package(odernn_command):
    code, out, _ = odernn_command()
    assert code == 0
    assert all(f"\n  {name} " in out for name in COMMANDS)
    assert odernn_command("--version") == (0, f"odernn {odernn.__version__}\n", "")


def test_an_unknown_command_is_one_line(odernn_command):
    assert odernn_command("trian") == (2, "", "odernn: error: unknown command 'trian': did you mean 'train'?\n")
    assert "choose from train, memory" in odernn_command("x" * 100)[2]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="reads TOML")
def test_it_is_installed_by_the_project():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["scripts"] == {"odernn": "odernn_commands.main:main"}


def test_every_script_is_a_door_to_a_command():
    doors = {path.stem for path in (ROOT / "scripts").glob("*.py")}
    assert doors == {module for module, _ in COMMANDS.values() if importlib.util.find_spec(f"odernn_commands.{module}")}


def test_messages_name_the_program_as_it_was_called(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["odernn train", "--resume", "run"])
    assert (command_line.program("train_ode.py"), command_line.called()) == ("odernn train", "odernn train")
    monkeypatch.setattr(sys, "argv", ["scripts/train_ode.py"])
    assert (command_line.program("train_ode.py"), command_line.called()) == ("train_ode.py", "python scripts/train_ode.py")


@pytest.mark.slow
def test_a_command_answers_as_itself(tmp_path):
    code = "import sys; sys.argv = ['odernn', 'train', '--hidden-size', '0']; from odernn_commands.main import main; main()"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "scripts")])}
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stderr.startswith("odernn train: error: --hidden-size is 0, expected")


def test_the_help_has_groups_with_what_is_used_most_first():
    parser = command_line.Parser("x")
    for flag in ("--seed", "--out", "--steps"):
        parser.add_argument(flag, default=None, help="h")
    parser.arrange({"most": ("out",), "search": ("steps",)})
    lines = [line.strip().split(" ")[0] for line in parser.format_help().splitlines() if line.strip()]
    shown = [line for line in lines if line in ("most:", "--out", "search:", "--steps", "--seed")]
    assert shown == ["most:", "--out", "search:", "--steps", "--seed"]
    assert "None" not in parser.format_help()
