from __future__ import annotations

import pytest

from odernn import progress
from odernn.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that is moved by hand."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(Progress, "program", "odernn train")
    return now


def test_a_log_gets_a_line_every_few_seconds_with_what_is_left(clock, capsys):
    with Progress("training", 20, "epochs", done=10) as one:
        for _ in range(10):
            clock[0] += 1.5
            one.advance(remark="loss 0.1")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "odernn train: training: 12 of 20 epochs, loss 0.1; 3 s, about 12 s left"
    assert len(lines) == 3


def test_what_is_quick_or_not_of_a_command_is_silent(clock, capsys, monkeypatch):
    with Progress("training", 2, "epochs") as one:
        clock[0] += 1.0
        one.advance(2)
    monkeypatch.setattr(Progress, "program", None)
    with Progress("training", 2, "epochs") as one:
        clock[0] += 100.0
        one.advance(2)
    assert capsys.readouterr() == ("", "")


def test_one_within_another_is_its_remark(clock, capsys):
    with Progress("family", 2, "widths") as outer, Progress("training", 5, "epochs") as inner:
        clock[0] += 10.0
        inner.advance()
        clock[0] += 10.0
        outer.advance(remark="width 2")
    assert capsys.readouterr().err.splitlines() == [
        "odernn train: family: 0 of 2 widths, training 1 of 5 epochs; 10 s",
        "odernn train: family: 1 of 2 widths, width 2; 20 s, about 20 s left",
    ]
    with Progress("family", 2, "widths", shown=False), Progress("training", 5, "epochs") as inner:
        clock[0] += 10.0
        inner.advance()
    assert capsys.readouterr().err == ""


def test_an_error_closes_it():
    with pytest.raises(RuntimeError), Progress("family", 2, "widths"):
        raise RuntimeError
    assert Progress._open == []
