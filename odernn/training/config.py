"""The settings of a training."""

from __future__ import annotations

from dataclasses import dataclass

from targets import arguments

from ..losses import LOSSES
from ..settings import check_types

OPTIMIZERS = ("auto", "lm", "lbfgs", "adam", "adamw")
SCHEDULES = ("none", "plateau", "cosine")
REGULARIZERS = ("none", "tau")
# Weight of a regulariser when none is given: small beside the mean square of a target of size 1.
_REGULARIZER_WEIGHT = 0.01
# Settings that earlier trainings did not have, and what stands for that.
LATER = {"regularizer": "none", "regularizer_weight": None}
# Generators take 64 bits; what is derived from a seed stays far inside.
MAX_SEED = 2**31


@dataclass(frozen=True)
class TrainingConfig:
    """Optimisation settings.

    Args:
        optimizer: 'lm' (Levenberg-Marquardt with the readout eliminated, full batch), 'lbfgs' (full batch, strong Wolfe line
            search), 'adam' or 'adamw' (mini-batches), or 'auto': 'lm' where it fits (`odernn.training.optimizers.resolve`), else
            'lbfgs'.
        epochs: passes over the data; for lm and L-BFGS rounds of `iterations` steps.
        iterations: steps per epoch of lm and L-BFGS; None for 1 (lm, a step of which takes as long as tens of the other's) or 10.
        batch_size: sequences per step of Adam; None for 128. The others take all.
        lr: learning rate; None for 1 (L-BFGS) or 0.005 (Adam). Steps of lm follow their damping.
        schedule: of the learning rate: 'none', 'plateau' (halved when the validation error stalls) or 'cosine' (to 0).
        gradient_clip: largest gradient norm of Adam; None for no limit.
        patience: epochs without a better validation error after which training stops; 0 for never.
        chunk: time steps after which backpropagation is cut: the state is carried on, each chunk is a step of Adam. Memory is
            then that of a chunk, whatever the length of the sequences. None for whole sequences.
        loss: one of `odernn.losses.LOSSES`.
        weight_decay: adds weight_decay (|U|^2 + |c|^2) to the loss; for adamw its own decoupled decay of every weight.
        margin, margin_weight: adds margin_weight max(0, margin - stability margin)^2 to the loss.
        regularizer: 'tau' adds regularizer_weight tau to the loss, the generalisation measure of models that are linear in their
            state (`odernn.generalization`), for the mean and covariance of the training inputs; 'none' for nothing.
        regularizer_weight: lambda of the regulariser; None for 0.01.
        seed: of the order of the mini-batches.

    Raises:
        ValueError: a value of another type, out of range, or without effect beside the others.

    Example:
        >>> from odernn import TrainingConfig
        >>> config = TrainingConfig(optimizer="adam", epochs=100, lr=1e-3, schedule="cosine")
    """

    optimizer: str = "auto"
    epochs: int = 40
    iterations: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    schedule: str = "none"
    gradient_clip: float | None = None
    patience: int = 0
    chunk: int | None = None
    loss: str = "mse"
    weight_decay: float = 0.0
    margin: float = 0.0
    margin_weight: float = 0.0
    regularizer: str = "none"
    regularizer_weight: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_types(self)
        for name, choices in (
            ("optimizer", OPTIMIZERS),
            ("schedule", SCHEDULES),
            ("loss", LOSSES),
            ("regularizer", REGULARIZERS),
        ):
            arguments.choice(name, getattr(self, name), choices)
        for name, least in (("epochs", 0), ("iterations", 1), ("batch_size", 1), ("patience", 0), ("chunk", 1)):
            if getattr(self, name) is not None:
                arguments.count(name, getattr(self, name), least)
        for name in ("lr", "gradient_clip"):
            if getattr(self, name) is not None:
                arguments.number(name, getattr(self, name), above=0)
        for name in ("weight_decay", "margin", "margin_weight"):
            arguments.number(name, getattr(self, name), least=0)
        arguments.count("seed", self.seed, least=0, most=MAX_SEED - 1)
        if self.margin and not self.margin_weight:
            raise ValueError("margin has no effect without margin_weight: give both, or leave margin out")
        if self.regularizer_weight is not None:
            arguments.number("regularizer_weight", self.regularizer_weight, least=0)
            if self.regularizer == "none":
                raise ValueError(
                    "regularizer_weight has no effect without a regularizer: give regularizer='tau', or leave it out"
                )
        if self.optimizer == "lm" and self.regularizer != "none":
            raise ValueError("optimizer 'lm' eliminates the readout, which regularizer 'tau' weighs: choose lbfgs, adam or adamw")
        if self.optimizer in ("auto", "lm", "lbfgs"):
            for name in ("batch_size", "gradient_clip", "chunk"):
                if getattr(self, name) is not None:
                    needs = "lbfgs and lm need all data and the true gradient"
                    raise ValueError(f"{name} is for adam, adamw ({needs}): leave it out, or choose one of these optimizers")
        if self.optimizer == "lm" and self.rated:
            raise ValueError("lr and schedule have no effect with lm, whose steps follow their damping: leave them out")

    @property
    def rated(self) -> bool:
        """Whether a learning rate is asked for."""
        return self.lr is not None or self.schedule != "none"

    @property
    def strength(self) -> float:
        """The weight of the regulariser; 0 without one."""
        if self.regularizer == "none":
            return 0.0
        return _REGULARIZER_WEIGHT if self.regularizer_weight is None else self.regularizer_weight
