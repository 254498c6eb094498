"""The page of questions quotes messages of the code, word for word."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import odernn

ROOT = Path(odernn.__file__).parents[1]
VARIES = "…"


def messages():
    """Every text in the code, with the parts that vary left open."""
    for room in ("odernn", "analysis", "targets", "scripts"):
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    yield "".join(part.value if isinstance(part, ast.Constant) else VARIES for part in node.values)
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield re.sub(r"%[srd]", VARIES, node.value)


QUOTED = re.findall(r"^### `(.+)`$", (ROOT / "docs" / "questions.md").read_text(encoding="utf-8"), re.MULTILINE)
WRITTEN = sorted({message for message in messages() if " " in message})


def fixed(message):
    """Its parts that do not vary."""
    return [part.strip() for part in message.split(VARIES) if part.strip()]


@pytest.mark.parametrize("quoted", QUOTED)
def test_a_quoted_message_is_one_of_the_code(quoted):
    pattern = re.compile(".*".join(map(re.escape, fixed(quoted.removeprefix("undecided: ")))), re.DOTALL)
    assert any(pattern.search(written) for written in WRITTEN)


def test_messages_are_quoted():
    assert len(QUOTED) > 30
