"""Models inside torch.compile, torch.export and torch.func: as they are outside, and with the same checks."""

from __future__ import annotations

import gc
import io
import subprocess
import sys
import weakref

import pytest
import torch
from problems import F64, combinations, perturb_bias
from torch.func import functional_call, stack_module_state
from torch.utils.checkpoint import checkpoint

from odernn import (
    Adaptive,
    ContinuousRNN,
    DiscreteRNN,
    DiscreteSSM,
    DivergedSolve,
    Exact,
    Fused,
    InaccurateSolve,
    Path,
    Solution,
    Solver,
    StateSpaceModel,
    TorchDiffEq,
    linear,
    stack,
)
from odernn.activations import Activation
from odernn.solvers import descriptions, operators

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of PyTorch itself

CONTINUOUS, DISCRETE = (ContinuousRNN, StateSpaceModel), (DiscreteRNN, DiscreteSSM)
MODELS = CONTINUOUS + DISCRETE
T = torch.linspace(0, 2, 9, dtype=F64)
X = torch.randn(3, 9, 1, dtype=F64, generator=torch.Generator().manual_seed(0))
SOFTSIGN = Activation("softsign", torch.nn.functional.softsign, rests_at_zero=True, bound=1.0)


class Euler(Solver):
    order = 1

    def solve(self, field, path, t, h0):
        states = [h0]
        for left, right in zip(t[:-1], t[1:]):
            states.append(states[-1] + (right - left) * field(states[-1], path(left)))
        return Solution(t, torch.stack(states, -2), evaluations=t.numel() - 1)


class Leaky(DiscreteRNN):
    def state_equation(self, h, value, step):
        return (1 - step) * h + step * value


@pytest.fixture(autouse=True)
def _compile_anew():
    torch._dynamo.reset()


@pytest.fixture
def records(monkeypatch):
    """Weak references to the records of solves."""
    found = []
    original = operators._recorded

    def noted(*arguments):
        record = original(*arguments)
        found.append(weakref.ref(record))
        return record

    monkeypatch.setattr(operators, "_recorded", noted)
    return found


def make(cls=ContinuousRNN, seed=0, **options):
    return perturb_bias(cls(1, 4, 1, seed=seed, **{"dtype": F64} | options))


def compiled(function, backend="aot_eager", **options):
    return torch.compile(function, fullgraph=True, backend=backend, **options)


def with_gradients(call, model, x=X, t=T, **options):
    y = call(x, t, **options)
    return [y.detach(), *torch.autograd.grad(y.square().sum(), list(model.parameters()))]


def assert_same(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


def assert_compiles(model, **options):
    assert_same(with_gradients(compiled(model), model, **options), with_gradients(model, model, **options))


def operator_arguments(model, method="automatic", path=None):
    field, path = model.field(), path or linear(T, X)
    h0 = torch.zeros(*model.ensemble, 3, field.size, dtype=F64)
    description, inputs = operators._described(method, field, path, h0, from_rest=False, check=True)
    return [tensor.detach().requires_grad_() for tensor in inputs], path.times, T, description


@pytest.mark.parametrize(
    ("options", "jumps"), [({}, True), ({"recurrence": "complex", "ensemble": (2,), "num_layers": 2}, False)], ids=str
)
@pytest.mark.parametrize("operator", ["solve", "solve_backward", "check"])
def test_the_operators_keep_the_rules_of_operators(operator, options, jumps):
    # (The complex one by torchdiffeq: its gradient is wrong where PyTorch leaves out the conjugates, as it does in some places.)
    path = Path(T, "jumps", X[:, :-1], X[:, 1:] + 1) if jumps else None
    inputs, times, t, description = operator_arguments(make(StateSpaceModel, **options), "automatic", path)
    wanted = [True] * len(inputs)
    h, token = torch.ops.odernn.solve(inputs, times, t, description, wanted)
    given = {
        "solve": (inputs, times, t, description, wanted),
        "solve_backward": (
            torch.ones_like(h),
            h.detach(),
            token,
            [one.detach() for one in inputs],
            times,
            t,
            description,
            wanted,
        ),
        "check": (h.detach().requires_grad_(), [one.detach() for one in inputs], times, t, description),
    }
    torch.library.opcheck(getattr(torch.ops.odernn, operator).default, given[operator])


@pytest.mark.parametrize("cls", MODELS)
def test_a_compiled_model_has_the_values_and_gradients_of_the_model(cls, records):
    model = make(cls)
    assert_compiles(model)
    assert len(records) == 1  # the gradient came from the solve, not from another


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cls", "recurrence", "parameterization"),
    sorted({case[:3] for case in combinations((ContinuousRNN, DiscreteSSM))}, key=str),
    ids=str,
)
def test_every_recurrence_and_parameterization_compiles(cls, recurrence, parameterization):
    assert_compiles(make(cls, recurrence=recurrence, parameterization=parameterization))


@pytest.mark.parametrize("options", [{"ensemble": (2, 3)}, {"num_layers": 2}, {"dtype": torch.float32}], ids=str)
@pytest.mark.parametrize("cls", [StateSpaceModel, DiscreteRNN])
def test_ensembles_stacks_and_single_precision_compile(cls, options):
    dtype = options.get("dtype", F64)
    assert_compiles(make(cls, **options), x=X.to(dtype), t=T.to(dtype))


@pytest.mark.parametrize("h0", ["zero", torch.full((3, 4), 0.1, dtype=F64)], ids=["zero", "given"])
@pytest.mark.parametrize("cls", [ContinuousRNN, DiscreteSSM])
def test_initial_states_and_held_inputs_compile(cls, h0):
    assert_compiles(make(cls), h0=h0, interpolation="hold")


@pytest.mark.parametrize(
    "solver",
    [
        Fused("midpoint", 2, check=False),
        Fused(backend="torch", check=False),
        Exact(),
        Adaptive("tsit5", rtol=1e-5),
        TorchDiffEq(),
        TorchDiffEq("rk4", adjoint=False, check=False),
        Euler(),
    ],
    ids=repr,
)
def test_every_solver_compiles_one_of_the_users_own_too(solver):
    assert_compiles(make(StateSpaceModel), solver=solver)


@pytest.mark.parametrize("cls", [ContinuousRNN, Leaky, DiscreteRNN])
def test_activations_and_state_equations_of_the_users_own_compile(cls):
    assert_compiles(make(cls, activation="tanh" if cls is Leaky else SOFTSIGN))


def test_the_states_of_any_path_compile():
    model = make()
    path, later = Path(T, "jumps", X[:, :-1], X[:, 1:] + 1), T[1:-1] + 0.01

    def states(samples, ends):
        return model.solve(Path(T, "jumps", samples, ends), later).h

    assert torch.equal(compiled(states)(path.samples, path.ends), model.solve(path, later).h)
    with pytest.raises(ValueError, match=r"path is defined on \[0, 2\], got t over \[1, 3\]"):
        compiled(lambda x: model.solve(linear(T, x), T + 1).h)(X)


def test_respond_does_not_tell_the_cost_of_a_compiled_solve():
    solution = compiled(lambda x: make_once.respond(x, T).solution.h)
    make_once = make()
    expected = make_once.respond(X, T).solution
    assert torch.equal(solution(X), expected.h)
    assert compiled(lambda x: (x, make_once.respond(x, T).solution.evaluations))(X)[1] is None


@pytest.mark.slow
@pytest.mark.parametrize("cls", MODELS)
def test_the_default_backend_of_torch_compile(cls, records):
    model = make(cls, recurrence="symmetric", parameterization="exp")
    found = with_gradients(compiled(model, "inductor"), model)
    for one, other in zip(found, with_gradients(model, model)):  # it computes W from the raw weights in an order of its own
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-11)
    assert len(records) == 1


def test_one_compiled_model_takes_batches_of_any_size():
    model = make()
    call = compiled(model)
    for batch in (3, 5, 1, 0):
        x = torch.randn(batch, 9, 1, dtype=F64)
        assert torch.equal(call(x, T), model(x, T))


def test_training_compiled_is_training():
    losses = []
    for wrap in (compiled, lambda model: model):
        model = make()
        call, optimizer, found = wrap(model), torch.optim.Adam(model.parameters(), 0.01), []
        for _ in range(4):
            optimizer.zero_grad()
            loss = (call(X, T) - X.cumsum(1)).square().mean()
            loss.backward()
            optimizer.step()
            found.append(loss.item())
        losses.append(found)
    assert losses[0] == losses[1]
    assert losses[0][-1] < losses[0][0]


def test_what_is_kept_for_the_gradient_goes_with_the_graph(records):
    model = make()
    y = compiled(model)(X, T)
    assert records[0]() is not None
    y.sum().backward()
    del y
    gc.collect()
    assert [record() for record in records] == [None]
    with torch.no_grad():
        compiled(model)(X, T)
    assert len(records) == 1  # and nothing is kept where no gradient is wanted


def test_a_gradient_that_was_not_foreseen_is_that_of_the_same_solve_once_more(records):
    inputs, times, t, description = operator_arguments(make())
    gradients = []
    for wanted in ([True] * len(inputs), [False] * len(inputs)):
        h, _ = torch.ops.odernn.solve(inputs, times, t, description, wanted)
        gradients.append(torch.autograd.grad(h.square().sum(), inputs))
    assert_same(*gradients)
    assert len(records) == 2


def test_a_record_is_not_believed_once_its_input_was_overwritten(records):
    inputs, times, t, description = operator_arguments(make())
    given, wanted = [tensor.detach() for tensor in inputs], [True] * len(inputs)
    h, token = torch.ops.odernn.solve(given, times, t, description, wanted)
    g = torch.ones_like(h)
    expected = torch.ops.odernn.solve_backward(g, h, token, given, times, t, description, wanted)
    moved = [tensor.clone() for tensor in given]  # as by a program that computes them anew
    given[-2].zero_()  # x
    assert_same(torch.ops.odernn.solve_backward(g, h, token, moved, times, t, description, wanted), expected)
    assert len(records) == 2


@pytest.mark.parametrize("cls", MODELS)
def test_checks_wait_for_values_and_are_made(cls):
    model = make(cls, activation="linear")
    call = compiled(model)
    call(X, T)
    with pytest.raises(ValueError, match=r"t is not increasing \(t\[0\] = 2"):
        call(X, T.flip(0))
    with pytest.raises(ValueError, match="x holds NaN or infinite"):
        call(X / 0, T)
    with pytest.raises(ValueError, match="h0 holds NaN"):
        call(X, T, torch.full((4,), torch.nan, dtype=F64))
    model.set_matrix(torch.full((4, 4), 1e200, dtype=F64))
    with pytest.raises(DivergedSolve):
        call(X, T, torch.ones(4, dtype=F64))
    model.set_matrix(torch.eye(4) if cls is DiscreteSSM else torch.zeros(4, 4))
    with pytest.raises(DivergedSolve, match="no rest state"):
        call(X, T)


def test_a_loop_that_was_traced_is_checked():
    model = make(Leaky, activation="relu")
    call = compiled(model)
    with pytest.raises(ValueError, match="t is not increasing"):
        call(X, T.flip(0))
    model.set_matrix(1e200 * torch.eye(4, dtype=F64))
    with pytest.raises(DivergedSolve):
        call(X, T, torch.ones(4, dtype=F64))


def test_shapes_are_checked_while_tracing():
    for bad in ((X[:, :5], T), (X.float(), T), (X, T, torch.zeros(7, dtype=F64)), (X, T.clone().requires_grad_())):
        with pytest.raises(Exception, match=r"with 9 times|the model torch.float64|h0 must have a shape|take t.detach\(\)"):
            compiled(make())(*bad)


def test_a_compiled_solve_warns_of_its_steps():
    model = make()
    model.set_matrix(-100 * torch.eye(4, dtype=F64))
    with pytest.warns(InaccurateSolve):
        compiled(model)(X, T, solver=Fused())


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("cls", MODELS)
def test_an_exported_model_runs_on_other_batches_and_times(cls, strict):
    if strict and cls is not ContinuousRNN:
        pytest.skip("one is enough")
    model, batch, points = make(cls), torch.export.Dim("batch"), torch.export.Dim("points", min=2)
    program = torch.export.export(model, (X, T), dynamic_shapes=({0: batch, 1: points}, {0: points}), strict=strict)
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    buffer.seek(0)
    x, t = torch.randn(5, 7, 1, dtype=F64), torch.linspace(0, 1, 7, dtype=F64)
    for one in (program.module(), torch.export.load(buffer).module()):
        names = [name for name, _ in one.named_parameters()]
        expected = dict(zip((name for name, _ in model.named_parameters()), with_gradients(model, model, x, t)[1:]))
        assert_same(with_gradients(one, one, x, t), [model(x, t).detach(), *(expected[name] for name in names)])
    with pytest.raises(ValueError, match="t is not increasing"):
        program.module()(x, t.flip(0))


@pytest.mark.slow
def test_an_exported_program_runs_in_another_process(tmp_path):
    model = make(StateSpaceModel, recurrence="complex", parameterization="exp", ensemble=(2,))
    torch.export.save(torch.export.export(model, (X, T)), tmp_path / "model.pt2")
    torch.save((X, T), tmp_path / "inputs.pt")
    code = "import torch, odernn; p = torch.export.load('model.pt2').module(); torch.save(p(*torch.load('inputs.pt')), 'y.pt')"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    assert torch.equal(torch.load(tmp_path / "y.pt"), model(X, T))


def test_a_program_with_code_of_another_process_says_so(monkeypatch):
    program = torch.export.export(make(activation=SOFTSIGN), (X, T)).module()
    program(X, T)
    monkeypatch.setattr(descriptions, "_own", [])
    with pytest.raises(ValueError, match=r"softsign.* code of yours"):
        program(X, T)


# torch.func


def named(model):
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def call(model, solver, weights, x=X):
    return functional_call(model, weights, (x, T), {"solver": solver})


def assert_near(found, expected, tolerance=1e-10):
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert torch.allclose(one, other, rtol=tolerance, atol=tolerance)


TRANSFORMED = [
    (ContinuousRNN, None, {}),
    (ContinuousRNN, Fused(check=False), {"recurrence": "complex", "parameterization": "softplus"}),
    (StateSpaceModel, None, {"recurrence": "diagonal", "parameterization": "lru", "num_layers": 2}),
    (StateSpaceModel, Exact(), {}),
    (ContinuousRNN, TorchDiffEq("rk4", adjoint=False, check=False), {}),
    (DiscreteRNN, None, {}),
    (DiscreteSSM, None, {"recurrence": "symmetric", "parameterization": "exp"}),
]


@pytest.mark.parametrize(("cls", "solver", "options"), TRANSFORMED, ids=str)
def test_transforms_of_functions_are_those_of_autograd(cls, solver, options):
    models = [make(cls, seed, **options) for seed in range(3)]
    model, together = models[0], stack(models)
    weights = named(model)
    many, buffers = ({name: value.detach() for name, value in state.items()} for state in stack_module_state(models))

    def loss(weights, x=X):
        return call(model, solver, weights, x).square().sum()

    found = torch.func.grad(loss)(weights)
    assert_near(found.values(), with_gradients(model, model, solver=solver)[1:])
    # over weights: as the ensemble
    expected = with_gradients(together, together, solver=solver)
    assert_near([torch.vmap(lambda w, b: call(model, solver, w | b))(many, buffers)], expected[:1])
    expected = dict(zip((name for name, _ in together.named_parameters()), expected[1:]))

    def one(weights, buffers):
        return loss(weights | buffers)

    for found in (
        torch.vmap(torch.func.grad(one))(many, buffers),
        torch.func.grad(lambda w: torch.vmap(one)(w, buffers).sum())(many),
    ):
        assert_near([found[name] for name in expected], expected.values())
    # over sequences
    found = torch.vmap(torch.func.grad(loss), (None, 0))(weights, X.unsqueeze(1))
    alone = [with_gradients(model, model, X[k : k + 1], solver=solver)[1:] for k in range(3)]
    assert_near(found.values(), [torch.stack(each) for each in zip(*alone)], 1e-8 if solver is None else 1e-10)


@pytest.mark.parametrize("solver", [None, TorchDiffEq("rk4", adjoint=False, check=False)], ids=str)
def test_jacobians(solver):
    model = make()

    def last(x):
        return model(x, T, solver=solver)[:, -1, 0]

    assert_near([torch.func.jacrev(last)(X)], [torch.autograd.functional.jacobian(last, X)])


def test_vmap_may_stand_inside_what_is_compiled():
    models = [make(seed=seed) for seed in range(3)]
    many = stack_module_state(models)[0]
    call_all = torch.vmap(lambda w: call(models[0], None, w))
    assert torch.equal(compiled(call_all)(many), stack(models)(X, T))
    with pytest.raises(Exception, match=r"torch.func.grad .* inside torch.compile: compile the model alone"):
        compiled(torch.func.grad(lambda w: call(models[0], None, w).sum()))(named(models[0]))


@pytest.mark.parametrize("cls", [ContinuousRNN, StateSpaceModel])
def test_second_derivatives_are_refused_and_torchdiffeq_has_them(cls):
    model = make(cls)
    weights = named(model)

    def loss(U, solver):
        return call(model, solver, weights | {"layers.0.U": U}).square().sum()

    def penalty(U, solver):
        return torch.func.grad(loss)(U, solver).square().sum()

    U = weights["layers.0.U"]
    with pytest.raises(RuntimeError, match=r"cannot be differentiated again.*TorchDiffEq\(\.\.\., adjoint=False\)"):
        torch.func.grad(penalty)(U, None)
    for solver in (None, TorchDiffEq(adjoint=False)):
        with pytest.raises(ValueError, match=r"forward mode.*TorchDiffEq\('rk4', \.\.\., adjoint=False\)"):
            torch.func.hessian(loss)(U, solver)
    solver = TorchDiffEq("rk4", adjoint=False)
    expected = torch.autograd.functional.hessian(lambda U: loss(U, solver), U)
    assert_near([torch.func.hessian(loss)(U, solver)], [expected])


def test_transforms_keep_the_checks_of_the_plain_path():
    model, solver = make(), TorchDiffEq("rk4", adjoint=False)
    with pytest.raises(ValueError, match="x holds NaN"):
        torch.func.grad(lambda x: model(x, T, solver=solver).sum())(X / 0)
    with pytest.raises(ValueError, match="t is not increasing"):
        torch.vmap(lambda x: model(x, T.flip(0)))(X.unsqueeze(1))
    model.set_matrix(-30 * torch.eye(4, dtype=F64))
    with pytest.warns(InaccurateSolve):
        torch.func.grad(lambda x: model(50 * x, T, solver=solver).sum())(X)
    model = make(activation="relu")
    model.set_matrix(400 * torch.eye(4, dtype=F64))
    with pytest.raises(DivergedSolve):
        torch.vmap(lambda x: model(x, 10 * T))(X.unsqueeze(1))


def test_times_have_no_axis_of_a_batch_and_no_gradient():
    model = make()
    with pytest.raises(ValueError, match=r"torch\.vmap over the times"):
        torch.vmap(lambda t: model(X, t))(torch.stack([T, 2 * T]))
    for times in (lambda: model(X, T.clone().requires_grad_()), lambda: torch.func.grad(lambda t: model(X, t).sum())(T)):
        with pytest.raises(ValueError, match=r"times require a gradient.*TorchDiffEq\(\.\.\., adjoint=False\)"):
            times()


# and the rest of autograd


@pytest.mark.parametrize("wrap", [lambda call: call, compiled], ids=["plain", "compiled"])
def test_checkpoints_give_the_same_gradients(wrap):
    model = make()
    found = with_gradients(wrap(lambda x, t: checkpoint(model, x, t, use_reentrant=False)), model)
    assert_same(found, with_gradients(model, model))


@pytest.mark.parametrize("wrap", [lambda call: call, compiled], ids=["plain", "compiled"])
def test_inference_mode_and_autocast(wrap):
    model = make(dtype=torch.float32)
    x, t = X.float(), T.float()
    expected = model(x, t).detach()
    with torch.inference_mode():
        assert torch.equal(wrap(model)(x, t), expected)
    with torch.autocast("cpu", torch.bfloat16):
        y = wrap(model)(x, t)
    assert torch.allclose(y.float(), expected, atol=0.03 * expected.abs().max().item())
    y.float().sum().backward()


@pytest.mark.parametrize("wrap", [lambda call: call, compiled], ids=["plain", "compiled"])
def test_gradients_pass_the_check_of_autograd(wrap):
    model = make()
    function = wrap(lambda x, h0: model(x, T[:4], h0, solver=Fused(check=False)))
    assert torch.autograd.gradcheck(function, (X[:, :4].clone().requires_grad_(), torch.zeros(4, dtype=F64, requires_grad=True)))
