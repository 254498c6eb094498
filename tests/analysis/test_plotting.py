"""Pictures: what is drawn, that nothing is clipped or lost, and that they repeat."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from analysis import plotting
from analysis.decay import fit_decay
from analysis.memory import memory_function
from targets import ConvolutionalFunctional, kernels

HISTORY = [
    {"epoch": k + 1, "train_loss": 0.5**k, "validation_loss": 0.6**k if k % 2 == 0 else None, "learning_rate": 1.0}
    for k in range(9)
]


@pytest.fixture(scope="module")
def memory():
    torch.manual_seed(0)
    return memory_function(torch.nn.GRU(1, 8, dtype=torch.float64), torch.arange(100, dtype=torch.float64))


@pytest.fixture
def drawn(monkeypatch):
    """Every figure that is saved, kept for inspection."""
    figures = []
    save = plotting.save
    monkeypatch.setattr(plotting, "save", lambda figure, path: (figures.append(figure), save(figure, path)))
    return figures


def _lines(axes):
    return {line.get_label(): line for line in axes.get_lines()}


def _visible_text(figure):
    texts = [text for axes in figure.axes for text in (axes.xaxis.label, axes.yaxis.label, axes.title)]
    return [text for text in texts if text.get_text()]


def test_a_training_picture_has_a_curve_for_every_loss_and_marks_the_best_validation(tmp_path, drawn):
    plotting.plot_training(HISTORY, tmp_path / "training.png")
    lines = _lines(drawn[0].axes[0])
    assert set(lines) == {"train loss", "validation loss", "best: 0.017 at epoch 9"}
    assert list(lines["validation loss"].get_xdata()) == [1, 3, 5, 7, 9]
    assert drawn[0].axes[0].get_yscale() == "log"


def test_the_metrics_of_a_run_are_a_history(tmp_path, drawn):
    rows = [{"epoch": k + 1, "loss": 0.1**k, "validation_relative_l2": 0.5**k, "seconds": 1.0} for k in range(3)]
    plotting.plot_training(rows, tmp_path / "training.png")
    assert set(_lines(drawn[0].axes[0])) == {"training loss", "validation error, relative $L_2$", "best: 0.25 at epoch 3"}
    assert drawn[0].axes[0].get_ylabel() == "loss, error"


def test_a_history_without_a_loss_is_refused_by_its_names(tmp_path):
    with pytest.raises(ValueError, match="found: epoch, accuracy"):
        plotting.plot_training([{"epoch": 1, "accuracy": 0.5}], tmp_path / "training.png")
    with pytest.raises(ValueError, match="no rows"):
        plotting.plot_training([], tmp_path / "training.png")
    assert list(tmp_path.iterdir()) == []


def test_a_memory_picture_has_the_curve_the_target_the_law_with_its_band_and_the_floor_on_both_panels(tmp_path, drawn, memory):
    target = ConvolutionalFunctional(kernels.polynomial(1.5))
    fit = fit_decay(memory)
    plotting.plot_memory(memory, tmp_path / "memory.png", target=(memory.times, target.kernel(memory.times).abs()), fit=fit)
    semilog, loglog = drawn[0].axes
    assert [axes.get_xscale() for axes in (semilog, loglog)] == ["linear", "log"]
    for axes in (semilog, loglog):
        lines = _lines(axes)
        assert set(lines) == {"target", "GRU, |x| = 0.1, 1", next(name for name in lines if name.startswith("exponential, rate"))}
        fitted = next(line for name, line in lines.items() if name.startswith("exponential"))
        assert fitted.get_xdata()[-1] == pytest.approx(fit.window[1])
        assert len(axes.collections) == 1  # the band
        # the axis stops just below the floor
        assert float(memory.floor) / 30 < axes.get_ylim()[0] < float(memory.floor)


def test_a_memory_picture_without_a_law_or_a_positive_value_is_still_drawn(tmp_path, drawn):
    times = torch.linspace(0, 20, 41, dtype=torch.float64)
    for kernel in (kernels.shift(), kernels.from_callable(lambda t: 0 * t)):
        M = memory_function(ConvolutionalFunctional(kernel), times)
        plotting.plot_memory(M, tmp_path / "memory.png", fit=fit_decay(M))
    assert len(drawn) == 2


def test_no_label_leaves_the_figure(tmp_path, drawn, memory):
    plotting.plot_memory(memory, tmp_path / "memory.png", fit=fit_decay(memory), title="a title")
    plotting.plot_training(HISTORY, tmp_path / "training.png")
    for figure in drawn:
        renderer = figure.canvas.get_renderer()
        width, height = figure.canvas.get_width_height()
        assert _visible_text(figure)
        for text in [*_visible_text(figure), *figure.texts, *(t for legend in figure.legends for t in legend.get_texts())]:
            box = text.get_window_extent(renderer)
            assert box.x0 >= 0, text
            assert box.y0 >= 0, text
            assert box.x1 <= width, text
            assert box.y1 <= height, text


def test_the_same_data_make_the_same_picture_and_leave_the_users_style_alone(tmp_path, memory):
    before = dict(mpl.rcParams)
    for name in ("one.png", "two.png"):
        plotting.plot_memory(memory, tmp_path / name)
    assert dict(mpl.rcParams) == before
    np.testing.assert_array_equal(imread(tmp_path / "one.png"), imread(tmp_path / "two.png"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.png", "two.png"]


def test_a_picture_that_fails_leaves_no_file(tmp_path):
    with pytest.raises(ZeroDivisionError), plotting.picture(tmp_path / "broken.png"):
        _ = 1 / 0
    assert list(tmp_path.iterdir()) == []


def _luminance(color):
    """Relative luminance of sRGB (WCAG 2)."""
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def test_every_colour_stands_out_on_white():
    for color in (*plotting.PALETTE, *plotting.shades(6)):
        contrast = 1.05 / (_luminance(color[:3] if isinstance(color, tuple) else color) + 0.05)
        assert contrast > 1.8, color


def test_shades_run_from_dark_to_light():
    levels = [_luminance(color[:3]) for color in plotting.shades(5)]
    assert levels == sorted(levels)
    assert len(plotting.shades(1)) == 1


@pytest.mark.parametrize("path", [None, 3, "", "no_ending", "a.nosuch"])
def test_a_path_without_a_format_is_refused_before_anything_is_written(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="path is"):
        plotting.plot_training([{"loss": 1.0}], path)
    assert not list(tmp_path.iterdir())


def test_what_is_no_memory_function_or_an_ensemble_is_named(tmp_path):
    with pytest.raises(ValueError, match="M is a float"):
        plotting.plot_memory([1.0], tmp_path / "a.png")
