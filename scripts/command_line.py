"""What the scripts share: one-line errors, and exit codes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import NoReturn

from odernn import DivergedSolve

BAD_INPUT, FAILED, INTERRUPTED = 2, 1, 130


class Parser(argparse.ArgumentParser):
    """An argument parser that answers bad input with one line and exit code 2."""

    def __init__(self, description: str) -> None:
        super().__init__(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        fail(self.prog, message, BAD_INPUT)


def fail(program: str, message: str, code: int) -> NoReturn:
    print(f"{program}: error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)


def run(program: str, main: Callable[[], None]) -> None:
    """Runs a script's main: bad input ends it with one line and code 2, a solve that diverged with one line and code 1."""
    try:
        main()
    except (ValueError, OSError) as error:
        fail(program, str(error), BAD_INPUT)
    except DivergedSolve as error:
        fail(program, str(error), FAILED)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        fail(program, f"out of memory ({str(error).splitlines()[0]}): ask for fewer sequences, points or units", FAILED)
    except KeyboardInterrupt:
        fail(program, "interrupted", INTERRUPTED)
