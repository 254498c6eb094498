"""A damaged file of a run is refused in one line, or makes no difference."""

from __future__ import annotations

import json
import random
import shutil
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from odernn.experiment import Experiment, ExperimentConfig, load_run, read_config
from odernn.runs import BEST, CHECKPOINT, CONFIG, METRICS, SUMMARY, RunDirectory
from odernn.training import TrainingConfig, trainer

from . import children
from .campaign import Outcomes

FILES = (CONFIG, CHECKPOINT, BEST, METRICS, SUMMARY)


def bit(content: bytes, draw: random.Random, _other: bytes) -> bytes:
    place = draw.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << draw.randrange(8)]) + content[place + 1 :]


def byte(content: bytes, draw: random.Random, _other: bytes) -> bytes:
    place = draw.randrange(len(content))
    return content[:place] + bytes([(content[place] + draw.randint(1, 255)) % 256]) + content[place + 1 :]


def digit(content: bytes, draw: random.Random, _other: bytes) -> bytes:
    """Another digit, the damage that a text file does not show."""
    place = draw.choice([index for index, value in enumerate(content) if chr(value).isdigit()])
    other = draw.choice([value for value in b"0123456789" if value != content[place]])
    return content[:place] + bytes([other]) + content[place + 1 :]


def truncation(content: bytes, draw: random.Random, _other: bytes) -> bytes:
    return content[: draw.randrange(len(content))]


def lost_byte(content: bytes, draw: random.Random, _other: bytes) -> bytes:
    place = draw.randrange(len(content))
    return content[:place] + content[place + 1 :]


def zeros(content: bytes, draw: random.Random, _other: bytes) -> bytes:
    """A block that never reached the disk."""
    place, size = draw.randrange(len(content)), draw.choice([16, 512, 4096])
    return content[:place] + bytes(len(content[place : place + size])) + content[place + size :]


def of_another_run(_content: bytes, _draw: random.Random, other: bytes) -> bytes:
    return other


KINDS: tuple[Callable[[bytes, random.Random, bytes], bytes], ...] = (
    bit,
    byte,
    digit,
    truncation,
    lost_byte,
    zeros,
    of_another_run,
)


class Flips:
    name = "flips"
    full, short = 500, 5

    def run(self, seed: int, size: int) -> Outcomes:
        outcomes, draw = Outcomes(), random.Random(seed)
        clock, trainer.time = trainer.time, type("StandingClock", (), {"perf_counter": staticmethod(lambda: 0.0)})  # type: ignore[assignment]
        try:
            with children.scratch() as scratch:
                for kind in KINDS:
                    for number in range(size):
                        optimizer = draw.choice(["lbfgs", "adam"])
                        name = FILES[number % len(FILES)]
                        # A run of another seed, or of another learning rate alone.
                        settings: Any = draw.choice([{"seed": 1}, {"lr": 0.3}])
                        reference, other = _trained(scratch, optimizer), _trained(scratch, optimizer, **settings)
                        damaged = kind(reference[name], draw, other[name])
                        if damaged == reference[name]:
                            continue
                        for what, use in (("loaded", _load), ("resumed", _resume)):
                            outcome, failure = _outcome(scratch, {**reference, name: damaged}, reference, use)
                            row = f"{kind.__name__} of {name}, {what}".replace("_", " ")
                            outcomes.count(row, outcome, failure and f"{optimizer}, seed {seed}, try {number}: {failure}")
        finally:
            trainer.time = clock
        return outcomes


_RUNS: dict[tuple[Any, ...], dict[str, bytes]] = {}


def _trained(scratch: Path, optimizer: str, seed: int = 0, lr: float = 0.5) -> dict[str, bytes]:
    """The files of a whole run."""
    key = (optimizer, seed, lr)
    if key not in _RUNS:
        batch: dict[str, Any] = {"batch_size": 2} if optimizer == "adam" else {}
        config = TrainingConfig(optimizer=optimizer, epochs=3, iterations=2, lr=lr, schedule="plateau", **batch)
        experiment = Experiment(
            ExperimentConfig(
                hidden_size=3,
                points=9,
                horizon=2.0,
                train_size=4,
                validation_size=4,
                solver="rk4",
                seed=seed,
                training=config,
            )
        )
        run = RunDirectory.create(scratch / "whole", experiment.record())
        experiment.train(run, progress=False)
        _RUNS[key] = children.contents(run.path)
        shutil.rmtree(run.path)
    return _RUNS[key]


def _load(directory: Path) -> Any:
    """All that is made of a loaded run."""
    loaded = load_run(directory)
    weights = {name: value.tolist() for name, value in loaded.model.state_dict().items()}
    y = loaded.target(loaded.validation_inputs, loaded.t)
    return json.dumps([weights, loaded.config.to_dict(), y.tolist(), loaded.t.tolist()]), repr(loaded.solver)


def _resume(directory: Path) -> Any:
    """The files after one more epoch."""
    run = RunDirectory.open(directory)
    config = read_config(run)
    experiment = Experiment(replace(config, training=replace(config.training, epochs=config.training.epochs + 1)))
    experiment.resume(run)
    experiment.train(run, progress=False)
    return children.contents(directory)


_EXPECTED: dict[tuple[bytes, Any], Any] = {}


def _outcome(
    scratch: Path, files: dict[str, bytes], reference: dict[str, bytes], use: Callable[[Path], Any]
) -> tuple[str, str | None]:
    key = (reference[CHECKPOINT], use)
    if key not in _EXPECTED:
        _EXPECTED[key] = _in_directory(scratch, reference, use)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            result = _in_directory(scratch, files, use)
    except ValueError as error:
        one_line = len(str(error).splitlines()) == 1 and ": " in str(error)
        return ("refused", None) if one_line else ("REFUSED BADLY", repr(error))
    except Exception as error:
        return "TRACEBACK", repr(error)
    return ("identical", None) if result == _EXPECTED[key] else ("SILENT", "other results")


def _in_directory(scratch: Path, files: dict[str, bytes], use: Callable[[Path], Any]) -> Any:
    directory = scratch / "run"
    directory.mkdir()
    try:
        for name, content in files.items():
            (directory / name).write_bytes(content)
        return use(directory)
    finally:
        shutil.rmtree(directory)


CAMPAIGNS = [Flips()]
