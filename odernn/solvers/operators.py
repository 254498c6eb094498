"""Solves as operators of PyTorch, for what traces a model or transforms functions of it: torch.compile, torch.export, torch.func.

    odernn::solve           h, (*ensemble, batch, time, state), of effective weights, a path, times and h0
    odernn::solve_backward  its gradients, which differentiate once
    odernn::check           h as it came, of a solve that was traced in tensor operations

They run when there are values: the solver itself, and all checks that need values (x is finite, times increase, the states stayed
finite). A program that torch.export saved needs `import odernn` before it is loaded.

The gradient of a solve comes from its record, which autograd keeps inside the operator. The record hangs on the storage of the
second output, the token, and lives as long as that. Where a token has no record that fits (a gradient that was not foreseen, a
batch of gradients, a weight that was computed anew), the solve is done once more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from targets.arguments import batched, transformed

from ..fields import VectorField
from ..paths import Path
from . import maps
from .base import Solution, Solver
from .descriptions import Description, Method, described, read
from .first_order import ONCE

_RECORD = "_odernn_record"
_SOLVE = "(Tensor[] inputs, Tensor times, Tensor t, str description, bool[] wanted) -> (Tensor, Tensor)"
_BACKWARD = (
    "(Tensor g, Tensor h, Tensor token, Tensor[] inputs, Tensor times, Tensor t, str description, bool[] wanted) -> Tensor[]"
)
_CHECK = "(Tensor h, Tensor[] inputs, Tensor times, Tensor t, str description) -> Tensor"


def run(
    method: Method,
    states: Callable[[VectorField, Path, Tensor, Tensor, Solver | None], Solution],
    field: VectorField,
    path: Path,
    t: Tensor,
    h0: Tensor,
    *,
    from_rest: bool,
    check: bool,
) -> Solution:
    """The states of a model that is traced or transformed, checked; what the steps cost is not told.

    Args:
        method: see `odernn.solvers.descriptions`.
        states: them in tensor operations.
        from_rest: whether h0 is the rest state, which there may not be.

    Raises:
        ValueError: times that ask for a gradient, or a derivative in forward mode, where the method has none.
    """
    if method != "traced" and not _stands_as_it_is(method, (*field.tensors, path.samples, path.times, t, h0)):
        return _by_operator(method, field, path, t, h0, from_rest, check)
    solver = method.unchecked() if isinstance(method, Solver) else None
    solution = states(field, path, t, h0, solver)
    return _checked(method if solver is not None else "traced", solution, field, path, h0, from_rest, check)


def _stands_as_it_is(method: Method, tensors: Sequence[Tensor]) -> bool:
    """Whether torch.func can transform the method's tensor operations, which have derivatives of any order."""
    if torch.compiler.is_compiling():
        return False
    if isinstance(method, Solver):
        return method.transformable and not any(map(batched, tensors))
    return isinstance(method, maps.LayerSteps)


def _by_operator(method: Method, field: VectorField, path: Path, t: Tensor, h0: Tensor, from_rest: bool, check: bool) -> Solution:
    if t.requires_grad or path.times.requires_grad:
        raise ValueError(
            "the times require a gradient, which there is only from TorchDiffEq(..., adjoint=False), and not in torch.compile or "
            "torch.export: take t.detach()"
        )
    if not torch.compiler.is_compiling() and forward_ad._current_level >= 0:
        raise ValueError(
            "this solve has no derivative in forward mode (torch.func.jvp, jacfwd, hessian): take fixed steps, "
            "TorchDiffEq('rk4', ..., adjoint=False)"
        )
    description, inputs = _described(method, field, path, h0, from_rest, check)
    wanted = [torch.is_grad_enabled() and tensor.requires_grad for tensor in inputs]
    if torch.compiler.is_compiling():
        if transformed() and any(wanted):
            raise ValueError(
                "torch.func.grad (vjp, jacrev) of a solve inside torch.compile: compile the model alone and take the gradient by "
                "autograd, or transform the model without torch.compile"
            )
        h, _ = torch.ops.odernn.solve(inputs, path.times, t, description, wanted)
    else:
        h, _ = _Solve.apply(description, wanted, path.times, t, *inputs)
    return Solution(t, h, evaluations=None)


def _checked(
    method: Method, solution: Solution, field: VectorField, path: Path, h0: Tensor, from_rest: bool, check: bool
) -> Solution:
    """A solution in tensor operations, with the checks that had to wait for values. (A solver that has checks of its own solves
    once more for them.)"""
    description, inputs = _described(method, field, path, h0, from_rest, check)
    given = [tensor.detach() for tensor in (path.times, solution.t, *inputs)]
    if torch.compiler.is_compiling():
        h = torch.ops.odernn.check(solution.h, given[2:], given[0], given[1], description)
    else:
        h = _Check.apply(description, solution.h, *given)
    return replace(solution, h=h)


def _described(
    method: Method, field: VectorField, path: Path, h0: Tensor, from_rest: bool, check: bool
) -> tuple[str, list[Tensor]]:
    if type(field) is not VectorField:
        raise ValueError(
            f"torch.compile, torch.export and torch.func take the vector fields of odernn, got a {type(field).__name__}: call "
            "the model without them"
        )
    layers = tuple((layer.W.structure, layer.b is not None) for layer in field.layers)
    description = described(method, field.form, field.tau, field.activation, layers, path.kind, from_rest, check)
    return description, [*field.tensors, path.samples, *([] if path.ends is None else [path.ends]), h0]


@dataclass(frozen=True)
class _Record:
    """A solve that autograd kept, from these inputs."""

    inputs: tuple[Tensor, ...]
    h: Tensor

    def fits(self, h: Tensor, inputs: Sequence[Tensor], read_later: slice, wanted: Sequence[bool]) -> bool:
        """Whether it is of this very h, and has the gradients wanted. A compiled program may have freed and overwritten what it
        computes anew for the backward pass: what is read later must still be where it was."""
        return (
            self.h.data_ptr() == h.data_ptr()
            and all(own.shape == given.shape for own, given in zip(self.inputs, inputs))
            and all(a.data_ptr() == b.data_ptr() for a, b in zip(self.inputs[read_later], inputs[read_later]))
            and all(own.requires_grad for own, want in zip(self.inputs, wanted) if want)
        )


@torch.library.custom_op("odernn::solve", mutates_args=(), schema=_SOLVE)
def _solve(inputs: list[Tensor], times: Tensor, t: Tensor, description: str, wanted: list[bool]) -> tuple[Tensor, Tensor]:
    what, token = read(description), inputs[-1].new_zeros(1, dtype=torch.uint8)
    if any(wanted) and not torch.is_inference_mode_enabled():
        record = _recorded(what, inputs, times, t, wanted)
        setattr(token.untyped_storage(), _RECORD, record)
        return record.h.detach(), token
    with _as_outside(gradients=False):
        return what.states(inputs, times, t).contiguous(), token


def _recorded(what: Description, inputs: Sequence[Tensor], times: Tensor, t: Tensor, wanted: Sequence[bool]) -> _Record:
    # Copies of all but x, which is large: see `_Record.fits`.
    own = [tensor.detach() if what.is_input(index) else tensor.detach().clone() for index, tensor in enumerate(inputs)]
    with _as_outside(gradients=True):
        leaves = [tensor.requires_grad_(want) for tensor, want in zip(own, wanted)]
        return _Record(tuple(leaves), what.states(leaves, times, t).contiguous())


@torch.library.custom_op("odernn::solve_backward", mutates_args=(), schema=_BACKWARD)
def _solve_backward(
    g: Tensor,
    h: Tensor,
    token: Tensor,
    inputs: list[Tensor],
    times: Tensor,
    t: Tensor,
    description: str,
    wanted: list[bool],
) -> list[Tensor]:
    what = read(description)
    record: _Record | None = getattr(token.untyped_storage(), _RECORD, None)
    if record is None or not record.fits(h, inputs, what.inputs, wanted):
        record = _recorded(what, inputs, times, t, wanted)
    leaves = [leaf for leaf, want in zip(record.inputs, wanted) if want]
    with _as_outside(gradients=True):
        found = torch.autograd.grad(record.h, leaves, g, retain_graph=True, allow_unused=True)
    return [
        leaf.new_zeros(leaf.shape) if one is None else one.clone(memory_format=torch.contiguous_format)
        for leaf, one in zip(leaves, found)
    ]


@torch.library.custom_op("odernn::check", mutates_args=(), schema=_CHECK)
def _check(h: Tensor, inputs: list[Tensor], times: Tensor, t: Tensor, description: str) -> Tensor:
    with _as_outside(gradients=False):
        read(description).check_states(h, inputs, times, t)
    return h.clone(memory_format=torch.contiguous_format)


@_solve.register_fake
def _(inputs: Any, times: Any, t: Any, description: Any, wanted: Any) -> tuple[Tensor, Tensor]:
    h0 = inputs[-1]
    return h0.new_empty((*h0.shape[:-1], t.shape[0], h0.shape[-1])), h0.new_empty(1, dtype=torch.uint8)


@_solve_backward.register_fake
def _(g: Any, h: Any, token: Any, inputs: Any, times: Any, t: Any, description: Any, wanted: Any) -> list[Tensor]:
    return [tensor.new_empty(tensor.shape) for tensor, want in zip(inputs, wanted) if want]


@_check.register_fake
def _(h: Any, inputs: Any, times: Any, t: Any, description: Any) -> Tensor:
    return h.new_empty(h.shape)


@contextmanager
def _as_outside(gradients: bool) -> Iterator[None]:
    """PyTorch as it is outside of operators, where it switches autograd off, and inside compiled programs conjugates, too: those
    are lazy, and a gradient of complex numbers would silently miss them."""
    excluded, key = torch._C._dispatch_tls_local_exclude_set(), torch._C.DispatchKey
    autograd = (key.AutogradFunctionality, key.AutogradOther, key.AutogradNestedTensor, key.ADInplaceOrView)
    for one in (*autograd, key.Conjugate, key.Negative, key.ZeroTensor, key.BackendSelect):
        excluded = excluded.remove(one)
    included = torch._C._dispatch_tls_local_include_set()
    with torch._C._ForceDispatchKeyGuard(included, excluded), torch.set_grad_enabled(gradients):
        yield


# The gradients of the operators, as torch.compile and torch.export see them.


def _keep(ctx: Any, inputs: Any, output: Any) -> None:
    given, times, t, ctx.description, _ = inputs
    ctx.save_for_backward(*output, times, t, *given)


def _gradients(ctx: Any, g: Tensor, _: Any) -> tuple[Any, ...]:
    h, token, times, t, *given = ctx.saved_tensors
    wanted = list(ctx.needs_input_grad[0])
    found = iter(torch.ops.odernn.solve_backward(g, h, token, given, times, t, ctx.description, wanted))
    return [next(found) if want else None for want in wanted], None, None, None, None


def _refuse(ctx: Any, *_: Any) -> Any:
    raise RuntimeError(ONCE)


def _count(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.count = len(inputs[1])


def _pass_on(ctx: Any, g: Tensor) -> tuple[Any, ...]:
    return g, [None] * ctx.count, None, None, None


_solve.register_autograd(_gradients, setup_context=_keep)
_solve_backward.register_autograd(_refuse, setup_context=lambda ctx, inputs, output: None)
_check.register_autograd(_pass_on, setup_context=_count)


# The same for transforms of functions, which ask for autograd functions. A batch of solves is one more axis of the ensemble.


class _Solve(torch.autograd.Function):
    @staticmethod
    def forward(description: str, wanted: list[bool], times: Tensor, t: Tensor, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ops.odernn.solve(list(inputs), times, t, description, wanted)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.description, _, *tensors = inputs
        ctx.save_for_backward(*output, *tensors)

    @staticmethod
    def backward(ctx: Any, g: Tensor, _: Any) -> tuple[Any, ...]:
        h, token, times, t, *inputs = ctx.saved_tensors
        wanted = list(ctx.needs_input_grad[4:])
        found = iter(_SolveBackward.apply(ctx.description, wanted, times, t, g, h, token, *inputs))
        return None, None, None, None, *(next(found) if want else None for want in wanted)

    @staticmethod
    def vmap(info: Any, in_dims: Any, description: str, wanted: list[bool], times: Tensor, t: Tensor, *inputs: Tensor) -> Any:
        batch = _Batch(read(description), info.batch_size, inputs, in_dims[4:], in_dims[2:4])
        return _Solve.apply(description, wanted, times, t, *batch.inputs(wanted=[])), (0, None)


class _SolveBackward(torch.autograd.Function):
    @staticmethod
    def forward(
        description: str, wanted: list[bool], times: Tensor, t: Tensor, g: Tensor, h: Tensor, token: Tensor, *inputs: Tensor
    ) -> tuple[Tensor, ...]:
        return tuple(torch.ops.odernn.solve_backward(g, h, token, list(inputs), times, t, description, wanted))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise RuntimeError(f"{ONCE}; torch.func asks for fixed steps of these: TorchDiffEq('rk4', ..., adjoint=False)")

    @staticmethod
    def vmap(
        info: Any,
        in_dims: Any,
        description: str,
        wanted: list[bool],
        times: Tensor,
        t: Tensor,
        g: Tensor,
        h: Tensor,
        token: Tensor,
        *inputs: Tensor,
    ) -> Any:
        batch = _Batch(read(description), info.batch_size, inputs, in_dims[7:], in_dims[2:4])
        g, h = (batch.leading(tensor, dim, 3) for tensor, dim in zip((g, h), in_dims[4:6]))
        found = _SolveBackward.apply(description, wanted, times, t, g, h, token, *batch.inputs(wanted))
        return batch.own_shapes(found, wanted), (0,) * len(found)


class _Check(torch.autograd.Function):
    @staticmethod
    def forward(description: str, h: Tensor, times: Tensor, t: Tensor, *inputs: Tensor) -> Tensor:
        return torch.ops.odernn.check(h, list(inputs), times, t, description)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
        return None, g, *[None] * (len(ctx.needs_input_grad) - 2)

    @staticmethod
    def jvp(ctx: Any, _: Any, tangent: Tensor, *__: Any) -> Tensor:
        return tangent.clone()

    @staticmethod
    def vmap(info: Any, in_dims: Any, description: str, h: Tensor, times: Tensor, t: Tensor, *inputs: Tensor) -> Any:
        batch = _Batch(read(description), info.batch_size, inputs, in_dims[4:], in_dims[2:4])
        return _Check.apply(description, batch.leading(h, in_dims[1], 3), times, t, *batch.inputs(wanted=[])), 0


@dataclass(frozen=True)
class _Batch:
    """The inputs of a batch of solves, of which some have an axis of it somewhere."""

    what: Description
    size: int
    given: tuple[Tensor, ...]
    dims: tuple[int | None, ...]
    dims_of_times: tuple[int | None, ...]

    def __post_init__(self) -> None:
        if any(dim is not None for dim in self.dims_of_times):
            raise ValueError("torch.vmap over the times of a solve, which those of a batch share: call the model for each")

    @property
    def _rank(self) -> int:
        """Of the ensemble, by h0, which has all of its axes."""
        return self.given[-1].ndim - (self.dims[-1] is not None) - 2

    def leading(self, tensor: Tensor, dim: int | None, axes: int) -> Tensor:
        """The tensor, of so many axes behind those of the ensemble, with all of these and the batch before them."""
        tensor = tensor.expand(self.size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
        missing = self._rank + 1 + axes - tensor.ndim
        return tensor.reshape(self.size, *(1,) * missing, *tensor.shape[1:])

    def inputs(self, wanted: Sequence[bool]) -> list[Tensor]:
        """All inputs; x without the axis where it has none and no gradient of it is wanted: an ensemble shares it."""
        return [
            tensor
            if dim is None and self.what.is_input(index) and not (wanted and wanted[index])
            else self.leading(tensor, dim, self.what.axes[index])
            for index, (tensor, dim) in enumerate(zip(self.given, self.dims))
        ]

    def own_shapes(self, gradients: Sequence[Tensor], wanted: Sequence[bool]) -> tuple[Tensor, ...]:
        """Gradients of the inputs wanted, each in the shape of its input, behind the axis of the batch."""
        of_wanted = [(tensor, dim) for tensor, dim, want in zip(self.given, self.dims, wanted) if want]
        shapes = [tensor.shape if dim is None else tensor.movedim(dim, 0).shape[1:] for tensor, dim in of_wanted]
        return tuple(gradient.reshape(self.size, *shape) for gradient, shape in zip(gradients, shapes))


@_solve.register_vmap
def _(info: Any, in_dims: Any, inputs: Any, times: Any, t: Any, description: Any, wanted: Any) -> Any:
    batch = _Batch(read(description), info.batch_size, tuple(inputs), tuple(in_dims[0]), in_dims[1:3])
    return torch.ops.odernn.solve(batch.inputs(wanted=[]), times, t, description, wanted), (0, None)


@_solve_backward.register_vmap
def _(info: Any, in_dims: Any, g: Any, h: Any, token: Any, inputs: Any, times: Any, t: Any, description: Any, wanted: Any) -> Any:
    batch = _Batch(read(description), info.batch_size, tuple(inputs), tuple(in_dims[3]), in_dims[4:6])
    g, h = (batch.leading(tensor, dim, 3) for tensor, dim in zip((g, h), in_dims[:2]))
    found = torch.ops.odernn.solve_backward(g, h, token, batch.inputs(wanted), times, t, description, wanted)
    return list(batch.own_shapes(found, wanted)), [0] * len(found)


@_check.register_vmap
def _(info: Any, in_dims: Any, h: Any, inputs: Any, times: Any, t: Any, description: Any) -> Any:
    batch = _Batch(read(description), info.batch_size, tuple(inputs), tuple(in_dims[1]), in_dims[2:4])
    return torch.ops.odernn.check(batch.leading(h, in_dims[0], 3), batch.inputs(wanted=[]), times, t, description), 0
