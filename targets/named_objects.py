"""Objects by name: 'package.module:attribute' or 'path/to/file.py:attribute'."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from targets import arguments


def named_object(spec: str, names: Iterable[str] = (), constructs: Callable[[Any], bool] | None = None) -> Any:
    """The object of that name; a function or class that needs no arguments is called, and gives it.

    Importing the module or file runs it: take such a name from nobody who is not trusted.

    Args:
        spec: "package.module:attribute" or "path/to/file.py:attribute".
        constructs: whether a function or class is one to be called; None for all that need no arguments.
        names: short names that the caller takes as well, for the message where there is no such module.

    Raises:
        ValueError: no such file, module or attribute, or it fails to run.
    """
    arguments.instance("spec", spec, str, "give 'module:function' or 'file.py:function'")
    location, _, attribute = spec.rpartition(":")
    if not location or not attribute:
        raise ValueError(f"{spec!r} names nothing, expected module:function or file.py:function")
    module = _module(location, names)
    if not hasattr(module, attribute):
        raise ValueError(f"{location} has no attribute {attribute!r}, expected one of that name; define it there")
    found = getattr(module, attribute)
    # A module of torch or an instance with __call__ is what it is; only functions and classes make something.
    makes = inspect.isroutine(found) or inspect.isclass(found)
    if makes and (constructs is None or constructs(found)) and _takes_nothing(found):
        try:
            found = found()
        except (Exception, SystemExit) as error:
            raise ValueError(f"{spec} failed ({type(error).__name__}: {error}); repair it") from error
    return found


def is_code(spec: str) -> bool:
    """Whether a text that may be a plain name is the name of code."""
    return ":" in spec


def bare(spec: str) -> str:
    """The name without the folders of its file: what stays where the file moves."""
    location, colon, attribute = spec.rpartition(":")
    return f"{Path(location).name}{colon}{attribute}"


def resolved(spec: str) -> str:
    """The name from any working directory."""
    location, colon, attribute = spec.rpartition(":")
    return f"{Path(location).resolve()}{colon}{attribute}" if location.endswith(".py") else spec


def _module(location: str, names: Iterable[str]) -> ModuleType:
    """The module of a dotted name, searched from the working directory too, or of a .py file."""
    path = Path(location)
    if path.suffix == ".py" and not path.is_file():
        raise ValueError(f"there is no file {location}, expected a Python file; check the path")
    try:
        if path.suffix != ".py":
            if os.getcwd() not in sys.path:
                sys.path.append(os.getcwd())
            return importlib.import_module(location)
        # A name of its own, so that a file called json.py takes no other module's place.
        name = f"_given_{path.stem}"
        specification = importlib.util.spec_from_file_location(name, path)
        assert specification is not None  # always so for an existing .py file
        assert specification.loader is not None
        module = importlib.util.module_from_spec(specification)
        sys.modules[name] = module  # dataclasses look their module up there while it is being executed
        specification.loader.exec_module(module)
        return module
    except (Exception, SystemExit) as error:
        expected = f"one of {', '.join(names)}, an importable module, or" if names else "an importable module or"
        raise ValueError(
            f"{location} could not be loaded ({type(error).__name__}: {error}); expected {expected} a path ending in .py"
        ) from error


def _takes_nothing(f: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(f).parameters.values()
    except (TypeError, ValueError):  # numpy's ufuncs have no signature; they take times
        return False
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return not any(parameter.default is parameter.empty and parameter.kind not in kinds for parameter in parameters)
