"""Seals: checksums kept inside the files they belong to, verified before a file is used.

A weights file (.pt) carries its seal as the comment at the end of its zip archive, so that `torch.load` reads it as any other:

    odernn of=<what the weights belong to> sha256=<of every byte before>

A JSON file carries it as its entry "sha256", of the other entries in a fixed notation: another layout of the same values is the
same file.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import sys
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import torch

from . import json_values

_JSON_SEAL = "sha256"
# A zip archive ends in its end record, whose last two bytes count those of the comment after it.
_END_RECORD, _END_RECORD_SIZE, _LENGTH_SIZE = b"PK\x05\x06", 22, 2
_NOBODY = "-" * 16
_SEAL = re.compile(rb"odernn of=([0-9a-f]{16}|-{16}) sha256=([0-9a-f]{64})")
_SEAL_SIZE = len(b"odernn of= sha256=") + 16 + 64


class Damaged(ValueError):
    """A file that is not what was written: what is wrong with it, as the end of a sentence."""


def checksum(value: Any) -> str:
    """sha256 of a value as JSON has it: spaces and the order of keys do not count.

    Raises:
        TypeError: a value that JSON does not know.
    """
    text = json.dumps(json_values.encode(value), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def fingerprint(value: Any) -> str:
    """16 digits that stand for a value as JSON has it."""
    return checksum(value)[:16]


def sealed_weights(state: dict[str, Any], of: str | None = None) -> bytes:
    """The bytes of a .pt file with its seal; the same state gives the same bytes.

    Args:
        state: tensors and JSON values.
        of: fingerprint of what they belong to.
    """
    buffer = io.BytesIO()
    torch.save(_plain(state), buffer)
    archive = buffer.getvalue()
    body = archive[:-_LENGTH_SIZE] + _SEAL_SIZE.to_bytes(_LENGTH_SIZE, "little") + f"odernn of={of or _NOBODY} sha256=".encode()
    return body + hashlib.sha256(body).hexdigest().encode()


def opened_weights(content: bytes) -> tuple[Any, str | None, bool]:
    """The inverse of `sealed_weights`: the state, the fingerprint of what it belongs to, and whether the file had a seal.

    A file without one, as torch.save writes it, is judged by the checksums of its archive, which miss few damages, not all.

    Raises:
        Damaged: anything else than was written.
    """
    end = content[-_END_RECORD_SIZE:]
    if end.startswith(_END_RECORD) and end.endswith(bytes(_LENGTH_SIZE)):
        _require_intact_archive(content)
        return _load(content), None, False
    seal = _SEAL.fullmatch(content[-_SEAL_SIZE:])
    if seal is None:
        raise Damaged("is truncated or not a checkpoint")
    of, digest = (group.decode() for group in seal.groups())
    if hashlib.sha256(content[: -len(digest)]).hexdigest() != digest:
        raise Damaged("is damaged (its checksum does not hold)")
    return _load(content), None if of == _NOBODY else of, True


def sealed_json(values: Mapping[str, Any], indent: int | None = 2) -> bytes:
    """The bytes of a JSON file with its seal."""
    return (json_values.dumps({**values, _JSON_SEAL: checksum(values)}, indent=indent) + "\n").encode()


def opened_json(content: bytes) -> tuple[dict[str, Any], bool]:
    """The inverse of `sealed_json`: the values, and whether the file had a seal.

    Raises:
        Damaged: no JSON object, or other values than were sealed.
    """
    try:
        values = json.loads(content, parse_constant=json_values.refuse, object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"is not valid JSON ({error})") from error
    if not isinstance(values, dict):
        raise Damaged(f"holds a {type(values).__name__}, expected a JSON object")
    seal = values.pop(_JSON_SEAL, None)
    if seal is not None and seal != checksum(values):
        raise Damaged("was changed since it was written")
    return values, seal is not None


def _plain(value: Any) -> Any:
    """A copy in which no two parts but equal texts are one object: pickle writes a part that it met before as a reference."""
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(_plain, value))
    return sys.intern(value) if isinstance(value, str) else value


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a key stands there twice")
    return values


def _require_intact_archive(content: bytes) -> None:
    damaged = "is truncated or damaged (its archive's checksums do not hold)"
    if _failure(lambda: zipfile.ZipFile(io.BytesIO(content)).testzip()) is not None:
        raise Damaged(damaged)


def _load(content: bytes) -> Any:
    state: list[Any] = []
    failure = _failure(lambda: state.append(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)))
    if failure is not None:
        raise Damaged(f"is not a checkpoint ({failure})")
    return state[0]


def _failure(read: Callable[[], Any]) -> Any:
    """The answer of a reader, or the name of the error it raised: parsers of a damaged file raise any of them."""
    try:
        return read()
    except Exception as error:
        return type(error).__name__
