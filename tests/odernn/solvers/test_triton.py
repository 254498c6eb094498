"""The Triton kernels: through Triton's interpreter on the CPU, in a process of its own, and compiled wherever there is a GPU."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from problems import perturb_bias
from solves import RECURRENCES, assert_close, problem, relative, states_and_gradients
from triton_interpreter import INTERPRETED, needs_gpu, on_device, require_passed

from odernn import ContinuousRNN, Fused, StateSpaceModel, TorchDiffEq, activations, paths

triton = pytest.importorskip("triton", reason="triton is not installed")
import triton.language as tl  # noqa: E402

from odernn.solvers.backends import backend_for  # noqa: E402
from odernn.solvers.triton.forward import square_at  # noqa: E402
from odernn.solvers.triton.products import product  # noqa: E402


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED, reason="this is the inner process")
def test_the_kernels_pass_these_tests_in_tritons_interpreter():
    require_passed(__file__)


def compare(model, *, method="rk4", substeps=1, states=3e-6, gradients=3e-5, **options):
    """The kernels in float32 against the reference in float64."""
    arguments = problem(model, **options)
    expected = states_and_gradients(model, Fused(method, substeps, "torch", check=False), *arguments)
    model, arguments = on_device(model, arguments)
    found = states_and_gradients(model, Fused(method, substeps, "triton", check=False), *arguments)
    assert_close((found[0].cpu(), tuple(g.cpu() for g in found[1])), expected, states, gradients)


@needs_gpu
@pytest.mark.parametrize("interpolation", ["linear", "hold", "jumps"])
@pytest.mark.parametrize("recurrence", RECURRENCES, ids=lambda pair: pair[0])
def test_states_and_gradients_are_those_of_the_plain_form(recurrence, interpolation):
    model = perturb_bias(ContinuousRNN(2, 6, 1, "tanh", *recurrence, ensemble=(2,), dtype=torch.float64))
    compare(model, batch=18, times=4, interpolation=interpolation)


@needs_gpu
@pytest.mark.parametrize("activation", activations.ACTIVATIONS)
def test_every_activation_and_form(activation):
    for cls in (ContinuousRNN, StateSpaceModel):
        compare(perturb_bias(cls(1, 18, 1, activation, dtype=torch.float64)), times=4, substeps=2)


@needs_gpu
@pytest.mark.parametrize("recurrence", RECURRENCES, ids=lambda pair: pair[0])
def test_stacks_that_pass_on_their_states(recurrence):
    compare(perturb_bias(ContinuousRNN(2, 6, 1, "tanh", *recurrence, num_layers=3, ensemble=(2,), dtype=torch.float64)), times=4)


@needs_gpu
def test_an_activation_between_layers_is_not_taken():
    model = StateSpaceModel(1, 4, 1, "tanh", num_layers=2, dtype=torch.float64)
    model, (x, t, h0, *_) = on_device(model, problem(model, times=4))
    with pytest.raises(ValueError, match="'triton' takes no activation between layers: choose backend 'products'"):
        model.solve(paths.linear(t, x), t, h0, solver=Fused(backend="triton"))


@needs_gpu
@pytest.mark.parametrize("method", ["euler", "heun2", "bosh3"])
def test_every_number_of_stages(method):
    compare(perturb_bias(ContinuousRNN(1, 5, 1, dtype=torch.float64)), method=method, times=4, substeps=2)


@needs_gpu
@pytest.mark.parametrize(("m", "batch"), [(16, 1), (32, 17), (64, 33), (128, 3)])
def test_every_width(m, batch):
    model = perturb_bias(ContinuousRNN(1, m, 1, dtype=torch.float64))
    compare(model, batch=batch, times=3)


@needs_gpu
def test_a_long_path_goes_back_in_segments(monkeypatch):
    from odernn.solvers.triton import launch

    monkeypatch.setattr(launch, "_SEGMENT_BYTES", 4000)
    compare(perturb_bias(ContinuousRNN(1, 5, 1, dtype=torch.float64)), times=9)


@needs_gpu
@pytest.mark.parametrize("programs", [1, 4])
def test_a_program_takes_a_share_of_the_intervals(monkeypatch, programs):
    from odernn.solvers.triton import launch

    monkeypatch.setattr(launch, "_PROGRAMS", programs)
    compare(perturb_bias(ContinuousRNN(1, 5, 1, dtype=torch.float64)), times=8, substeps=2)


@needs_gpu
@pytest.mark.parametrize("m", [16, 128])
def test_products_of_parts_are_as_precise_as_those_of_float32(m):
    device = "cpu" if INTERPRETED else "cuda"
    generator = torch.Generator().manual_seed(m)
    x, W = (torch.randn(*shape, generator=generator).to(device) for shape in ((16, m), (m, m)))
    found = torch.empty_like(x)
    _multiply[(1,)](x, W, found, m)
    exact = x.double() @ W.double()
    size = x.double().abs() @ W.double().abs()
    assert float(((found - exact) / size).abs().max()) < 2 * float(((x @ W - exact) / size).abs().max())


@triton.jit
def _multiply(x, W, found, m: tl.constexpr):
    at = tl.arange(0, 16)[:, None] * m + tl.arange(0, m)[None, :]
    W_0, W_1, W_2 = square_at(W, m, m, False)
    tl.store(found + at, product(tl.load(x + at), W_0, W_1, W_2))


@needs_gpu
def test_what_is_not_finite_never_comes_out_as_a_number():
    model = ContinuousRNN(1, 4, 1, dtype=torch.float64)
    arguments = problem(model, times=4)
    arguments[0][2, 1] = float("nan")
    model, (x, t, h0, *_) = on_device(model, arguments)
    h = model.solve(paths.linear(t, x), t, h0, solver=Fused(backend="triton"), check=False).h
    finite = torch.isfinite(h).all(-1).cpu()
    assert not finite[2, 1:].any()
    assert finite[[0, 1, 3, 4]].all()


@needs_gpu
@pytest.mark.parametrize(
    ("size", "dtype", "message"), [(200, "float32", "at most 128"), (4, "float64", "computes in torch.float32")]
)
def test_models_beyond_the_kernels_limits_are_refused(size, dtype, message):
    device = "cpu" if INTERPRETED else "cuda"
    model = ContinuousRNN(1, size, 1, dtype=getattr(torch, dtype), device=device)
    x = torch.zeros(2, 3, 1, dtype=model.c.dtype, device=device)
    with pytest.raises(ValueError, match=message):
        model(x, torch.arange(3.0, device=device), solver=Fused(backend="triton"))


@pytest.mark.skipif(INTERPRETED, reason="the interpreter is told to work on the CPU")
def test_what_does_not_fit_is_refused_or_falls_back():
    model = ContinuousRNN(1, 4, 1, dtype=torch.float32)
    x, t = torch.zeros(2, 3, 1), torch.arange(3.0)
    with pytest.raises(ValueError, match="runs on cuda, got tensors on cpu"):
        model(x, t, solver=Fused(backend="triton"))


@pytest.mark.skipif(INTERPRETED, reason="the interpreter is told to work on the CPU")
@pytest.mark.parametrize(
    ("capability", "m", "dtype", "backend"),
    [
        ((9, 0), 128, "float32", "triton.launch"),
        ((9, 0), 129, "float32", "batched_products"),
        ((8, 6), 64, "float32", "triton.launch"),
        ((8, 6), 65, "float32", "batched_products"),
        ((7, 5), 4, "float32", "batched_products"),
        ((8, 0), 4, "float64", "batched_products"),
    ],
)
def test_what_is_too_wide_for_a_gpu_goes_through_batched_products(monkeypatch, capability, m, dtype, backend):
    states = SimpleNamespace(device=torch.device("cuda"), is_cuda=True, dtype=getattr(torch, dtype), shape=(1, 2, m))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert backend_for("auto", states).__name__ == f"odernn.solvers.{backend}"
    if backend == "batched_products":
        with pytest.raises(ValueError, match=r"backend 'triton' .*choose backend 'products'"):
            backend_for("triton", states)


@pytest.mark.skipif(INTERPRETED or not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu_it_is_the_default_and_larger_models_fall_back():
    for size in (64, 200):
        model = ContinuousRNN(1, size, 1, dtype=torch.float32, device="cuda")
        t = torch.linspace(0, 2, 20, device="cuda")
        x = torch.randn(32, 20, 1, device="cuda")
        h = model(x, t, solver=Fused()).detach()
        assert relative(h, model(x, t, solver=TorchDiffEq("rk4", adjoint=False))) < 1e-5
