"""The memory function of a trained run, of a torch module, or of any callable on sequences, with the law it decays by.

python scripts/extract_memory.py runs/DIR
python scripts/extract_memory.py torch.nn.LSTM --layers 2 --hidden-size 64
python scripts/extract_memory.py package.module:model
python scripts/extract_memory.py path/to/file.py:function --input-size 3
python scripts/extract_memory.py path/to/file.py:make_module --state weights.pt
python scripts/extract_memory.py torch.nn.LSTM --state weights.pt
"""

from __future__ import annotations

import io
import math
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from analysis.decay import DecayFit, fit_decay
from analysis.memory import AMPLITUDES, MemoryFunction, memory_function
from analysis.plotting import plot_memory
from analysis.probes import PROBES
from odernn import json_values
from odernn.checkpoints import describe, load_state, read_state, recurrent_sizes
from odernn.experiment import DTYPES, load_run
from odernn.runs import replace_file
from odernn.tables import csv_text
from targets import ConvolutionalFunctional, Kernel, grids
from targets.named_objects import named_object

from .command_line import Parser, limit_memory, listing, naming, program, require_memory, require_room

PROGRAM = program("extract_memory.py")
GATES = {"torch.nn.RNN": 1, "torch.nn.GRU": 3, "torch.nn.LSTM": 4}
MODULES = {name: getattr(torch.nn, name.rpartition(".")[2]) for name in GATES}
FILES = ("memory.csv", "memory.npz", "memory.png")
# Samples of a continuous memory function, and the horizon (in samples) of a system that has no time of its own.
POINTS, HORIZON = 201, 100.0


@dataclass(frozen=True)
class Request:
    """A system, the times of its memory function, and the target it has learnt."""

    system: Any
    name: str
    times: torch.Tensor
    target: Any = None
    dt: float | None = None


def parser() -> Parser:
    result = Parser("The memory function of a run, a torch module or a callable, and the law it decays by.")
    modules = ", ".join(MODULES)
    result.add_argument(
        "system",
        help=f"a run directory; {modules}; or module:callable or file.py:callable: a callable on (batch, time, channel), a "
        "torch module, a kernel or functional, or a class or function without arguments that makes one",
    )
    result.add_argument("--state", type=Path, metavar="FILE", help="weights of the module: a state_dict that torch.save wrote")
    result.add_argument("--probe", choices=PROBES, default="heaviside", help="input the memory is read from")
    default = ", ".join(f"{a:g}" for a in AMPLITUDES)
    result.add_argument(
        "--amplitudes",
        type=float,
        nargs="+",
        help=f"sizes |x| of the probe, of which the largest response counts (default: {default})",
    )
    result.add_argument("--max-amplitude", type=float, metavar="A", help="in place of them, all sizes |x| up to A")
    result.add_argument("--horizon", type=float, help="last time (default: that of the run, else 100)")
    result.add_argument("--points", type=int, help="times from 0 to the horizon (default: 201, or one a sample of a module)")
    result.add_argument("--warmup", type=float, default=0.0, help="time without input before the probe")
    result.add_argument("--hold", type=float, help="time for which the reversed probe holds x (default: until settled)")
    result.add_argument("--seed", type=int, default=0, help="of a module's weights and of the search for the largest response")
    result.add_argument("--dtype", choices=tuple(DTYPES), default="float64", help="floating-point type")
    result.add_argument("--out", type=Path, metavar="DIR", help="where to write (default: RUN_DIR/memory or ./memory-NAME)")
    result.add_argument("--overwrite", action="store_true", help="replace what --out holds")
    result.add_argument("--trust-code", action="store_true", help="run the code that a run names")
    result.add_max_memory()
    module = result.add_argument_group("torch modules and callables")
    module.add_argument("--input-size", type=int, help="channels of the input (default: 1)")
    module.add_argument("--hidden-size", type=int, help="units of a layer (default: 64)")
    module.add_argument("--layers", type=int, help="layers (default: 1)")
    result.arrange(
        {
            "what of": ("system", "horizon", "points", "out", "overwrite"),
            "torch modules and callables": (),
            "probe": ("probe", "amplitudes", "max_amplitude", "warmup", "hold"),
        }
    )
    return result


def request(arguments: Namespace) -> Request:
    """The system that the command line names."""
    spec, dtype = arguments.system, DTYPES[arguments.dtype]
    is_module = spec in MODULES
    if Path(spec).is_file():
        explain(Path(spec))
    state = None if arguments.state is None else read_state(arguments.state)
    if is_module and state is not None:
        take_sizes(arguments, state)
    if not is_module and not (arguments.hidden_size is None and arguments.layers is None):
        raise ValueError(f"--hidden-size and --layers are for {', '.join(MODULES)}, got {spec!r}: leave them out")
    if is_module:
        sizes = {"input_size": arguments.input_size, "hidden_size": arguments.hidden_size, "num_layers": arguments.layers}
        sizes = {key: default if sizes[key] is None else sizes[key] for key, default in zip(sizes, (1, 64, 1))}
        for flag, size in zip(("--input-size", "--hidden-size", "--layers"), sizes.values()):
            if size < 1:
                raise ValueError(f"{flag} must be at least 1, got {size}")
        width = sizes["hidden_size"]
        weights = GATES[spec] * width * (sizes["input_size"] + width + 2 * width * (sizes["num_layers"] - 1))
        require_memory(8.0 * weights, "--input-size, --hidden-size and --layers", arguments.max_memory)
        torch.manual_seed(arguments.seed)  # of any 64 bits
        # drawn in float64, so that a seed means the same module in every precision
        system = MODULES[spec](**sizes, batch_first=True, dtype=torch.float64).to(dtype)
        if state is not None:
            give_state(system, state, arguments.state)
        return Request(system, spec, _times(arguments, HORIZON, None, dtype))
    if not Path(spec).is_dir() and ":" in spec:
        with naming(spec):
            system = _from_code(spec, dtype, state, arguments.state)
        continuous = isinstance(system, ConvolutionalFunctional)
        return Request(system, spec.rpartition(":")[2], _times(arguments, HORIZON, POINTS if continuous else None, dtype))
    if state is not None:
        raise ValueError(f"--state is for modules, got {spec!r}: leave it out, a run has its weights")
    if spec.startswith("torch."):
        raise ValueError(
            f"{spec} is not one of {', '.join(MODULES)}: write a function that makes it and give that as file.py:function"
        )
    if arguments.input_size is not None:
        raise ValueError("--input-size is for torch modules and callables, a run knows its own: leave it out")
    loaded = load_run(spec, trust_code=arguments.trust_code)
    model = loaded.model.to(dtype)
    horizon = grids.span(loaded.t)
    name = Path(spec).resolve().name
    if not model.is_map:
        return Request(model, name, _times(arguments, horizon, POINTS, dtype), loaded.target)
    # A discrete model lives on the steps it was trained on.
    if arguments.points is not None:
        raise ValueError("--points is for continuous models, this one steps from sample to sample: leave it out")
    step = float(loaded.t[1] - loaded.t[0]) if loaded.data is None else grids.mean_step(loaded.t)
    span = horizon if arguments.horizon is None else _positive_time(arguments.horizon)
    require_memory(8.0 * span / step * model.hidden_size, "--horizon", arguments.max_memory)
    steps = round(span / step)
    if steps < 1:
        raise ValueError(f"--horizon must hold at least one step of the model, {step:g}, got {arguments.horizon:g}")
    times = step * torch.arange(steps + 1, dtype=torch.float64)
    return Request(model, name, times.to(dtype), loaded.target, step)


def _positive_time(horizon: float) -> float:
    if not 0 < horizon < math.inf:
        raise ValueError(f"--horizon must be a time > 0, got {horizon}")
    return horizon


def _times(arguments: Namespace, horizon: float, points: int | None, dtype: torch.dtype) -> torch.Tensor:
    horizon = _positive_time(horizon if arguments.horizon is None else arguments.horizon)
    if arguments.points is not None:
        points = arguments.points
    elif points is None:
        points = round(horizon) + 1
    if points < 2:
        raise ValueError(f"--points must be at least 2, got {points}")
    flag = "--points" if arguments.points is not None else "--horizon"
    width = max(1, arguments.input_size or 1, arguments.hidden_size or 1)
    require_memory(8.0 * points * width, flag, arguments.max_memory)
    return torch.linspace(0, horizon, points, dtype=torch.float64).to(dtype)


def explain(path: Path) -> None:
    """Raises ValueError: a file by itself is no system; says what it holds and what to give."""
    if path.suffix == ".py":
        raise ValueError(f"{path} is code: say which function or module of it to take, as {path}:function")
    if path.suffix == ".json" or path.suffix == ".csv":
        raise ValueError(f"{path} is no system: give the run directory, module or callable that it belongs to")
    state = read_state(path)
    recurrent = recurrent_sizes(state)
    ours = "a function that makes the module, as file.py:function"
    system = ours if recurrent is None else recurrent[0]
    command = f"{PROGRAM} {'FILE.py:FUNCTION' if recurrent is None else recurrent[0]} --state {path}"
    raise ValueError(f"{path} holds weights alone ({describe(state)}), not what they belong to: give {system}, {command}")


def take_sizes(arguments: Namespace, state: dict[str, torch.Tensor]) -> None:
    """The sizes of the module of torch.nn that has these weights, where none were given."""
    found = recurrent_sizes(state)
    if found is None or found[0] != arguments.system:
        what = "another module" if found is None else found[0]
        held = f"{arguments.state} holds the weights of {what} ({describe(state)})"
        raise ValueError(f"{held}, not of {arguments.system}: give what they belong to")
    for flag, name in (("input_size", "input_size"), ("hidden_size", "hidden_size"), ("layers", "num_layers")):
        if getattr(arguments, flag) is None:
            setattr(arguments, flag, found[1][name])


def give_state(system: Any, state: dict[str, torch.Tensor], path: Path) -> None:
    if not isinstance(system, torch.nn.Module):
        raise ValueError(f"--state is for a torch.nn.Module, got a {type(system).__name__}: leave it out, or name one")
    with naming(str(path)):
        prefix = load_state(system, state)
    if prefix:
        print(f"{PROGRAM}: the names of the weights in {path} begin with {prefix!r}, which was taken off")


def _from_code(spec: str, dtype: torch.dtype, state: dict[str, torch.Tensor] | None, path: Path | None) -> Any:
    """The object that module:attribute or file.py:attribute names, made if it has to be, with these weights."""
    found = named_object(spec)
    if state is not None and path is not None:
        give_state(found, state, path)
    if not callable(found) and not isinstance(found, Kernel):
        raise ValueError(f"{spec} is a {type(found).__name__}, which has no memory function: give a callable, module or kernel")
    if isinstance(found, Kernel):
        return ConvolutionalFunctional(found)
    return found.to(dtype) if isinstance(found, torch.nn.Module) else found


def destination(arguments: Namespace) -> Path:
    """Where to write; nothing is made yet."""
    default = Path(arguments.system) / "memory"
    if not Path(arguments.system).is_dir():
        default = Path("memory-" + arguments.system.rpartition(":")[2])
    out: Path = arguments.out or default
    require_room(out, FILES, overwrite=arguments.overwrite)
    return out


def write(out: Path, M: MemoryFunction, fit: DecayFit, target: torch.Tensor | None) -> None:
    """Writes memory.csv, memory.npz and memory.png, each atomically."""
    out.mkdir(parents=True, exist_ok=True)
    times, values, x = (tensor.detach().cpu().double().numpy() for tensor in (M.times, M.values, M.maximizer))
    low, high = fit.band(times)
    columns = {
        "time": times,
        "memory": values,
        "above_floor": M.above_floor.cpu().numpy().astype(int),
        "fitted_law": fit.predict(times),
        "fitted_law_low": low,
        "fitted_law_high": high,
    }
    columns |= {f"maximizer_{j}": x[:, j] for j in range(x.shape[1])}
    # What the supremum is over, and which of it attains it.
    columns |= {"amplitude": np.abs(x).max(-1), "amplitudes": np.full(len(times), M.amplitudes_text)}
    if target is not None:
        columns["target_memory"] = target.cpu().double().numpy()
    rows = zip(*(column.tolist() for column in columns.values()))
    replace_file(out / "memory.csv", csv_text([dict(zip(columns, row)) for row in rows]))
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {"times": times, "values": values, "maximizer": x, "floor": float(M.floor)}
    arrays |= {"probe": M.probe, "system": M.system, "sequences": M.sequences, "fit": json_values.dumps(fit)}
    arrays |= {"amplitudes": np.array(M.amplitudes or ()), "amplitudes_text": M.amplitudes_text}
    if target is not None:
        arrays["target_values"] = columns["target_memory"]
    np.savez(buffer, **arrays)
    replace_file(out / "memory.npz", buffer.getvalue())
    drawn = None if target is None else (times, columns["target_memory"])
    plot_memory(M, out / "memory.png", target=drawn, fit=fit)


def spectrum(fit: DecayFit) -> str:
    """The rate of the linearisation beside the fitted one."""
    rate = fit.spectrum_rate
    text = f"slowest observable mode at rest: rate {rate:.4g}"
    if rate is None or rate <= 0:
        return text + ", rest is not stable: the memory does not end there"
    if fit.ends_exponentially and fit.rate is not None:
        off = abs(fit.rate - rate)
        agrees = off <= 3 * fit.stderr or off <= 0.05 * rate
        return text + (", as fitted" if agrees else f", fitted {fit.rate:.4g}: the window ends early, or |x| is not small")
    return text + ": at small |x| the memory ends as e^(-rate t), after this window"


def report(chosen: Request, M: MemoryFunction, fit: DecayFit, target: DecayFit | None) -> str:
    evidence = sorted(fit.evidence.items(), key=lambda item: item[1])
    rows = {
        "sup over": M.amplitudes_text,
        "law": fit.describe(),
        "window": f"[{fit.window[0]:.4g}, {fit.window[1]:.4g}], {fit.points} {'maxima' if fit.envelope else 'points'}",
        "evidence": "AIC above the best: " + ", ".join(f"{law} {value:.3g}" for law, value in evidence) if evidence else "none",
        "numerical floor": f"{float(M.floor):.2g}",
    }
    if fit.preference():
        rows["evidence"] += f"; {fit.preference()}"
    if fit.spectrum_rate is not None:
        rows["spectrum"] = spectrum(fit)
    if target is not None:
        rows["target"] = target.describe()
    head = f"{chosen.name}: {M.probe} memory of {M.system} on [0, {float(chosen.times[-1]):g}]"
    return f"{head}\n{listing(rows)}"


def main() -> None:
    arguments = parser().parse_args()
    if arguments.hold is not None and arguments.probe != "reversed":
        raise ValueError(f"--hold is for --probe reversed, got --probe {arguments.probe}: leave it out")
    out = destination(arguments)
    limit_memory(arguments.max_memory)
    chosen = request(arguments)
    options: dict[str, Any] = {"probe": arguments.probe, "seed": arguments.seed}
    options |= {"amplitudes": arguments.amplitudes, "max_amplitude": arguments.max_amplitude}
    if arguments.system in MODULES:
        rest = (arguments.warmup + (arguments.hold or 0.0)) / float(chosen.times[1] - chosen.times[0])
        require_memory(8.0 * rest * (arguments.input_size or 1), "--warmup and --hold", arguments.max_memory)
    M = memory_function(
        chosen.system,
        chosen.times,
        warmup=arguments.warmup,
        hold=arguments.hold,
        dt=chosen.dt,
        input_size=None if arguments.system in MODULES else arguments.input_size,
        **options,
    )
    if M.values.ndim != 1:
        raise ValueError(f"the system is an ensemble of {M.values.shape[0]}: give one member")
    fit = fit_decay(M)
    wanted = None if chosen.target is None else memory_function(chosen.target, chosen.times, **options)
    write(out, M, fit, None if wanted is None else wanted.values)
    print(report(chosen, M, fit, None if wanted is None else fit_decay(wanted)))
    print(f"wrote {', '.join(FILES)} to {out}")
