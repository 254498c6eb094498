"""Families of nonlinear models trained by gradients on one target, and their perturbation errors under two protocols."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from targets import Functional, make_target

from ...families import Family, family_curves, train_family
from ..engine.figure import job
from .teachers import load_teacher

# The published protocol of trained models: gaussian noise on every weight, its largest entry beta; the time-weighted error.
_PUBLISHED: dict[str, Any] = {"search": "sample", "norm": "max", "error": "time_weighted", "blocks": ["all"]}


@job("trained-curves")
def trained_curves(
    target: dict[str, Any],
    family: dict[str, Any],
    widths: list[int],
    ascent: dict[str, Any],
    sampled: dict[str, Any] | None = None,
    longer: bool = False,
) -> dict[str, Any]:
    """E_m(beta) of a trained family: {"curves": by ascent, of the recurrent block and of all; "sampled": by the published
    protocol, on the family's horizon alone}.

    Args:
        target: of `load_target`.
        family: of `Family`.
        widths: those of the family that are measured; the others are stages on the way to them.
        ascent: "betas", and whatever else `perturbation_error` takes.
        sampled: likewise, in place of the protocol of most figures where it says otherwise; None for no sampling.
        longer: train the widest model again on [0, 4T], from where it ended on [0, T], and measure it there, too.

    Raises:
        ValueError: widths that the family has not.
    """
    if missing := set(widths) - set(family["widths"]):
        raise ValueError(f"the family has no width {min(missing)}: choose among {', '.join(map(str, family['widths']))}")
    functional = load_target(**target)
    plan = Family(**{**family, "widths": tuple(family["widths"])})
    trained = [model for model in train_family(plan, functional) if model.hidden_size in widths]
    curves = family_curves(plan, trained, functional, **ascent)
    draws = [] if sampled is None else family_curves(plan, trained, functional, **{**_PUBLISHED, **sampled})
    if longer:
        later = replace(plan.longer(), widths=(max(widths),))
        curves += family_curves(later, train_family(later, functional, start=trained[-1]), functional, **ascent)
    return {"curves": [curve.to_dict() for curve in curves], "sampled": [curve.to_dict() for curve in draws]}


def load_target(kernel: str | None = None, nonlinearity: str = "none", teacher: str | None = None, seed: int = 0) -> Functional:
    """A functional from JSON values.

    Args:
        kernel, nonlinearity: of `targets.make_target`.
        teacher: in place of a kernel, a model with random weights, of `load_teacher`.
        seed: of these.

    Raises:
        ValueError: neither kernel nor teacher, or an unknown one.
    """
    if teacher is not None:
        return load_teacher(teacher, seed)
    if kernel is None:
        raise ValueError("a target needs a kernel or a teacher")
    return make_target(kernel, nonlinearity)
