"""The settings of an experiment, typed and checked: what is learnt, by which model, how it is solved and trained."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any, get_args

import torch

from targets import arguments, inputs, kernels
from targets.functionals import NONLINEARITIES, Interpolation
from targets.named_objects import bare, is_code

from .. import activations, models, parameterizations, recurrences, solvers
from ..settings import check_types
from ..spectra import SPECTRA
from ..training import MAX_SEED, TrainingConfig
from ..training.config import LATER

SOLVERS = tuple(solvers.SOLVERS)
DEVICES = ("auto", "cpu", "cuda")
DTYPES = {"float64": torch.float64, "float32": torch.float32}
INTERPOLATIONS = get_args(Interpolation)
# 'random' is what a model is made with.
INITIALIZATIONS = ("random", *SPECTRA)

# Settings that do not tell one run from another: where it runs, how long, and how its equations are solved (which moves the
# weights by the solver's tolerance).
_FREE = (
    "device",
    "initialization",
    "rescale_readout",
    "warm_start",
    "solver",
    "solver_tolerance",
    "solver_chosen",
    "substeps",
    "adjoint",
    "rtol",
    "atol",
    "step_size",
)
# Settings that the first runs did not have.
_LATER = {"tau", "chunk", "data", "data_checksum", "validation_fraction", "rescale_readout", "regularizer", "regularizer_weight"}
_FREE_IN_TRAINING = ("epochs", "patience")
# Settings of generated targets and inputs, and those of data of one's own, which take their place.
GENERATED = ("kernel", "nonlinearity", "inputs", "amplitude", "horizon", "points", "train_size", "validation_size")
OWN = ("data", "data_checksum", "validation_fraction")


@dataclass(frozen=True)
class ExperimentConfig:
    """Settings of an experiment.

    Args:
        model: 'rnn', 'ssm', 'leaky', 'leaky_voltage', 'discrete_rnn' or 'discrete_ssm'; or code, 'module:function' or
            'file.py:function', that is a class of models, or makes a model (`NeuralODE(...)`, say) of its own size and options.
        activation, recurrence, parameterization, hidden_size, num_layers: of the model, see `odernn.SequenceModel`; the
            activation may be code too, of an `Activation` or a function of tensors.
        tau: time constant of the leaky models; None for 1.
        kernel: the target's rho: a name of `targets.KERNELS`, with parameters as in 'polynomial:exponent=1.1', or a callable as
            'module:function' or 'file.py:function'.
        nonlinearity: psi of the target psi(int rho x), 'none' for the linear functional.
        inputs: ensemble of the inputs, a name of `targets.INPUTS`.
        amplitude: standard deviation of the inputs.
        horizon: T, the inputs live on [0, T].
        points: samples of t, evenly spaced.
        train_size, validation_size: sequences.
        interpolation: of x between its samples: 'linear' or 'hold'.
        solver: 'exact', 'fused' (compiled rk4), 'adaptive' (compiled dopri5 by `rtol` and `atol`), a method of torchdiffeq, or
            'auto': the cheapest that keeps to `solver_tolerance` on a few training sequences, see
            `odernn.solvers.choose_solver`, with finer steps as soon as the weights need them.
        solver_tolerance: relative deviation that 'auto' allows from a tight dopri5.
        solver_chosen: whether `solver` is what 'auto' came to; set by the experiment.
        substeps: steps per sample of 'fused'.
        adjoint: gradients by torchdiffeq's adjoint (True; 'auto' is then dopri5) or by backpropagation (False).
        rtol, atol: tolerances of adaptive solvers.
        step_size: largest step of fixed-step solvers; None for one step per sample.
        initialization: of the eigenvalues: 'random', or a spectrum of `odernn.spectra.SPECTRA` scaled to T: 'geometric' (rates
            from 1/T to 1), 's4d_lin', 'hippo_legs', ..., see `odernn.initialize`.
        rescale_readout: whether the readout is divided by tau^(1/2) before training, so that outputs are of the order of 1
            (`odernn.generalization.rescale_readout`); for models that are linear in their state.
        warm_start: run directory of a narrower model to start from; None for a random start.
        data: file of data of one's own, see `odernn.read_data`, in place of a kernel's targets: kernel, nonlinearity, inputs,
            amplitude, horizon, points and the sizes have no meaning then and keep their defaults.
        data_checksum: sha256 of that file; set by the experiment, which refuses another file.
        validation_fraction: part of its sequences that validates, where the file does not say which; None for 0.2.
        seed: of weights and inputs, or the split of data; mini-batches have `training.seed` (the command line sets both).
        device: 'auto' takes CUDA where there is one.
        dtype: 'float64' or 'float32'.
        training: see `TrainingConfig`.

    Example:
        >>> from odernn import ExperimentConfig, TrainingConfig
        >>> config = ExperimentConfig(activation="tanh", hidden_size=8, training=TrainingConfig(epochs=20))
    """

    model: str = "rnn"
    activation: str = "tanh"
    recurrence: str = "dense"
    parameterization: str = "direct"
    hidden_size: int = 16
    num_layers: int = 1
    tau: float | None = None
    kernel: str = "polynomial"
    nonlinearity: str = "none"
    inputs: str = "random_fourier"
    amplitude: float = 1.0
    horizon: float = 10.0
    points: int = 101
    train_size: int = 128
    validation_size: int = 128
    interpolation: Interpolation = "linear"
    solver: str = "auto"
    solver_tolerance: float = 1e-5
    solver_chosen: bool = False
    substeps: int = 1
    adjoint: bool = False
    rtol: float = 1e-6
    atol: float = 1e-8
    step_size: float | None = None
    initialization: str = "random"
    rescale_readout: bool = False
    warm_start: str | None = None
    data: str | None = None
    data_checksum: str | None = None
    validation_fraction: float | None = None
    seed: int = 0
    device: str = "auto"
    dtype: str = "float64"
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        check_types(self)
        object.__setattr__(self, "recurrence", recurrences.current_name(self.recurrence))
        for name, choices in (
            *((("model", models.MODELS),) if not is_code(self.model) else ()),
            ("parameterization", parameterizations.PARAMETERIZATIONS),
            ("solver", SOLVERS),
            ("device", DEVICES),
            ("dtype", DTYPES),
            ("inputs", inputs.INPUTS),
            ("recurrence", recurrences.RECURRENCES),
            *((("activation", activations.ACTIVATIONS),) if not is_code(self.activation) else ()),
            ("nonlinearity", ("none", *NONLINEARITIES)),
            ("initialization", INITIALIZATIONS),
        ):
            arguments.choice(name, getattr(self, name), choices)
        for name, least in (("points", 2), ("train_size", 1), ("validation_size", 1), ("num_layers", 1), ("substeps", 1)):
            arguments.count(name, getattr(self, name), least)
        arguments.count("seed", self.seed, least=0, most=MAX_SEED - 1)
        for name in ("horizon", "amplitude", "solver_tolerance", "rtol", "atol", "step_size", "tau"):
            if getattr(self, name) is not None:
                arguments.number(name, getattr(self, name), above=0)
        if self.validation_fraction is not None:
            arguments.number("validation_fraction", self.validation_fraction, above=0, below=1)
        if self.data is None and (self.validation_fraction is not None or self.data_checksum is not None):
            raise ValueError("validation_fraction and data_checksum are for data of your own: give data=FILE, or leave them out")
        if self.rescale_readout and self.warm_start is not None:
            raise ValueError("rescale_readout is for models that start anew, warm_start brings a readout: leave one out")
        defaults = {item.name: item.default for item in fields(self)}
        changed = [name for name in GENERATED if getattr(self, name) != defaults[name]]
        if self.data is not None and changed:
            raise ValueError(f"data brings its own inputs and targets, got {', '.join(changed)} as well: leave that out")

    def code(self) -> list[str]:
        """The settings that name code, which is run where the experiment is built."""
        named = [self.kernel] if kernels.names_code(self.kernel) else []
        return named + [setting for setting in (self.model, self.activation) if is_code(setting)]

    def to_dict(self) -> dict[str, Any]:
        """JSON values only; `from_dict` is its inverse."""
        return asdict(self)

    def identity(self) -> dict[str, Any]:
        """The settings that make a run what it is: weights belong to every config that agrees in these."""
        values = self.to_dict()
        values["recurrence"] = recurrences.first_name(self.recurrence)  # that in the fingerprints of saved runs
        values["training"] = {key: value for key, value in values["training"].items() if key not in _FREE_IN_TRAINING}
        for name in ("kernel", "model", "activation"):  # its file may have moved; what it computes is compared by its values
            if values[name] in self.code():
                values[name] = bare(values[name])
        # runs of earlier versions have no such settings
        for settings, later in ((values, {"tau": None}), (values["training"], {"chunk": None, **LATER})):
            for name, before in later.items():
                if settings[name] == before:
                    del settings[name]
        # The data's file may have moved: its checksum is compared.
        others = OWN if self.data is None else ("data", *GENERATED)
        return {key: value for key, value in values.items() if key not in (*_FREE, *others)}

    @classmethod
    def from_dict(cls, values: dict[str, Any], *, complete: bool = False) -> ExperimentConfig:
        """The config of `to_dict`.

        Args:
            values: settings; those that are left out take their defaults.
            complete: refuse that.

        Raises:
            ValueError: keys that no version of this class writes, missing ones, or values of another type or out of range.
        """
        training = values.get("training", {}) if isinstance(values, dict) else None
        for owner, given in ((cls, values), (TrainingConfig, training)):
            if not isinstance(given, dict):
                raise ValueError(f"{'training' if owner is TrainingConfig else 'experiment'} is {given!r}, expected settings")
            names = {item.name for item in fields(owner)}
            unknown, missing = sorted(set(given) - names), sorted(names - set(given) - _LATER)
            if unknown:
                raise ValueError(f"unknown settings {', '.join(unknown)}: the run was written by another version")
            if complete and missing:
                raise ValueError(f"settings are missing: {', '.join(missing)}")
        return cls(**{**values, "training": TrainingConfig(**training)})
