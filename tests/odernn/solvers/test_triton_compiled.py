"""The Triton kernels compiled ahead of time for GPUs that are not there: nothing spills, all fits, all is quick to compile."""

from __future__ import annotations

import os
from functools import cache

import numpy as np
import pytest

triton = pytest.importorskip("triton", reason="triton is not installed")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the interpreter does not compile", allow_module_level=True)
if tuple(map(int, triton.__version__.split(".")[:2])) < (3, 3):
    pytest.skip("ahead of time, kernels are described to triton 3.3 and later", allow_module_level=True)
from odernn.solvers.backends import TRITON_MAX_SIZE, triton_size  # noqa: E402
from odernn.solvers.triton import ahead_of_time  # noqa: E402
from odernn.solvers.triton.ahead_of_time import ADAPTIVE_KERNELS, GPUS, KERNELS, WIDTHS, Compiled  # noqa: E402

if not (ahead_of_time.TOOLS / "cuobjdump").exists():
    pytest.skip("this triton brings no tools for NVIDIA GPUs", allow_module_level=True)

# Bytes that a program may have of a multiprocessor's shared memory, by compute capability.
SHARED = {80: 163 * 1024, 89: 99 * 1024, 90: 227 * 1024}


@cache
def compiled(name: str, m: int, capability: int, *settings: object) -> Compiled:
    return ahead_of_time.compile_kernel(name, m, capability, *settings)


def check_resources(one: Compiled) -> None:
    assert one.stack == 0
    assert one.registers <= min(255, 65536 // (32 * one.warps))
    assert one.shared <= SHARED[one.capability]
    assert one.seconds < 15


def check(one: Compiled, stages: int = 4) -> None:
    check_resources(one)
    # Six products of parts for every stage, on tensor cores that take 16 x 16 of 8 columns at once: each just once.
    tiles = max(16, one.m) // 16 * (max(16, one.m) // 8)
    assert one.products == stages * 6 * tiles / one.warps


def test_a_kernel_spills_nothing():
    check(compiled("forward", 64, 90))


@pytest.mark.slow
@pytest.mark.parametrize("capability", GPUS)
@pytest.mark.parametrize("m", WIDTHS)
@pytest.mark.parametrize("name", KERNELS)
def test_no_kernel_spills_for_any_width_and_gpu(name, m, capability):
    check(compiled(name, m, capability))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "substeps", "activation", "stages"),
    [("rk4", 2, "sigmoid", 4), ("heun3", 1, "relu", 3), ("euler", 1, "hardtanh", 1), ("rk4", 1, "linear", 4)],
)
@pytest.mark.parametrize("name", KERNELS)
def test_the_widest_kernels_spill_nothing_with_any_method(name, method, substeps, activation, stages):
    check(compiled(name, TRITON_MAX_SIZE, 80, method, substeps, activation), stages)


@pytest.mark.slow
@pytest.mark.parametrize("capability", GPUS)
@pytest.mark.parametrize("m", WIDTHS)
@pytest.mark.parametrize("name", ADAPTIVE_KERNELS)
def test_no_adaptive_kernel_spills_for_any_width_and_gpu(name, m, capability):
    check_resources(compiled(name, m, capability, "dopri5"))


@pytest.mark.slow
@pytest.mark.parametrize(("method", "activation"), [("bosh3", "relu"), ("tsit5", "sigmoid")])
@pytest.mark.parametrize("capability", GPUS)
@pytest.mark.parametrize("name", ADAPTIVE_KERNELS)
def test_the_widest_adaptive_kernels_spill_nothing_with_any_pair(name, capability, method, activation):
    check_resources(compiled(name, TRITON_MAX_SIZE, capability, method, 1, activation))


@pytest.mark.slow
@pytest.mark.parametrize("name", ADAPTIVE_KERNELS)
def test_what_adaptive_kernels_take_of_little_shared_memory_fits(name):
    assert compiled(name, triton_size((8, 9)), 80, "dopri5").shared <= SHARED[89]


@pytest.mark.slow
@pytest.mark.parametrize("name", KERNELS)
def test_what_a_gpu_with_little_shared_memory_is_given_fits(name):
    assert compiled(name, triton_size((8, 9)), 80).shared <= SHARED[89]


@pytest.mark.parametrize("terms", [16, 64, 128])
@pytest.mark.parametrize("sign", ["both", "one"])
def test_sums_of_six_products_that_tensor_cores_cut_off_err_no_more_than_those_of_float32(terms, sign):
    generator = np.random.default_rng(terms)
    x, y = generator.standard_normal((2, 5000, terms)).astype(np.float32)
    if sign == "one":
        x, y = abs(x), abs(y)
    exact, size = (x.astype(float) * y).sum(1), abs(x.astype(float) * y).sum(1)

    def error(found):
        return np.sqrt(np.mean(((found - exact) / size) ** 2))

    fused = np.zeros(len(x), np.float32)
    for k in range(terms):
        fused = (fused + x[:, k].astype(float) * y[:, k]).astype(np.float32)
    (x_0, x_1, x_2), (y_0, y_1, y_2) = parts(x), parts(y)
    small = on_tensor_cores((x_2, y_0), (x_1, y_1), (x_0, y_2))
    large = on_tensor_cores((x_1, y_0), (x_0, y_1), (x_0, y_0))
    assert error((small + large).astype(np.float32)) < 1.1 * error(fused)


def parts(x):
    """As `products.parts_of`, in float64."""
    found = []
    for _ in range(3):
        part = ((x.view(np.int32) + np.int32(0x8000)) & np.int32(-0x10000)).view(np.float32)
        found.append(part.astype(float))
        x = x - part
    assert not x.any()
    return found


def on_tensor_cores(*pairs):
    """Products of 16 terms at once, added without an error and then cut off to float32."""
    total = np.zeros(len(pairs[0][0]))
    for x, y in pairs:
        for k in range(0, x.shape[1], 16):
            total = total + (x[:, k : k + 16] * y[:, k : k + 16]).sum(1)
            near = total.astype(np.float32)
            total = np.where(abs(near) > abs(total), np.nextafter(near, np.float32(0)), near).astype(float)
    return total


def test_the_widest_w_follows_the_gpu():
    assert [triton_size(capability) for capability in ((7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0))] == [
        0, 128, 64, 64, 128, 128, 64,
    ]  # fmt: skip


def test_the_estimate_is_what_the_instructions_say():
    def instruction(operation, stall=1, waits=0, sets=(7, 7)):
        return ahead_of_time.Instruction(0, operation, None, stall, waits, sets)

    def cycles(*step, warps=4):
        return ahead_of_time.estimated_cycles(list(step), warps, 90)

    assert cycles(instruction("FFMA", 4), instruction("FFMA")) == 5
    # Loads come 33 cycles after they were asked for; who does not wait goes on.
    load = instruction("LDSM", sets=(2, 7))
    assert cycles(load, instruction("FFMA", waits=1 << 2)) == 34
    assert cycles(load, instruction("FFMA", waits=1 << 3)) == 2
    # Of 16 warps four share a tensor core.
    assert cycles(*[instruction("HMMA")] * 10, warps=16) == 10 * 6.5 * 4


def test_the_table_has_a_line_for_every_kernel(monkeypatch, capsys):
    example = Compiled("forward", 64, 90, 8, 16, 94, 0, 38916, 0.5, 96, 1755.0)
    monkeypatch.setattr(ahead_of_time, "compile_kernel", lambda *of: example)
    ahead_of_time.main()
    lines = capsys.readouterr().out.splitlines()
    assert "estimate" in lines[0]
    assert len(lines) == 1 + len(KERNELS + ADAPTIVE_KERNELS) * len(WIDTHS) * len(GPUS)
    assert lines[1].split()[-2:] == ["1000", "ns"]
