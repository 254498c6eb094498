"""JSON files that carry a checksum of their content, so that a damaged one is told from a good one before it is used."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from odernn import json_values
from odernn.runs import replace_file
from odernn.seals import Damaged, checksum, opened_json, sealed_json


def write(path: Path, content: Mapping[str, Any], *, indent: int | None = None) -> None:
    """Writes a record with its checksum, atomically."""
    write_text(path, sealed_json(content, indent).decode())


def read(path: Path) -> dict[str, Any]:
    """A record as `write` was given it.

    Raises:
        ValueError: the file was damaged, or not written by `write`; the message is one clause, 'PATH is damaged (why)'.
    """
    try:
        content, sealed = opened_json(path.read_bytes())
    except Damaged as error:
        raise ValueError(f"{path} is damaged (it {error})") from error
    if not sealed:
        raise ValueError(f"{path} is damaged or of an earlier version (it has no checksum)")
    return {name: json_values.decode(value) for name, value in content.items()}


def read_value(path: Path, expected: str | None = None) -> Any:
    """The value of a JSON file.

    Args:
        expected: its `checksum`, kept elsewhere; None takes any content.

    Raises:
        ValueError: the file holds something else than JSON, or another value than `expected` says.
    """
    try:
        value = json_values.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error})") from error
    if expected is not None and checksum(value) != expected:
        raise ValueError(f"{path} is damaged (its checksum does not fit)")
    return value


def write_text(path: Path, text: str) -> None:
    """Writes a file atomically, with the directories above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, text)
