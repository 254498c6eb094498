from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure

from analysis.linear.fits import ExponentialSum
from analysis.perturbation import perturbation_error
from analysis.perturbation.picture import draw_perturbation, explain_marks, plot_perturbation
from targets import kernels

BETAS = np.array([0.0, 1e-3, 1e-2, 1e-1, 1.0])
MODEL = ExponentialSum(np.array([1.0]), np.array([1.0])).model()
BASE = perturbation_error(MODEL, kernels.exponential(), None, None, [0.1], error="kernel_l1", horizon=1.0, draws=0, restarts=0)


def curve(m, relative, betas=BETAS):
    relative = np.asarray(relative, dtype=float)
    values = {"betas": np.asarray(betas), "errors": relative, "searched": relative, "initial": relative[0], "scale": 1.0}
    return replace(BASE, **values, hidden_size=m)


NARROW, WIDE = curve(2, [0.1, 0.1, 0.1, 0.3, 3.0]), curve(4, [0.01, 0.02, 0.2, 2.0, math.inf])


def points(axes, marker):
    return [
        tuple(np.ravel(line.get_data()))
        for line in axes.get_lines()
        if line.get_marker() == marker and len(line.get_xdata()) == 1
    ]


def test_radii_and_crossings_stand_where_the_curves_say():
    figure = Figure(layout="constrained")
    axes = figure.subplots()
    draw_perturbation(axes, [WIDE, NARROW])
    explain_marks(figure)
    radii = sorted(x for x, y in points(axes, "o") if y == 0.5)
    assert radii == pytest.approx(sorted([NARROW.tolerance_radius(), WIDE.tolerance_radius()]))
    ((x, y),) = points(axes, "x")
    assert 1e-3 < x < 1e-2
    assert y == pytest.approx(0.1, rel=0.05)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["m = 2", "m = 4"]
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {"radius $r$", "goes on above", "crossing"}


def test_beta_zero_stands_at_the_left_edge_and_is_labelled_so():
    axes = Figure().subplots()
    draw_perturbation(axes, [NARROW])
    left = min(x for x, _ in points(axes, "o"))
    assert left < 1e-3
    assert axes.get_xlim()[0] < left
    assert axes.xaxis.get_major_formatter()(left) == "0"
    assert axes.xaxis.get_major_formatter()(1e-3) == "$10^{-3}$"


def test_a_curve_is_marked_where_it_leaves_the_picture():
    axes = Figure().subplots()
    draw_perturbation(axes, [WIDE])
    ((x, y),) = points(axes, "^")
    assert y == axes.get_ylim()[1]
    line = next(line for line in axes.get_lines() if line.get_label() == f"m = {WIDE.hidden_size}")
    assert np.log(y) == pytest.approx(np.interp(np.log(x), np.log(line.get_xdata()), np.log(line.get_ydata())))


def test_values_that_stand_by_monotonicity_alone_are_ringed():
    axes = Figure().subplots()
    draw_perturbation(axes, [replace(NARROW, searched=np.array([0.1, 0.1, 0.05, 0.3, 3.0]))])
    rings = [line for line in axes.get_lines() if line.get_markerfacecolor() == "none"]
    assert [list(line.get_xdata()) for line in rings] == [[1e-2]]


def test_a_picture_has_a_panel_for_each_title(tmp_path):
    plot_perturbation({"all": [NARROW, WIDE], "recurrent": [NARROW]}, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_curves_that_touch_zero_are_drawn_too(tmp_path):
    exact = curve(2, [0.0, 1e-9, 1e-2, 0.1, 1.0])
    plot_perturbation({"exact": [exact]}, tmp_path / "curves.png")


def test_nothing_to_draw_is_refused():
    axes = Figure().subplots()
    for curves in ([], [curve(2, [0.1], betas=[0.0])]):
        with pytest.raises(ValueError, match="nothing to draw"):
            draw_perturbation(axes, curves)
    with pytest.raises(ValueError, match="nothing to draw"):
        plot_perturbation({}, "curves.png")


def test_a_band_goes_from_the_smallest_to_the_largest_seed():
    axes = Figure().subplots()
    other = curve(2, [0.1, 0.05, 0.2, 0.6, 2.0])
    draw_perturbation(axes, [NARROW, WIDE], spread=[NARROW, other, WIDE])
    narrow, _ = axes.collections
    corners = {tuple(point) for point in narrow.get_paths()[0].vertices}
    assert {(1e-3, 0.05), (1e-3, 0.1), (1e-1, 0.3), (1e-1, 0.6)} <= corners
