from __future__ import annotations

import gzip
import math
import struct
import sys

import numpy as np
import pytest
import torch
from scipy.optimize import approx_fprime

from analysis.linear.theory import LogGrid, impulse_kernel
from analysis.papers.compute import image_classification, images
from analysis.papers.compute.gradient_scales import gradients, training_ratios
from analysis.papers.compute.image_classification import initial_rnn, initial_ssm, last_output, train_rnn, train_ssm
from analysis.papers.compute.kernel_gradient_flow import (
    descent,
    initial_model,
    late_energy,
    loss_and_gradient,
    plateau,
    weights_of,
)
from analysis.papers.curse_of_memory.plateau import COM_PLATEAU
from analysis.papers.engine.figure import Options
from analysis.papers.inverse_approximation.fig_9 import IA_9
from analysis.papers.stable_ssm.gradient import STABLE_SSM_GRADIENT
from analysis.papers.stable_ssm.table_2 import STABLE_SSM_LR
from odernn import DiscreteRNN, Exact, Fused
from targets import kernels

NAMES = ("direct", "exp", "softplus", "inverse")
DIGITS = {"name": "digits"}


# --- images ---------------------------------------------------------------------------------------------------------------------


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.astype(np.uint8).tobytes()


@pytest.fixture
def mnist(tmp_path):
    """A folder like MNIST's, of 12 training and 5 test images of 4x4; labels are plain files, images packed."""
    generator = np.random.default_rng(0)
    for part, count in (("train", 12), ("t10k", 5)):
        pixels = generator.integers(0, 256, (count, 4, 4))
        (tmp_path / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(pixels), mtime=0))
        (tmp_path / f"{part}-labels-idx1-ubyte").write_bytes(idx(np.arange(count) % 10))
    return tmp_path


def test_idx_files_are_read_plain_and_packed(tmp_path):
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    (tmp_path / "plain").write_bytes(idx(array))
    (tmp_path / "packed.gz").write_bytes(gzip.compress(idx(array), mtime=0))
    assert np.array_equal(images.read_idx(tmp_path / "plain"), array)
    assert np.array_equal(images.read_idx(tmp_path / "packed.gz"), array)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing", None, "there is no file"),
        ("empty", b"", "begins with nothing"),
        ("magic", b"\x00\x00\x0d\x03" + bytes(20), "begins with 00000d03"),
        ("header", b"\x00\x00\x08\x03\x00", "header alone needs 16"),
        ("short", idx(np.zeros((2, 3, 4)))[:-1], "is cut short: 39 bytes, its header says 40"),
        ("long", idx(np.zeros((2, 3, 4))) + b"\x00", "is too long"),
        ("text.gz", b"no gzip", "cannot be unpacked"),
        ("cut.gz", gzip.compress(idx(np.zeros((2, 3, 4))), mtime=0)[:-9], "cannot be unpacked"),
    ],
)
def test_damaged_idx_files_are_refused_in_one_line(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        images.read_idx(tmp_path / name)
    assert "\n" not in str(caught.value)


def found(folder):
    digits, mine = images.find(folder)
    assert digits.source == DIGITS
    return mine


def load(folder):
    mine = found(folder)
    return images.load(mine.source, **mine.places)


def test_mnist_is_found_where_it_lies_and_other_files_are_other_data(mnist, tmp_path):
    source = found(mnist).source
    assert source["name"] == "mnist"
    data = load(mnist)
    assert data.x.shape == (12, 16, 1)
    assert data.x_test.shape == (5, 16, 1)
    assert data.labels_test.tolist() == [0, 1, 2, 3, 4]
    assert abs(float(data.x.mean())) < 1e-6
    assert float(data.x.std(correction=0)) == pytest.approx(1, abs=1e-5)
    (mnist / "t10k-labels-idx1-ubyte").write_bytes(idx(np.arange(5) + 1))
    assert found(mnist).source["fingerprint"] != source["fingerprint"]
    with pytest.raises(ValueError, match="have changed"):
        images.load(source, str(mnist))
    changed = found(mnist).source
    (mnist / "MNIST").mkdir()
    for path in mnist.glob("*ubyte*"):
        path.rename(mnist / "MNIST" / path.name)
    # The folder is no part of what they are.
    assert found(mnist).source == changed
    assert found(mnist).places == {"folder": str(mnist / "MNIST")}


def test_a_part_of_mnist_is_an_error_and_none_of_it_means_digits(mnist, tmp_path):
    (mnist / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(ValueError, match="has no test labels: MNIST needs t10k-labels-idx1-ubyte"):
        images.find(mnist)
    for folder in (tmp_path / "elsewhere", None):
        assert [one.source for one in images.find(folder)] == [DIGITS]


def test_of_the_test_files_alone_a_part_is_for_training_the_same_for_everyone(mnist):
    for path in mnist.glob("train*"):
        path.unlink()
    assert found(mnist).source["name"] == "mnist-10k"
    data, again = load(mnist), load(mnist)
    assert torch.equal(data.x, again.x)
    assert data.x.shape == (4, 16, 1)
    assert data.x_test.shape == (1, 16, 1)
    assert sorted([*data.labels.tolist(), *data.labels_test.tolist()]) == [0, 1, 2, 3, 4]
    assert abs(float(data.x.mean())) < 1e-6


def test_labels_of_other_images_are_refused(mnist):
    (mnist / "train-labels-idx1-ubyte").write_bytes(idx(np.zeros(11)))
    with pytest.raises(ValueError, match="12 training images and 11 labels"):
        load(mnist)


def test_the_digits_are_split_once_for_all():
    first, second = images.load(DIGITS), images.load(DIGITS)
    assert first.x.shape == (1438, 64, 1)
    assert first.x_test.shape == (359, 64, 1)
    assert torch.equal(first.x, second.x)
    assert sorted(set(first.labels_test.tolist())) == list(range(10))


def test_missing_scikit_learn_is_named_and_mnist_does_without(mnist, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ValueError, match=r"pip install 'odernn\[images\]'"):
        images.load(DIGITS)
    assert len(load(mnist).labels) == 12


# --- classification -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def bars(monkeypatch):
    """A small data set: 12 pixels, the class is where the bright one is."""

    def some(count):
        labels = torch.randint(0, 10, (count,))
        x = 0.3 * torch.randn(count, 12, 1)
        x[torch.arange(count), labels] += 3
        return x, labels

    data = images.Images(*some(64), *some(32))
    monkeypatch.setattr(image_classification.images, "load", lambda source, folder: data)
    return data


SETTINGS = {"source": DIGITS, "hidden_size": 8, "rates": [0.05, 1.0], "steps_per_pixel": 3, "batch_size": 16, "seed": 1}


def test_all_parameterisations_start_from_the_same_model(bars):
    for train in (train_rnn, train_ssm):
        losses = [train(**SETTINGS, parameterization=name, learning_rate=1e-12, epochs=1)["test_loss"][0] for name in NAMES]
        assert losses == pytest.approx([losses[0]] * len(NAMES), rel=1e-5)


def test_the_solve_of_a_held_pixel_is_the_discrete_rnn(bars):
    model = initial_rnn("exp", 8, [0.05, 1.0], seed=0)
    plain = DiscreteRNN(1, 8, 10, "tanh", "symmetric", "exp")
    plain.load_state_dict(model.state_dict())
    held = bars.x[:5].repeat_interleave(3, dim=1)
    h0 = torch.zeros(8)
    # x_k acts on h_{k+1}: one more sample, which has no effect
    y = plain(torch.cat([held, held[:, -1:]], 1), torch.arange(held.shape[1] + 1.0), h0)
    torch.testing.assert_close(last_output(model, Fused("euler", substeps=3, check=False), bars.x[:5], 3), y[:, -1])


def test_the_state_space_model_starts_with_modes_of_one_size():
    model = initial_ssm("softplus", 64, [1e-3, 1.0], seed=0)
    rates = -model.spectrum().real.detach()
    # U in proportion to the rates: a constant input settles at U / rate, of order 1 for all
    settled = model.layer_weights[0].U.detach().flatten().abs() / rates
    slow, fast = settled[rates < 0.03], settled[rates >= 0.03]
    assert 0.3 < float(slow.mean() / fast.mean()) < 3


def test_training_learns_and_repeats(bars):
    runs = [train_ssm(**SETTINGS, parameterization="inverse", learning_rate=0.02, epochs=12) for _ in range(2)]
    assert runs[0] == runs[1]
    assert runs[0]["loss"][-1] < 0.9 * runs[0]["loss"][0]
    assert runs[0]["margin"] > 0


def test_what_diverges_is_nan_from_there_on(bars):
    long = {**SETTINGS, "steps_per_pixel": 100}
    run = train_ssm(**long, parameterization="direct", learning_rate=5.0, epochs=3)
    assert all(len(run[name]) == 3 for name in ("loss", "test_loss", "test_accuracy"))
    assert math.isnan(run["test_loss"][-1])
    stable = train_ssm(**long, parameterization="inverse", learning_rate=5.0, epochs=3)
    assert math.isfinite(stable["test_loss"][-1])


def test_w_can_have_a_learning_rate_of_its_own(bars):
    run = train_ssm(**SETTINGS, parameterization="direct", learning_rate=0.1, epochs=2, recurrent_learning_rate=1e-12)
    start = initial_ssm("direct", 8, [0.05, 1.0], seed=1)
    assert run["margin"] == pytest.approx(float(start.stability_margin().detach()), rel=1e-5)
    assert run["loss"][1] < run["loss"][0]


def test_w_of_the_rnn_alone_can_be_kept_as_it_is(bars):
    run = train_rnn(**SETTINGS, parameterization="direct", learning_rate=0.05, epochs=2, recurrent_learning_rate=0.0)
    start = initial_rnn("direct", 8, [0.05, 1.0], seed=1)
    assert run["margin"] == pytest.approx(float(start.stability_margin().detach()), rel=1e-6)
    assert run["loss"][1] < run["loss"][0]
    free = train_rnn(**SETTINGS, parameterization="direct", learning_rate=0.05, epochs=2)
    assert free["margin"] != pytest.approx(run["margin"], rel=0.01)


def test_euler_steps_diverge_where_an_eigenvalue_is_beyond_their_stability_and_the_exact_solve_does_not(bars):
    long = {**SETTINGS, "steps_per_pixel": 40, "parameterization": "exp", "learning_rate": 5.0, "epochs": 2}
    assert math.isnan(train_ssm(**long, euler=True)["test_loss"][-1])
    assert math.isfinite(train_ssm(**long)["test_loss"][-1])
    assert math.isfinite(train_ssm(**{**long, "parameterization": "inverse"}, euler=True)["test_loss"][-1])


def test_eigenvalues_can_start_at_growth(bars):
    run = train_ssm(**SETTINGS, parameterization="direct", learning_rate=1e-12, epochs=1, growing=True)
    start = initial_ssm("direct", 8, [0.05, 1.0], seed=1)
    assert run["margin"] == pytest.approx(-float(start.layer_weights[0].recurrence.w.detach().abs().max()), rel=1e-5)


def test_overflowing_states_come_back_as_they_are(bars):
    model = initial_ssm("direct", 4, [0.05, 1.0], seed=0)
    model.set_matrix(torch.diag(torch.tensor([5.0, -1.0, -1.0, -1.0])))
    # tanh hides an infinite state, whose gradient is no number
    y = last_output(model, Exact(), bars.x[:2], 100)
    (gradient,) = torch.autograd.grad(y.sum(), model.layer_weights[0].U)
    assert not torch.isfinite(gradient).all()


# --- gradients ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_gradients_obey_the_bound_and_reach_it(name):
    found = gradients("polynomial:exponent=1.1", name, 1e-3, 1.0, 5, seed=0)
    shares = (found["gradients"] / found["bounds"]).numpy()
    assert shares.max() <= 1.001
    assert shares[0] > 0.9


def test_training_ratios_start_from_one_model():
    runs = {name: training_ratios("polynomial:exponent=1.1", name, 4, 1e-2, 1.0, 1e-3, 5, seed=0) for name in NAMES}
    assert len({round(run["losses"][0], 9) for run in runs.values()}) == 1
    assert max(runs["direct"]["ratios"]) > 100 * max(runs["inverse"]["ratios"])


# --- the plateau ----------------------------------------------------------------------------------------------------------------


def test_the_closed_form_loss_is_the_quadrature_and_its_gradient_the_difference_quotient():
    model = initial_model(3, seed=2)
    weights, center = weights_of(model), 6.0
    loss, gradient = loss_and_gradient(weights, center)
    grid = LogGrid.build(100.0, (center,), nodes_per_panel=16)
    rho = torch.from_numpy(kernels.get("two_part", center=center).values(grid.times.numpy())[:, 0])
    with torch.no_grad():
        measured = float(grid.weights @ (rho - impulse_kernel(model.field(), grid)[0]).square())
    assert loss == pytest.approx(measured, rel=1e-8)
    quotient = approx_fprime(weights, lambda w: loss_and_gradient(w, center)[0], 1e-7)
    assert gradient == pytest.approx(quotient, abs=1e-5)


def test_without_the_late_part_only_its_energy_is_left():
    weights = np.array([1.0, 1.0, 1.0])  # e^{-t}, learned
    assert loss_and_gradient(weights, 12.0)[0] == pytest.approx(late_energy(12.0), rel=1e-4)


def test_plateaus_grow_with_memory_and_gradient_descent_agrees():
    flows = [plateau(center, 4, seed=0, drop=0.05, limit=1e6) for center in (4.0, 6.0, 8.0)]
    lengths = [flow["stop"] - flow["start"] for flow in flows]
    assert lengths[0] < lengths[1] < lengths[2]
    assert flows[0]["stop"] == pytest.approx(descent(4.0, 4, 0, 0.05, 0.01, 2000)["stop"], rel=0.02)
    assert descent(8.0, 4, 0, 0.05, 0.01, 10)["stop"] is None


def test_a_plateau_that_outlasts_the_limit_has_no_end():
    assert plateau(12.0, 4, seed=0, drop=0.05, limit=100.0)["stop"] is None


# --- figures --------------------------------------------------------------------------------------------------------------------


def invented(job):
    """A result of the right shape, without the computation."""
    settings, generator = job.settings, np.random.default_rng(len(str(job)))
    if job.compute in (train_rnn, train_ssm):
        epochs = settings["epochs"]
        bad = settings["parameterization"] == "direct" and settings["learning_rate"] > 0.01
        loss = [math.nan] * epochs if bad else list(1 + generator.random(epochs))
        return {"loss": loss, "test_loss": loss, "test_accuracy": [value / 3 for value in loss], "margin": 0.1}
    length = math.exp(settings["center"] + generator.normal())
    if job.compute is descent:
        return {"stop": length}
    return {"start": 1.0, "stop": 1 + length, "times": [1.0, 2.0, length], "losses": [2.0, 1.3, 1.0], "level": 1.25}


@pytest.mark.slow
@pytest.mark.parametrize("figure", [IA_9, STABLE_SSM_LR, COM_PLATEAU], ids=lambda figure: figure.name)
@pytest.mark.parametrize("quick", [False, True])
def test_figures_are_drawn_and_judged(figure, quick, tmp_path):
    jobs = figure.jobs(Options(quick=quick))
    data = figure.assemble([(job, invented(job)) for job in jobs])
    figure.plot(data, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    assert figure.claims(data)
    # Of so few runs there may be nothing to be found.
    for text in (figure.settings, *(() if quick else (figure.findings,))):
        assert text if isinstance(text, str) else text(data)
    if figure.table is not None:
        widths = {line.count("|") for line in figure.table(data).splitlines()}
        assert len(widths) == 1


@pytest.mark.parametrize("part", ["", "-10k"])
@pytest.mark.parametrize("figure", [IA_9, STABLE_SSM_LR], ids=lambda figure: figure.name)
def test_figures_show_mnist_beside_the_digits_where_it_is_and_say_so(figure, part, mnist, tmp_path):
    for path in mnist.glob("train*") if part else ():
        path.unlink()
    jobs = figure.jobs(Options(data=mnist))
    assert {job.settings["source"]["name"] for job in jobs} == {"digits", f"mnist{part}"}
    data = figure.assemble([(job, invented(job)) for job in jobs])
    assert "MNIST" in figure.settings(data)
    assert "does not come with" not in figure.settings(data)
    figure.plot(data, tmp_path / "figure.png")
    # Both are judged, and nothing of this machine is kept.
    for name in ("digits: ", "MNIST, 8,000 images: " if part else "MNIST: "):
        assert sum(claim.statement.startswith(name) for claim in figure.claims(data)) >= 5
    assert str(mnist) not in str([data, *(job.settings for job in jobs)])
    without = figure.jobs(Options())
    assert [job.settings for job in jobs if not job.places] == [job.settings for job in without]
    assert "MNIST does not come with" in figure.settings(figure.assemble([(job, invented(job)) for job in without]))


def test_diverged_runs_are_nan_in_the_table():
    data = STABLE_SSM_LR.assemble([(job, invented(job)) for job in STABLE_SSM_LR.jobs(Options())])
    direct = next(line for line in STABLE_SSM_LR.table(data).splitlines() if line.startswith("| direct | digits |"))
    assert direct.count("NaN") == 3


def test_the_gradient_figure_is_drawn(tmp_path):
    jobs = STABLE_SSM_GRADIENT.jobs(Options(quick=True))
    results = []
    for job in jobs:
        settings = {**job.settings, "steps": 3} if "steps" in job.settings else job.settings
        results.append((job, job.compute(**settings)))
    plain = [(job, {name: np.asarray(value).tolist() for name, value in result.items()}) for job, result in results]
    data = STABLE_SSM_GRADIENT.assemble(plain)
    STABLE_SSM_GRADIENT.plot(data, tmp_path / "figure.png")
    assert [claim.outcome for claim in STABLE_SSM_GRADIENT.claims(data)][:3] == ["held"] * 3
    assert STABLE_SSM_GRADIENT.rows(data)
