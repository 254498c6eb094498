"""Blocks of pages: Python that runs, and below it a block of text with what it prints."""

from __future__ import annotations

import contextlib
import io

from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import CodeBlockParser

_PRINTED = "_printed_by_the_block_before"
_run = PythonEvaluator()


def run(example):
    """Runs a block, and keeps what it prints for the block below."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        _run(example)
    example.namespace[_PRINTED] = printed.getvalue()


def compare(example):
    """What is wrong with a block of text below a block of Python; below others, nothing is compared."""
    printed = example.namespace.pop(_PRINTED, None)
    if printed is None or printed.strip() == example.parsed.strip():
        return None
    return f"the page shows\n{example.parsed}and the block prints\n{printed}"


PARSERS = (CodeBlockParser("python", run), CodeBlockParser("text", compare))
