from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch
from scipy.special import airy

from targets import KERNELS, Kernel, kernels

T = np.array([0.0, 0.3, 1.0, 8.0, 9.5, 10.9, 12.0])


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [
        (kernels.exponential(), np.exp(-T)),
        (kernels.exponential(rate=0.25), np.exp(-0.25 * T)),
        (kernels.exponential(base=0.9), 0.9**T),
        (kernels.polynomial(), (1 + T) ** -1.5),
        (kernels.polynomial(exponent=1.1, scale=10), (1 + 0.1 * T) ** -1.1),
        (kernels.shift(), np.array([0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0])),
        (kernels.two_part(), np.exp(-T) + np.exp(-((T - 9) ** 2))),
        (kernels.airy(), airy(T - 6)[0]),
        (kernels.sine(frequency=2.0), np.sin(2 * T)),
    ],
    ids=lambda value: value.label if isinstance(value, Kernel) else "",
)
def test_kernel_values_are_those_of_the_formula(kernel: Kernel, expected: np.ndarray) -> None:
    np.testing.assert_allclose(kernel(T), expected, rtol=1e-14, atol=1e-16)


def test_the_airy_kernel_is_0_where_scipy_has_no_number() -> None:
    assert (kernels.airy(2.0)(np.array([200.0, 1e5, 1e7, 1e90])) == 0).all()


@pytest.mark.parametrize("name", KERNELS)
def test_every_kernel_is_zero_before_time_zero_and_answers_in_the_kind_it_was_asked_in(name: str) -> None:
    kernel = kernels.get(name)
    times = np.array([-2.0, -1e-9, 0.5, 3.0])
    values = kernel(times)
    assert values.shape == (4,)
    assert (values[:2] == 0).all()
    assert kernel(-1.0) == 0.0
    assert isinstance(kernel(0.5), float)
    assert kernel(0.5) == values[2]
    for dtype in (torch.float32, torch.float64):
        tensor = kernel(torch.tensor(times, dtype=dtype))
        assert tensor.dtype == dtype
        np.testing.assert_allclose(tensor.numpy(), values, rtol=0, atol=torch.finfo(dtype).eps * 10)
    np.testing.assert_array_equal(kernel(times.reshape(2, 2)), values.reshape(2, 2))


@pytest.mark.parametrize("name", KERNELS)
def test_every_kernel_survives_its_own_configuration_and_pickling(name: str) -> None:
    kernel = kernels.get(name)
    rebuilt = kernels.get(kernel.name, **json.loads(json.dumps(kernel.parameters)))
    for copy in (rebuilt, pickle.loads(pickle.dumps(kernel))):
        np.testing.assert_array_equal(copy(T), kernel(T))
        assert (copy.label, copy.breakpoints, copy.decay) == (kernel.label, kernel.breakpoints, kernel.decay)


def test_a_base_survives_its_configuration() -> None:
    kernel = kernels.exponential(base=0.9)
    assert kernel.parameters == {"base": 0.9}
    assert kernels.get("exponential", **kernel.parameters).label == "0.9^t"


def test_a_stack_has_one_channel_for_each_kernel_and_can_be_rebuilt() -> None:
    kernel = kernels.stack([kernels.exponential(), kernels.shift(), kernels.polynomial(1.1)])
    assert kernel.size == 3
    assert kernel.breakpoints == (9.0, 11.0)
    assert kernel.decay == "power"
    expected = np.stack([np.exp(-T), (T > 9) & (T < 11), (1 + T) ** -1.1], axis=-1)
    np.testing.assert_allclose(kernel(T), expected, rtol=1e-14)
    np.testing.assert_allclose(kernel(torch.from_numpy(T)).numpy(), expected, rtol=1e-14)
    assert kernel(1.0).shape == (3,)
    assert (kernel(np.array([-1.0])) == 0).all()
    rebuilt = kernels.get("stack", **json.loads(json.dumps(kernel.parameters)))
    np.testing.assert_array_equal(rebuilt(T), kernel(T))


def test_a_callable_may_be_infinite_at_zero_and_vector_valued() -> None:
    assert kernels.from_callable(lambda t: t**-0.5)(0.0) == np.inf
    kernel = kernels.from_callable(lambda t: np.stack([np.exp(-t), t * np.exp(-t)], axis=-1), name="pair")
    assert kernel.size == 2
    assert kernel(T).shape == (len(T), 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: kernels.exponential(rate=1.0, base=0.9), "both rate"),
        (lambda: kernels.exponential(rate=-1.0), "rate is -1.0, expected a finite number > 0"),
        (lambda: kernels.exponential(base=1.5), "base is 1.5, expected a finite number > 0 and < 1"),
        (lambda: kernels.polynomial(exponent=0), "exponent is 0"),
        (lambda: kernels.polynomial(scale=float("nan")), "scale is nan"),
        (lambda: kernels.polynomial(exponent="steep"), "exponent is 'steep'"),
        (lambda: kernels.shift(start=11, stop=9), "start = 11 and stop = 9"),
        (lambda: kernels.two_part(center=-1), "center is -1"),
        (lambda: kernels.airy(shift=-6), "shift is -6"),
        (lambda: kernels.sine(frequency=0), "frequency is 0"),
        (lambda: kernels.stack([]), "no kernel came"),
        (lambda: kernels.stack([kernels.stack([kernels.sine(), kernels.sine()])]), "part of size 2"),
        (lambda: kernels.from_callable(3.0), "the kernel is a float"),
        (lambda: kernels.from_callable(lambda t: 1.0), r"gave shape \(\) for times of shape \(3,\)"),
        (lambda: kernels.from_callable(lambda t: t[:2]), r"gave shape \(2,\)"),
        (lambda: kernels.from_callable(lambda t: 1 if t > 1 else 0), "failed on an array of times"),
        (lambda: kernels.from_callable(lambda t: np.exp(1j * t)), "complex128, expected real"),
        (lambda: kernels.from_callable(np.cos, breakpoints=(0.0,)), "breakpoints are"),
        (lambda: kernels.from_callable(np.cos, decay="slow"), "unknown decay 'slow', expected one of compact"),
        (
            lambda: kernels.get("gauss"),
            "unknown kernel 'gauss', expected one of exponential, polynomial, shift",
        ),
        (lambda: kernels.get("sine", rate=1), "unknown parameter of kernel sine 'rate', expected one of frequency"),
        (lambda: kernels.sine()(np.array([1.0, np.nan])), "t holds NaN"),
    ],
)
def test_wrong_kernels_are_refused_in_one_line(make, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_load_reads_names_and_parameters() -> None:
    assert kernels.load("airy").label == "Ai(t-6)"
    assert kernels.load("polynomial:exponent=1.1,scale=10").label == "(1+0.1t)^-1.1"


USER_FILE = """
import numpy as np
from targets import kernels

def damped_cosine(t):
    return np.exp(-t) * np.cos(5 * t)

def slow():
    return kernels.polynomial(exponent=1.1)

def broken():
    raise RuntimeError("no data")

def leaves():
    raise SystemExit(0)

ready = kernels.sine(frequency=3.0)
number = 3
"""


@pytest.mark.parametrize(
    ("attribute", "expected"),
    [
        ("damped_cosine", np.exp(-T) * np.cos(5 * T)),
        ("slow", (1 + T) ** -1.1),
        ("ready", np.sin(3 * T)),
    ],
)
def test_load_reads_a_users_file_and_can_do_so_again(tmp_path, attribute: str, expected: np.ndarray) -> None:
    path = tmp_path / "mine.py"
    path.write_text(USER_FILE)
    kernel = kernels.load(f"{path}:{attribute}")
    np.testing.assert_allclose(kernel(T), expected, rtol=1e-14, atol=1e-16)
    np.testing.assert_array_equal(kernels.get(kernel.name, **kernel.parameters)(T), kernel(T))


def test_load_reads_an_importable_module_and_numpy_functions() -> None:
    np.testing.assert_array_equal(kernels.load("numpy:cos")(T), np.cos(T))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("gauss", "unknown kernel 'gauss', expected one of exponential"),
        ("gauss:rate=1", "unknown kernel 'gauss', expected one of exponential"),
        ("exponential:rate", "'rate' in 'exponential:rate' is no parameter"),
        ("exponential:rate=fast", "rate is 'fast', expected a number"),
        ("exponential:speed=1", "unknown parameter of kernel exponential 'speed', expected one of rate, base"),
        ("{directory}/other.py:rho", "there is no file"),
        ("{directory}/mine.py:rho", "has no attribute 'rho'"),
        ("{directory}/mine.py:number", "is a int, expected a callable"),
        ("{directory}/mine.py:broken", r"failed \(RuntimeError: no data\)"),
        ("{directory}/mine.py:leaves", r"failed \(SystemExit: 0\)"),
        ("{directory}/wrong.py:rho", "could not be loaded .SyntaxError"),
        ("no_such_module:rho", "could not be loaded .ModuleNotFoundError.*expected one of exponential"),
        (":rho", "names nothing"),
    ],
)
def test_load_refuses_what_is_not_there(tmp_path, spec: str, message: str) -> None:
    (tmp_path / "mine.py").write_text(USER_FILE)
    (tmp_path / "wrong.py").write_text("def rho(:")
    with pytest.raises(ValueError, match=message):
        kernels.load(spec.format(directory=tmp_path))
