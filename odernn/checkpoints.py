"""Weights of checkpoints made elsewhere: read from a file without running what it holds, and given to a module."""

from __future__ import annotations

import importlib
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from targets import arguments

# Where training scripts keep the weights of a model beside those of an optimiser.
_NESTED = ("state_dict", "model_state_dict", "model", "module", "net", "weights")
# What wrappers put before every name: DataParallel, torch.compile, Lightning modules that hold a model.
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
# So many names are told of a list.
_TOLD = 6


def read_state(path: str | Path) -> dict[str, Tensor]:
    """The weights of a checkpoint, by name: a state_dict that torch.save wrote, by itself or under 'state_dict', 'model' or
    'model_state_dict' of a dict; or a safetensors file, where that package is installed.

    Nothing in the file is run (weights_only=True).

    Raises:
        ValueError: no such file, or one without a state_dict; names the remedy.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"there is no file {path}, expected weights that torch.save(module.state_dict(), path) wrote")
    if path.suffix == ".safetensors":
        return _of_safetensors(path)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(_complaint(path, error)) from error
    state = _state_in(found)
    if state is None:
        held = f"a dict of {_listed(found)}" if isinstance(found, Mapping) else f"a {type(found).__name__}"
        raise ValueError(f"{path} holds {held}, and no state_dict: save one with torch.save(module.state_dict(), path)")
    return state


def load_state(module: nn.Module, state: Mapping[str, Tensor]) -> str:
    """Gives a module the weights of a checkpoint.

    Names may all begin with a prefix that the module's do not have, as DataParallel, torch.compile and Lightning write them.

    Returns:
        The prefix that was taken off; "" for none.

    Raises:
        ValueError: weights that are missing, left over or of another shape; names them in one line.
    """
    arguments.instance("module", module, nn.Module, "give the module that the weights belong to")
    own = module.state_dict()
    prefix = next((one for one in ("", *_PREFIXES) if _fits(own, state, one)), "")
    given = {name.removeprefix(prefix): value for name, value in state.items()}
    complaints = []
    if missing := [name for name in own if name not in given]:
        complaints.append(f"{_listed(missing)} missing")
    if unexpected := [name for name in given if name not in own]:
        complaints.append(f"{_listed(unexpected)} not known to it")
    shapes = [
        f"{name} of {tuple(value.shape)}, expected {tuple(own[name].shape)}"
        for name, value in given.items()
        if isinstance(own.get(name), Tensor) and isinstance(value, Tensor) and own[name].shape != value.shape
    ]
    if shapes:
        complaints.append("; ".join(shapes[:_TOLD]) + (f"; and {len(shapes) - _TOLD} more" if len(shapes) > _TOLD else ""))
    if complaints:
        raise ValueError(f"the weights do not fit a {type(module).__name__}: {', '.join(complaints)}; make the module as it was")
    try:
        module.load_state_dict(given)
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"the weights do not fit a {type(module).__name__} ({reason}): make the module as it was") from error
    return prefix


def describe(state: Mapping[str, Tensor]) -> str:
    """Names and shapes of a state_dict in one line."""
    shown = [f"{name} {tuple(value.shape)}" if isinstance(value, Tensor) else name for name, value in state.items()]
    return _listed(shown)


def _complaint(path: Path, error: Exception) -> str:
    """Why a file was not read, and what to do."""
    for kind, loader, told in (("TorchScript", "torch.jit.load", _is_script), ("exported", "torch.export.load", _is_exported)):
        if told(path):
            remedy = f"write a function that returns {loader}(path) and give it as file.py:function"
            return f"{path} is a {kind} program, not weights: {remedy}"
    if isinstance(error, pickle.UnpicklingError) and zipfile.is_zipfile(path):
        return (
            f"{path} holds Python objects (a whole module, perhaps), which loading would run: save its weights where it was "
            "made, torch.save(module.state_dict(), path)"
        )
    reason = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
    return f"{path} is no checkpoint of PyTorch ({reason}): give what torch.save wrote"


# torch.nn.RNN, GRU and LSTM by their gates.
_RECURRENT = {1: "torch.nn.RNN", 3: "torch.nn.GRU", 4: "torch.nn.LSTM"}


def recurrent_sizes(state: Mapping[str, Tensor]) -> tuple[str, dict[str, int]] | None:
    """The module of torch.nn whose weights these are, with its sizes; None for any other."""
    names = {name.removeprefix("module.") for name in state}
    first = next((state[name] for name in state if name.removeprefix("module.") == "weight_ih_l0"), None)
    second = next((state[name] for name in state if name.removeprefix("module.") == "weight_hh_l0"), None)
    if first is None or second is None or any(name[:7] not in ("weight_", "bias_ih", "bias_hh") for name in names):
        return None
    kind = _RECURRENT.get(len(first) // second.shape[1])
    if kind is None or any(name.endswith("_reverse") or "_hr_" in name for name in names):
        return None
    layers = sum(name.startswith("weight_ih_l") for name in names)
    return kind, {"input_size": first.shape[1], "hidden_size": second.shape[1], "num_layers": layers}


def _state_in(found: Any) -> dict[str, Tensor] | None:
    if not isinstance(found, Mapping):
        return None
    nested = next((state for name in _NESTED if (state := _state_in(found.get(name))) is not None), None)
    if nested is not None:
        return nested  # losses and the like stand beside them as tensors, too
    # A state_dict may hold packed parameters of quantised modules.
    return dict(found) if any(isinstance(value, Tensor) for value in found.values()) else None


def _fits(own: Mapping[str, Any], state: Mapping[str, Any], prefix: str) -> bool:
    return all(name.startswith(prefix) for name in state) and any(name.removeprefix(prefix) in own for name in state)


def _listed(names: Any) -> str:
    names = [str(name) for name in names]
    more = f" and {len(names) - _TOLD} more" if len(names) > _TOLD else ""
    return (", ".join(names[:_TOLD]) or "nothing") + more


def _members(path: Path) -> list[str]:
    return zipfile.ZipFile(path).namelist() if zipfile.is_zipfile(path) else []


def _is_script(path: Path) -> bool:
    return any(name.endswith("constants.pkl") for name in _members(path))


def _is_exported(path: Path) -> bool:
    return any("serialized_exported_program" in name or name.endswith("models/model.json") for name in _members(path))


def _of_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        safetensors = importlib.import_module("safetensors.torch")
    except ImportError:
        raise ValueError(f"{path} is a safetensors file, which needs that package: pip install safetensors") from None
    try:
        return safetensors.load_file(path)
    except Exception as error:
        raise ValueError(f"{path} is no safetensors file ({type(error).__name__}): give what save_file wrote") from error
