"""Balls of parameters: {d : |d_block| <= 1 for every perturbed block}, the norm of a block being that of its weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from odernn.models import SequenceModel
from odernn.norms import MAX, Norm, column
from odernn.raw_weights import RawWeight
from targets import arguments

# Raw parameters, or directions in them, by name; a leading axis for members.
Point = dict[str, Tensor]


@dataclass(frozen=True)
class Ball:
    """The unit ball of the perturbed parameters.

    Args:
        norms: of each block, by the parameter's name.
        shapes: of each block.
        choice: 'all', 'recurrent' or 'named'.
        norm: 'spectral' or 'max', as asked for.
    """

    norms: dict[str, Norm]
    shapes: dict[str, torch.Size]
    choice: str
    norm: str

    @staticmethod
    def build(model: SequenceModel, blocks: str | Sequence[str], norm: str) -> Ball:
        """The ball of some blocks.

        Args:
            blocks: 'all', 'recurrent', or names of parameters in full ("layers.0.U") or in short ("U").

        Raises:
            ValueError: unknown blocks, or none that is trained.
        """
        parameters = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        known = model.raw_weights()
        choice = blocks if isinstance(blocks, str) and blocks in ("all", "recurrent") else "named"
        if choice == "all":
            names = list(parameters)
        elif choice == "recurrent":
            names = [name for name in parameters if known[name].recurrent]
        else:
            asked = list(blocks) if isinstance(blocks, Sequence) and not isinstance(blocks, str) else [blocks]
            matches = {block: [name for name in parameters if block in (name, name.split(".")[-1])] for block in asked}
            missing = [block for block, found in matches.items() if not found]
            if missing or not asked:
                unknown = ", ".join(map(repr, missing)) or repr(blocks)
                raise ValueError(f"unknown blocks {unknown}: give 'all', 'recurrent' or a list from {', '.join(parameters)}")
            names = [name for name in parameters if any(name in found for found in matches.values())]
        if not names:
            raise ValueError(f"no trainable parameter in blocks {blocks!r}: there is nothing to perturb")
        norms = {name: _norm(known[name], norm) for name in names}
        return Ball(norms, {name: parameters[name].shape for name in names}, choice, norm)

    def draw(self, n: int, like: Tensor, generator: torch.Generator) -> Point:
        """n points of the unit sphere of every block: gaussian noise over its norm."""
        point = {}
        for name, norm in self.norms.items():
            noise = torch.randn(n, *self.shapes[name], generator=generator, dtype=torch.float64).to(like)
            point[name] = noise / column(norm(noise).clamp_min(torch.finfo(noise.dtype).tiny), noise)
        return point

    def maximizer(self, gradient: Point) -> Point:
        """argmax of <gradient, d> over the unit ball, block by block."""
        # A diverged member's gradient is nan; its start is finished, and must only not stop the SVD of the others.
        return {
            name: norm.maximizer(torch.nan_to_num(gradient[name], nan=0.0, posinf=0.0, neginf=0.0))
            for name, norm in self.norms.items()
        }


def weight_norms(model: SequenceModel) -> dict[str, float]:
    """|theta| of every raw weight, in the norm in which it is perturbed: [IA] Thm 3.9 asks that the largest of them, over the
    widths, is bounded.

    Raises:
        ValueError: an ensemble.
    """
    arguments.instance("model", model, SequenceModel, "give a model of odernn")
    if model.ensemble:
        raise ValueError(f"weight_norms takes one model, got an ensemble {model.ensemble}: take a member of it")
    known = model.raw_weights()
    return {name: float(known[name].norm(weight.detach().unsqueeze(0))) for name, weight in model.named_parameters()}


def slowest_corner(model: SequenceModel, norm: str) -> Point:
    """The point of the unit ball of all parameters that slows the decay of every mode and amplifies input and readout, as every
    raw weight declares it; no leading axis."""
    known = model.raw_weights()
    return {
        name: known[name].slow_direction(weight.detach(), _norm(known[name], norm)) for name, weight in model.named_parameters()
    }


def _norm(weight: RawWeight, norm: str) -> Norm:
    return MAX if norm == "max" else weight.norm


def take(point: Point, index: Tensor | slice) -> Point:
    return {name: part[index] for name, part in point.items()}


def where(condition: Tensor, yes: Point, no: Point) -> Point:
    """Member by member, condition (n,)."""
    return {name: torch.where(column(condition, part), part, no[name]) for name, part in yes.items()}


def concatenate(points: Sequence[Point]) -> Point:
    return {name: torch.cat([point[name] for point in points]) for name in points[0]}
