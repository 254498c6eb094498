"""How far a long computation has come: a bar on a terminal, a line every few seconds in the log of a command, else nothing."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, ClassVar

# Seconds before anything is shown: what is quick is silent. Then, in a log, a line at most this often.
_QUICK, _EVERY = 2.0, 5.0
# And a bar for a remark.
_REDRAW = 0.2


class Progress:
    """Work that is done of work to do. One at a time is shown: within another one, it is the other's remark.

    Args:
        what: what is computed.
        total: how much there is to do, at most.
        unit: of it, in the plural.
        shown: whether to show it at all.
        done: how much of it was done before.
    """

    # The program whose log gets lines; None from Python, where nothing is printed but on a terminal.
    program: ClassVar[str | None] = None
    # When a line was last written, on the clock of time.monotonic.
    said: ClassVar[float] = 0.0
    _open: ClassVar[list[Progress]] = []

    def __init__(self, what: str, total: int, unit: str, *, shown: bool = True, done: int = 0) -> None:
        self.what, self.total, self.unit, self.shown = what, total, unit, shown
        self.done = self._before = done
        self._bar: Any = None

    def __enter__(self) -> Progress:
        self._started = self._last = time.monotonic()
        first = not self._open
        self._open.append(self)
        if first and self.shown and sys.stderr is not None and sys.stderr.isatty():
            from tqdm import tqdm

            layout = "{desc}: {n_fmt} of {total_fmt} {unit} |{bar}| {elapsed}, about {remaining} left{postfix}"
            options: dict[str, Any] = {"desc": self.what, "unit": self.unit, "dynamic_ncols": True, "delay": _QUICK}
            self._bar = tqdm(total=self.total, initial=self.done, bar_format=layout, **options)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._open.remove(self)
        if self._bar is not None:
            self._bar.close()

    def advance(self, count: int = 1, remark: str = "") -> None:
        """So much more is done; `remark` is what it came to."""
        self.done += count
        if self._open and self._open[0] is not self:
            first = self._open[0]
            first._show(f"{self.what} {self.done} of {self.total} {self.unit}", 0)
        else:
            self._show(remark, count)

    def _show(self, remark: str, count: int) -> None:
        now = time.monotonic()
        if self._bar is not None:
            self._bar.set_postfix_str(remark, refresh=False)
            self._bar.update(count)
            if not count and now - self._started > _QUICK and now - self._last > _REDRAW:
                self._last = now
                self._bar.refresh()
            return
        if not self.shown or self.program is None or now - self._last < (_EVERY if self._last > self._started else _QUICK):
            return
        self._last = Progress.said = now
        taken = now - self._started
        made = self.done - self._before
        left = f", about {_duration(taken * (self.total - self.done) / made)} left" if made > 0 and self.done < self.total else ""
        text = f"{self.what}: {self.done} of {self.total} {self.unit}" + (f", {remark}" if remark else "")
        print(f"{self.program}: {text}; {_duration(taken)}{left}", file=sys.stderr, flush=True)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
