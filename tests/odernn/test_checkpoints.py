"""Weights of checkpoints made elsewhere, in the forms that training scripts leave them in."""

from __future__ import annotations

import pytest
import torch

from odernn.checkpoints import load_state, read_state, recurrent_sizes


def net():
    return torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1))


@pytest.mark.parametrize("key", [None, "state_dict", "model", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
def test_a_state_is_found_where_scripts_leave_it(tmp_path, key, prefix):
    source, module = net(), net()
    state = {prefix + name: value for name, value in source.state_dict().items()}
    torch.save(state if key is None else {"epoch": 3, "optimizer": {"lr": 0.1}, key: state}, tmp_path / "w.pt")
    assert load_state(module, read_state(tmp_path / "w.pt")) == prefix
    x = torch.randn(5, 2)
    assert torch.equal(module(x), source(x))


def test_what_does_not_fit_is_named_in_one_line():
    state = net().state_dict()
    cases = {
        "0.weight missing": {name: value for name, value in state.items() if name != "0.weight"},
        "extra not known": {**state, "extra": torch.zeros(1)},
        r"0.bias of \(7,\), expected \(3,\)": {**state, "0.bias": torch.zeros(7)},
        "missing": {},
    }
    for message, given in cases.items():
        with pytest.raises(ValueError, match=message) as caught:
            load_state(net(), given)
        assert "\n" not in str(caught.value)


def test_a_file_that_is_no_state_says_what_it_is(tmp_path):
    torch.save(net(), tmp_path / "whole.pt")
    torch.save({"epoch": 1}, tmp_path / "empty.pt")
    (tmp_path / "text.pt").write_text("weights")
    cases = {
        "none": "no file",
        "whole": "holds Python objects",
        "empty": "a dict of epoch",
        "text": "no checkpoint|Python",
    }
    for name, message in cases.items():
        with pytest.raises(ValueError, match=message) as caught:
            read_state(tmp_path / f"{name}.pt")
        assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*TorchScript.*:UserWarning")
def test_programs_are_told_from_weights(tmp_path):
    torch.jit.save(torch.jit.trace(net(), torch.zeros(1, 2)), tmp_path / "script.pt")
    torch.export.save(torch.export.export(net(), (torch.zeros(1, 2),)), tmp_path / "program.pt2")
    for name, message in {"script.pt": "torch.jit.load", "program.pt2": "torch.export.load"}.items():
        with pytest.raises(ValueError, match=message):
            read_state(tmp_path / name)


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_recurrent_modules_are_known_by_their_weights(kind):
    module = getattr(torch.nn, kind)(3, 5, num_layers=2)
    sizes = {"input_size": 3, "hidden_size": 5, "num_layers": 2}
    assert recurrent_sizes(module.state_dict()) == (f"torch.nn.{kind}", sizes)
    assert recurrent_sizes(net().state_dict()) is None
