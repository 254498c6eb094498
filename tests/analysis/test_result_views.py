"""The line, the table and the picture of every kind of result."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import torch
from matplotlib.figure import Figure

import analysis
from analysis.plotting import plot_memory
from analysis.results import columns
from odernn import ContinuousRNN, Data, Trainer, TrainingConfig, linear
from targets import ConvolutionalFunctional, inputs, kernels

T = torch.linspace(0, 20, 41, dtype=torch.float64)
H = ConvolutionalFunctional(kernels.polynomial(exponent=1.5))
X = inputs.white_noise(T, batch=4, seed=0)


@pytest.fixture(scope="module")
def results():
    model = ContinuousRNN(1, 3, 1, activation="linear", recurrence="diagonal", dtype=torch.float64, seed=0)
    M = analysis.memory_function(H, T)
    curves = analysis.linear_curves(kernels.exponential(), "softplus", widths=(2, 4), horizon=100.0)
    verdict = analysis.judge_stable_approximation(curves)
    return {
        "memory": M,
        "fit": analysis.fit_decay(M),
        "curve": curves[0],
        "capacity": analysis.memory_capacity(model, T),
        "lyapunov": analysis.lyapunov_exponents(model, T),
        "target": analysis.target_memory(H, 20.0),
        "background": analysis.memory_function(model, T, background=X),
        "state size": analysis.effective_state_size(model, T, X, at=[5.0, 10.0]),
        "verdict": verdict,
        "block": verdict.blocks["all"],
        "fixed": analysis.fixed_points(model),
        "report": analysis.stability_report(model),
        "sensitivity": analysis.measured_sensitivity(model, X, T),
        "matrix": analysis.expected_gauss_newton(model),
    }


def test_each_has_a_line_of_numbers_a_table_of_equal_columns_and_a_picture(results):
    for name, result in results.items():
        assert "tensor" not in repr(result)
        assert "\n" not in repr(result)
        assert len(repr(result)) < 400
        assert len({len(column) for column in columns(result).values()}) == 1
        axes = Figure().subplots()
        if name in ("fixed", "report"):
            with pytest.raises(ValueError, match="no picture"):
                result.plot(axes)
        else:
            assert result.plot(axes) is axes
            assert axes.get_lines()
            assert axes.get_legend() is not None
    assert repr(results["memory"]).startswith("MemoryFunction((1+t)^-1.5, heaviside, all |x|, 41 times: M(0) = 1, M(20) = ")
    assert repr(results["fit"]).startswith("DecayFit(power law, exponent 1.5")


def test_the_table_of_an_ensemble_has_a_row_for_each_member_and_time():
    model = ContinuousRNN(1, 2, 1, activation="linear", ensemble=(3,), dtype=torch.float64, seed=0)
    M = analysis.memory_function(model, T)
    table = columns(M)
    assert table["member_0"].tolist() == [k for k in range(3) for _ in range(41)]
    assert table["time"].tolist() == 3 * T.tolist()
    assert table["memory"].tolist() == M.values.flatten().tolist()


def test_a_frame_needs_pandas_and_says_so(results, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        results["memory"].to_frame()
    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=dict))
    assert results["curve"].to_frame()["beta"] == results["curve"].betas.tolist()


def test_memory_functions_are_drawn_together_on_axes_of_ones_own_and_as_a_vector_picture(results, tmp_path):
    M, fit = results["memory"], results["fit"]
    axes = Figure().subplots()
    assert plot_memory([M, M], ax=axes, labels=["one", "two"]) == [axes]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["one", "two"]
    M.plot(axes, label="three")
    colours = [line.get_color() for line in axes.get_lines()]
    assert len(set(colours)) == 3
    plot_memory([M, M], tmp_path / "both.pdf", fit=[fit, fit])
    plot_memory([M], tmp_path / "one.svg")
    assert (tmp_path / "both.pdf").read_bytes().startswith(b"%PDF")
    with pytest.raises(ValueError, match="expected a list of 2"):
        plot_memory([M, M], ax=axes, labels=["one"])
    with pytest.raises(ValueError, match="one for each"):
        plot_memory([M, M], ax=axes, fit=fit)


def test_what_holds_tensors_is_shown_in_few_lines():
    model = ContinuousRNN(1, 3, 1, activation="linear", dtype=torch.float64, seed=0)
    data = Data(T, X, H(X, T), X, H(X, T))
    response = model.respond(X, T)
    shown = [data, linear(T, X), response, response.solution, Trainer(model, data, TrainingConfig()), H, H.kernel]
    for one in shown:
        assert len(repr(one).splitlines()) <= 5
        assert len(repr(one)) < 300
    assert repr(data).startswith("Data(4 sequences to train and 4 to validate")
    assert repr(H) == "ConvolutionalFunctional((1+t)^-1.5)"
