"""The axes of a sweep: names of settings and their values, given as values or as text.

Text is NAME=VALUES, with VALUES one of

    4,8,16                  values, separated by commas
    polynomial:exponent=1.1,scale=2,exponential     of kernels: 'key=number' goes on with the kernel before it
    0:3, 0:10:2             integers from the first up to, and without, the second, in steps of the third
    1e-4:1e-1:log4          so many numbers from the first to the second, both included, by equal factors
    0:1:lin5                ... by equal distances
    true,false and none     of settings that may be these
"""

from __future__ import annotations

import difflib
import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np

from odernn.experiment import ExperimentConfig
from odernn.seals import fingerprint
from odernn.training import TrainingConfig
from targets.named_objects import resolved

# Set by the experiment itself, or to be given once.
_NOT_SWEPT = ("training", "data_checksum", "solver_chosen")
# More runs than these are a slip of the keyboard.
MOST_RUNS = 10_000
_TRAINING = frozenset(item.name for item in fields(TrainingConfig)) - {"seed"}
SETTINGS = tuple(item.name for kind in (ExperimentConfig, TrainingConfig) for item in fields(kind) if item.name not in _NOT_SWEPT)
_HINTS = {**get_type_hints(TrainingConfig), **get_type_hints(ExperimentConfig)}
_TRUTH = {"true": True, "false": False, "yes": True, "no": False}
_PARAMETER = re.compile(r"\s*[A-Za-z_]\w*\s*=")
_UNSAFE = re.compile(r"[^A-Za-z0-9_.+-]")
# Names of files may have 255 bytes.
_LONGEST_NAME = 180

Axes = dict[str, tuple[Any, ...]]


def read_axes(words: Iterable[str]) -> Axes:
    """The axes that words of a command line name.

    Raises:
        ValueError: a word that is no axis; one line with what was expected.
    """
    axes: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not (equals and name and text):
            raise ValueError(f"--over is {word!r}, expected NAME=VALUES as in hidden_size=4,8,16 or seed=0:3")
        if known(name) in axes:
            raise ValueError(f"--over names {known(name)} twice: give all its values at once, separated by commas")
        axes[known(name)] = text
    return check_axes(axes)


def check_axes(over: Mapping[str, Any]) -> Axes:
    """Axes with their values, each of the type of its setting.

    Args:
        over: name of a setting -> values, or text as above.

    Raises:
        ValueError: unknown settings, no values, values of another type, or the same value twice.
    """
    if not isinstance(over, Mapping) or not over:
        raise ValueError(f"over is {over!r}, expected settings and their values: give for example {{'hidden_size': [4, 8, 16]}}")
    axes: Axes = {}
    for given, values in over.items():
        name = known(given)
        if isinstance(values, str):
            values = parse(name, values)
        elif not isinstance(values, Iterable):
            raise ValueError(f"{name} is {values!r}, expected several values: give a list")
        values = tuple(itertools.islice(values, MOST_RUNS + 1))
        values = tuple(value.item() if isinstance(value, np.generic) else value for value in values)
        values = tuple(_typed(name, value) for value in values)
        if not values:
            raise ValueError(f"{name} has no values: give at least one")
        twice = [value for index, value in enumerate(values) if value in values[:index]]
        if twice:
            raise ValueError(f"{name} has the value {twice[0]!r} twice: leave one out")
        axes[name] = values
    count = math.prod(map(len, axes.values()))
    if count > MOST_RUNS:
        raise ValueError(f"these are {count} runs or more, at most {MOST_RUNS} are taken: give fewer values")
    return axes


def known(name: str) -> str:
    """The setting of a name, which may be spelt as a flag."""
    if isinstance(name, str) and (plain := name.lstrip("-").replace("-", "_")) in SETTINGS:
        return plain
    near = difflib.get_close_matches(str(name).replace("-", "_"), SETTINGS, 1)
    hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(dict.fromkeys(SETTINGS))}"
    raise ValueError(f"{name!r} is no setting that can be varied: {hint}")


def combinations(axes: Axes) -> list[dict[str, Any]]:
    """One setting of every axis, the last axis fastest."""
    return [dict(zip(axes, values)) for values in itertools.product(*axes.values())]


def config_with(config: ExperimentConfig, point: Mapping[str, Any]) -> ExperimentConfig:
    """A config with other settings; the seed is that of the mini-batches, too.

    Raises:
        ValueError: values that are out of range or do not fit together.
    """
    values = config.to_dict()
    for name, value in point.items():
        (values["training"] if name in _TRAINING else values)[name] = value
    if "seed" in point:
        values["training"]["seed"] = point["seed"]
    return ExperimentConfig.from_dict(values)


def directory_name(point: Mapping[str, Any]) -> str:
    """'hidden_size=4,seed=0': the same for the same point whatever else is swept; safe on every file system."""
    parts = []
    for name, value in point.items():
        text = str(value)
        plain = _UNSAFE.sub("_", Path(text).name if "/" in text else text)
        parts.append(f"{name}={plain}" + ("" if plain == text else f"~{fingerprint(text)[:4]}"))
    whole = ",".join(parts)
    return whole if len(whole) <= _LONGEST_NAME else f"{whole[:_LONGEST_NAME]}~{fingerprint(dict(point))[:8]}"


def is_number(values: Sequence[Any]) -> bool:
    return all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)


def _kinds(name: str) -> tuple[Any, ...]:
    hint = _HINTS[name]
    if get_origin(hint) is Literal:
        return (str,)
    return get_args(hint) or (hint,)


def parse(name: str, text: str) -> list[Any]:
    """The values that text gives a setting."""
    kinds = _kinds(name)
    if name == "kernel":
        return _kernels(text)
    if ":" in text and (int in kinds or float in kinds):
        parts = [_range(name, part, kinds) if ":" in part else [_value(name, part)] for part in text.split(",")]
        return [value for part in parts for value in part]
    return [_value(name, part) for part in text.split(",")]


def _kernels(text: str) -> list[str]:
    """Kernels separated by commas; so are the parameters of one, which are told by their 'key=' ."""
    found: list[str] = []
    for part in text.split(","):
        if found and ":" not in part and _PARAMETER.match(part) and ":" in found[-1]:
            found[-1] += f",{part}"
        elif not part.strip():
            raise ValueError(f"kernel={text} has an empty value: leave out the comma")
        else:
            found.append(part)
    return found


def _value(name: str, text: str) -> Any:
    kinds, word = _kinds(name), text.strip()
    if not word:
        raise ValueError(f"{name} has an empty value: leave out the comma")
    if word.lower() == "none" and NoneType in kinds:
        return None
    for kind in kinds:
        try:
            if kind is bool and word.lower() in _TRUTH:
                return _TRUTH[word.lower()]
            if kind in (int, float):
                return kind(word)
            if kind is str:
                return word
        except ValueError:
            continue
    raise ValueError(f"{name} has the value {word!r}, expected {_expected(kinds)}")


def _expected(kinds: tuple[Any, ...]) -> str:
    words = {int: "integers as in 4,8,16 or 0:3", float: "numbers as in 0.1,1 or 1e-4:1e-1:log4"}
    words |= {bool: "true,false", NoneType: "none"}
    return " or ".join(words.get(kind, "text") for kind in kinds)


def _range(name: str, text: str, kinds: tuple[Any, ...]) -> list[Any]:
    whole = int in kinds
    integers = "FIRST:END or FIRST:END:STEP of integers (without END), or " if whole else ""
    wrong = ValueError(f"{name} has the range {text!r}, expected {integers}FIRST:LAST:logN or FIRST:LAST:linN")
    parts = text.split(":")
    spaced = re.fullmatch(r"(log|lin)(\d{1,6})", parts[2].strip()) if len(parts) == 3 else None
    if spaced is None:
        if not whole or len(parts) > 3:
            raise wrong
        try:
            steps = range(*map(int, parts))
        except ValueError:
            raise wrong from None
        if not steps:
            raise ValueError(f"{name} has the range {text!r}, which is empty: END is left out, as in 0:3 for 0, 1, 2")
        return list(steps[: MOST_RUNS + 1])
    try:
        first, last, count = float(parts[0]), float(parts[1]), int(spaced[2])
    except ValueError:
        raise wrong from None
    if count < 2 or count > MOST_RUNS or not (math.isfinite(first) and math.isfinite(last)):
        raise wrong
    if spaced[1] == "log" and not (first > 0 and last > 0):
        raise ValueError(f"{name} has the range {text!r}, expected both ends > 0 for equal factors")
    # 12 digits: 0.001 in place of 0.0010000000000000002.
    numbers = [float(f"{value:.12g}") for value in (np.geomspace if spaced[1] == "log" else np.linspace)(first, last, count)]
    if not whole:
        return numbers
    rounded = [round(value) for value in numbers]
    if len(set(rounded)) < len(rounded):
        raise ValueError(f"{name} has the range {text!r}, which rounds to the same integer twice: ask for fewer")
    return list(rounded)


def _typed(name: str, value: Any) -> Any:
    """A value as its setting takes it, checked by itself; beside the others it is checked with the config."""
    kinds = _kinds(name)
    if value is None and NoneType not in kinds:
        raise ValueError(f"{name} has the value None, expected {_expected(kinds)}")
    if isinstance(value, int) and not isinstance(value, bool) and float in kinds and int not in kinds:
        return float(value)
    if name in ("data", "warm_start") and value is not None:
        return str(Path(value).resolve())
    if name in ("kernel", "model", "activation") and isinstance(value, str):
        return resolved(value)
    return value
