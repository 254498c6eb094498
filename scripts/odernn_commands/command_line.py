"""Shared by the scripts: flags that are checked as they are read, one line for every way to fail, and exit codes.

0: done. 1: failed on the way (a solve diverged, no memory, a full disk, a fault of ours). 2: bad input. 130: interrupted.
Nothing slow is imported here: Ctrl-C is answered from the start.
"""

from __future__ import annotations

import argparse
import errno
import linecache
import math
import os
import re
import reprlib
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TextIO

BAD_INPUT, FAILED, INTERRUPTED = 2, 1, 130
# Set to anything, it shows where an internal error comes from.
TRACEBACK = "ODERNN_TRACEBACK"
# GiB that a script takes unless told otherwise: more would be a slip of the keyboard more often than meant.
MEMORY = 4.0
# Seconds of silence after which a script says that it is at work; then after twice as long, and so on.
_PATIENCE = 30.0
# The ends of a longer value are shown.
_short = reprlib.Repr()
_short.maxstring = 60
# A longer message of a library is cut.
_MESSAGE = 180
# The names that the command line of this process has for its flags, for messages.
_arguments_read: list[str] = []
# Whose errors are answers, wherever they are installed.
_PACKAGES = ("odernn", "analysis", "targets", "odernn_commands")
_WITHOUT_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Shows a default where there is one that the text does not name."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        told = action.default in (None, False) or "default" in (action.help or "")
        return action.help if told else super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """An argument parser that answers bad input with one line and exit code 2.

    Integers must fit into 64 bits, numbers must be finite, and no value may be empty.
    """

    def __init__(self, description: str) -> None:
        super().__init__(description=description, formatter_class=_Help, allow_abbrev=False)
        for kind, reader in ((int, _integer), (float, _number), (Path, _path), (None, _text)):
            self.register("type", kind, reader)

    def error(self, message: str) -> NoReturn:
        fail(self.prog, message, BAD_INPUT)

    def add_max_memory(self, group: Any = None) -> None:
        (group or self).add_argument(
            "--max-memory", type=_positive, default=MEMORY, metavar="GIB", help="memory it may take, GiB"
        )

    def arrange(self, groups: Mapping[str, Sequence[str]]) -> None:
        """Help in these groups, title -> names of arguments, most used first; those of no group stay together behind them."""
        named = {action.dest: action for action in self._actions}
        before = list(self._action_groups)
        for title, names in groups.items():
            group = next((one for one in before if one.title == title), None) or self.add_argument_group(title)
            for name in names:
                for other in self._action_groups:
                    if named[name] in other._group_actions:
                        other._group_actions.remove(named[name])
                group._group_actions.append(named[name])
        order = [one.title for title in groups for one in self._action_groups if one.title == title]
        rest = [one for one in self._action_groups if one.title not in order]
        self._action_groups[:] = [one for title in order for one in self._action_groups if one.title == title] + rest

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        given = [word.partition("=")[0] for word in (sys.argv[1:] if args is None else args)]
        for action in self._actions:
            if len(used := [flag for flag in action.option_strings if flag in given]) > 1 and action.dest != "help":
                self.error(f"{' and '.join(used)} contradict each other: leave one out")
        arguments = super().parse_args(args, namespace)
        _arguments_read[:] = [action.dest for action in self._actions if action.option_strings]
        return arguments


def _integer(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"invalid int value: {_short.repr(text)}, expected an integer") from None
    if not -(2**63) <= value < 2**63:
        raise argparse.ArgumentTypeError(f"invalid int value: {_short.repr(text)}, expected one of at most 64 bits")
    return value


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"invalid float value: {_short.repr(text)}, expected a finite number")
    return value


def _positive(text: str) -> float:
    if not (value := _number(text)) > 0:
        raise argparse.ArgumentTypeError(f"must be positive, got {value:g}")
    return value


def _text(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("an empty value came: leave it out or give one")
    return text


def _path(text: str) -> Path:
    return Path(_text(text))


def program(script: str) -> str:
    """The name of this program in its messages: that of the script, or `odernn train` where it was called so."""
    name = Path(sys.argv[0]).name
    return name if name.startswith("odernn ") else script


def called() -> str:
    """What starts this program again."""
    return sys.argv[0] if sys.argv[0].startswith("odernn ") else f"python {sys.argv[0]}"


def listing(rows: Mapping[str, str]) -> str:
    """Lines of names and values, the values below each other."""
    width = max(map(len, rows))
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in rows.items())


def require_room(out: Path, files: Sequence[str] = (), *, overwrite: bool = False) -> None:
    """Refuses a file in place of the directory --out, and a directory that holds some of these files."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file, expected a directory: choose another")
    held = [name for name in files if (out / name).exists()]
    if held and not overwrite:
        raise ValueError(f"{out} holds {', '.join(held)} already: give --overwrite to replace, or another --out")


def require_memory(needed: float, flags: str, limit: float) -> None:
    """Refuses what must take more memory than `limit` GiB, before it is taken.

    Args:
        needed: bytes, at least.
        flags: what the need comes from.
    """
    if needed > limit * 2**30:
        raise ValueError(
            f"{flags} need at least {needed / 2**30:.3g} GiB, --max-memory allows {limit:g}: ask for less, or raise it"
        )


def limit_memory(limit: float) -> None:
    """From here on the system refuses memory beyond `limit` GiB: an error in one line, in place of a machine that swaps or kills.

    Linux counts the data of a process; elsewhere, and where the driver of a GPU maps far more than it takes, there is no limit.
    """
    import torch  # slow to import, and Ctrl-C must be answered before

    if sys.platform != "linux" or torch.cuda.is_available():
        return
    import resource

    pages = int(Path("/proc/self/statm").read_text().split()[5])
    wanted = pages * resource.getpagesize() + int(min(limit, 2**20) * 2**30)
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


@contextmanager
def _memory_limit_restored() -> Iterator[None]:
    if sys.platform != "linux":
        yield
        return
    import resource

    before = resource.getrlimit(resource.RLIMIT_DATA)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


@contextmanager
def naming(flag: str, word: str = "") -> Iterator[None]:
    """Bad input in this block came by that flag, if its message holds that word: the message says so."""
    try:
        yield
    except ValueError as error:
        if not _is_answer(error) or flag in str(error) or word not in str(error):
            raise
        raise ValueError(f"{flag}: {error}") from error


def _in_flags(message: str) -> str:
    """A message of the library as the command line says it: `hidden_size`, or the hidden size, is --hidden-size here.

    Names of one word are common words, too: they count at the start of a message only.
    """
    for name in _arguments_read:
        spelt = name.replace("_", "[_ ]")
        place = rf"(?<![\w\-.]){spelt}(?![\w\-.=])" if "_" in name else rf"\A{name}(?= (?:must|is|are|holds|has) )"
        message = re.sub(place, f"--{name.replace('_', '-')}", message)
    return message


def fail(program: str, message: str, code: int) -> NoReturn:
    print(f"{program}: error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)


def run(program: str, main: Callable[[], None]) -> None:
    """Runs a script's main. Whatever ends it early is one line on stderr and an exit code, never a traceback.

    A reader that goes away (`| head -1`) is no failure: the script goes on in silence, as its results are files.
    """
    previous, two_lines = _on_interrupt(_Interrupts(program)), warnings.formatwarning
    warnings.formatwarning = lambda message, *_, **__: f"{program}: warning: {' '.join(str(message).split())}\n"
    try:
        outputs = _Output(sys.stdout, "standard output"), _Output(sys.stderr, "standard error")
        with redirect_stdout(outputs[0]), redirect_stderr(outputs[1]), _memory_limit_restored(), _signs_of_life(program):
            _run(program, main)
    finally:
        warnings.formatwarning = two_lines
        _on_interrupt(previous)


def _run(program: str, main: Callable[[], None]) -> None:
    try:
        try:
            with _progress_in_log(program):
                main()
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:
        fail(program, "interrupted", INTERRUPTED)
    except OSError as error:
        _fail_of_system(program, error)
    except Exception as error:
        if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _WITHOUT_MEMORY.search(str(error))):
            asked = re.search(r"allocate (\d+) bytes", str(error))
            reason = f"{int(asked[1]) / 2**30:.3g} GiB more are needed" if asked else str(error) or "there is no more"
            fail(program, f"out of memory ({_clip(reason)}): ask for fewer sequences, points or units{_OR_MORE}", FAILED)
        if isinstance(error, ArithmeticError) and _is_answer(error):
            fail(program, str(error), FAILED)
        if isinstance(error, ValueError) and _is_answer(error):
            fail(program, _in_flags(str(error)), BAD_INPUT)
        if os.environ.get(TRACEBACK):
            traceback.print_exc()
        kind = type(error).__name__
        fail(program, f"internal error ({kind}: {_clip(str(error))}): please report it with this command; {_HOW}", FAILED)


_HOW = f"{TRACEBACK}=1 shows where it comes from"
# A shortage of memory comes as one of several types.
_WITHOUT_MEMORY = re.compile("out of memory|not enough memory|allocate|bad_alloc|Storage size calculation overflowed")
_OR_MORE = ", or raise --max-memory where a script has it"


def _clip(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _MESSAGE else f"{text[:_MESSAGE]}..."


def _fail_of_system(program: str, error: OSError) -> NoReturn:
    """The file first: what the system says of it means little without."""
    reason = error.strerror or str(error)
    place = f"{error.filename}: " if error.filename else ""
    if error.errno in _WITHOUT_ROOM:
        fail(program, f"{place}{reason}: make room or choose another --out, and give the command again", FAILED)
    fail(program, f"{place}{reason}", BAD_INPUT)


def _is_answer(error: BaseException) -> bool:
    """Whether this project raised the error itself, in words meant for a user; any other is a fault of ours."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    if place is None:
        return False
    file, line = place.tb_frame.f_code.co_filename, place.tb_lineno
    ours = place.tb_frame.f_globals.get("__name__", "").partition(".")[0] in _PACKAGES
    source = linecache.getline(file, line, place.tb_frame.f_globals).strip()
    return ours and (not source or source.startswith("raise"))


class _Output:
    """A standard stream. A reader that left is not missed; any other failure to write is named after the stream."""

    def __init__(self, stream: TextIO | None, name: str) -> None:
        self._stream, self._name = stream, name
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]

    def write(self, text: str) -> int:
        self._do(lambda stream: stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._do(lambda stream: stream.flush())

    def _do(self, action: Callable[[TextIO], Any]) -> None:
        if self._stream is None:
            return
        try:
            action(self._stream)
        except OSError as error:
            # What is still in its buffer goes nowhere, now and when Python ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            if not isinstance(error, BrokenPipeError):
                raise OSError(error.errno, error.strerror, self._name) from error

    def __getattr__(self, name: str) -> Any:
        if self._stream is None and name == "isatty":
            return lambda: False
        return getattr(self._stream, name)


class _Interrupts:
    """Ctrl-C: the first lets the script put its things in order, the second ends it at once."""

    def __init__(self, program: str) -> None:
        self.program, self.seen = program, 0

    def __call__(self, _signal: int, _frame: FrameType | None) -> None:
        self.seen += 1
        if self.seen == 1:
            raise KeyboardInterrupt
        # Files are written atomically, so nothing is torn.
        os.write(2, f"{self.program}: error: interrupted again, ended at once\n".encode())
        os._exit(INTERRUPTED)


def _on_interrupt(handler: Any) -> Any:
    """Sets the handler of Ctrl-C; returns the one before. Signals are for the main thread only."""
    return signal.signal(signal.SIGINT, handler) if threading.current_thread() is threading.main_thread() else None


@contextmanager
def _signs_of_life(program: str) -> Iterator[None]:
    """Says on stderr, ever less often, that a long computation is one."""
    done = threading.Event()
    started = time.monotonic()

    def say() -> None:
        from tqdm import tqdm

        from odernn.progress import Progress

        wait = _PATIENCE
        while not done.wait(wait):
            if time.monotonic() - Progress.said < wait:
                continue
            # Above a progress bar, where there is one.
            tqdm.write(f"{program}: at work for {time.monotonic() - started:.0f} s", file=sys.stderr)
            wait *= 2

    threading.Thread(target=say, name="signs of life", daemon=True).start()
    try:
        yield
    finally:
        done.set()


@contextmanager
def _progress_in_log(program: str) -> Iterator[None]:
    """Long computations say where they are, every few seconds, where stderr is no terminal."""
    from odernn.progress import Progress

    Progress.program = program
    try:
        yield
    finally:
        Progress.program = None


def _interrupted_import(_signal: int, _frame: FrameType | None) -> None:
    os.write(2, f"{Path(sys.argv[0]).name}: error: interrupted\n".encode())
    os._exit(INTERRUPTED)


@contextmanager
def starting() -> Iterator[None]:
    """Until a command runs, Ctrl-C ends its imports; a package that hides ours is one line."""
    previous = _on_interrupt(_interrupted_import)
    try:
        yield
    except ImportError as problem:
        fail(Path(sys.argv[0]).name, str(problem), BAD_INPUT)
    finally:
        _on_interrupt(previous)
