"""Names and colours of the parameterisations, the same in all figures that compare them."""

from __future__ import annotations

from ...plotting import BLUE, GREEN, ORANGE, VERMILION

NAMES = ("direct", "exp", "softplus", "inverse")
LABELS = {
    "direct": "direct, $w$",
    "exp": "exp, $-e^w$",
    "softplus": r"softplus, $-\log(1+e^w)$",
    "inverse": r"inverse, $-1/(w^2+\frac{1}{2})$",
}
COLOURS = dict(zip(NAMES, (VERMILION, BLUE, GREEN, ORANGE)))
