"""Finds the entry of a name however it is written: `ContinuousRNN`, `odernn.ContinuousRNN`, `odernn.models.ContinuousRNN`."""

from __future__ import annotations

import inspect
from typing import Any

from docutils import nodes
from sphinx.ext.intersphinx import missing_reference
from sphinx.roles import XRefRole

import analysis
import odernn
import targets

# Where other projects define a name -> where they document it.
_OTHERS = {
    "torch._C.Generator": "torch.Generator",
    "torch.nn.modules.module.Module": "torch.nn.Module",
    "Tensor": "torch.Tensor",
    "Layer": "odernn.fields.Layer",
    "Module": "torch.nn.Module",
    "Axes": "matplotlib.axes.Axes",
    "ArrayLike": "numpy.typing.ArrayLike",
}
# Of Literals, and of a class itself.
_STAND_INS = {"Code", "Engine", "Form", "Initial", "analysis.results.R"}


class _Name(XRefRole):
    """`name`: a link where the site or an inventory has that name, else code."""

    def process_link(self, env: Any, refnode: Any, has_explicit_title: bool, title: str, target: str) -> tuple[str, str]:
        refnode["py:module"] = env.ref_context.get("py:module")
        refnode["py:class"] = env.ref_context.get("py:class")
        refnode["refdomain"], refnode["reftype"], refnode["may_be_code"] = "py", "obj", True
        return title, target.removesuffix("()")


def _public() -> dict[str, str]:
    """Full name where it is defined, and bare name -> name as it is imported."""
    found = {}
    for package in (targets, odernn, analysis):
        for name in package.__all__:
            value = getattr(package, name)
            if inspect.isclass(value) or inspect.isfunction(value):
                found[f"{value.__module__}.{value.__qualname__}"] = found[name] = f"{package.__name__}.{name}"
    return found


PUBLIC = _public()


def _resolve(app: Any, env: Any, node: Any, content: Any) -> Any:
    target = node.get("reftarget")
    if node.get("refdomain") != "py":
        return None
    if target in PUBLIC:
        return env.domains.python_domain.resolve_xref(env, node["refdoc"], app.builder, "obj", PUBLIC[target], node, content)
    if target in _OTHERS:
        node["reftarget"], node["reftype"] = _OTHERS[target], "obj"
        domain = env.domains.python_domain
        ours = domain.resolve_xref(env, node["refdoc"], app.builder, "obj", _OTHERS[target], node, content)
        return ours or missing_reference(app, env, node, content)
    return None


def _needs_no_entry(app: Any, domain: Any, node: Any) -> bool | None:
    """Code in backticks, what is private to a module, and names of types that stand for others."""
    target = node["reftarget"]
    private = any(part.startswith("_") for part in target.split("."))
    return True if node.get("may_be_code") or private or target in _STAND_INS else None


def setup(app: Any) -> dict[str, bool]:
    app.add_role("name", _Name(innernodeclass=nodes.literal))
    app.connect("missing-reference", _resolve)
    app.connect("warn-missing-reference", _needs_no_entry)
    return {"parallel_read_safe": True}
