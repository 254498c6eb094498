"""Modules with embeddings, heads and steps of their own: each against the same module called by hand, or of another form."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from problems import F64
from torch import nn

from analysis import Adapted, memory_function

T = torch.arange(12.0, dtype=F64)


@pytest.fixture
def lstm():
    torch.manual_seed(0)
    return nn.LSTM(2, 4, batch_first=True).double()


def memory(system, **options):
    return memory_function(system, T, ascent_steps=0, **options).values


def test_encoder_recurrence_and_head_are_one_map(lstm):
    torch.manual_seed(1)
    encode, head = nn.Linear(1, 2).double(), nn.Linear(4, 1).double()
    adapted = Adapted(lstm, encode=encode, readout=head)
    assert adapted.input_size == 1
    by_hand = memory(lambda x: head(lstm(encode(x))[0]), input_size=1)
    assert torch.equal(memory(adapted), by_hand)
    assert by_hand.max() > 0


def test_batch_second_modules(lstm):
    second = nn.LSTM(2, 4).double()
    second.load_state_dict(lstm.state_dict())
    assert torch.allclose(memory(Adapted(second)), memory(lstm))
    assert torch.allclose(memory(Adapted(lambda x: second(x), batch_first=False, input_size=2)), memory(lstm))


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_cells_are_their_modules(kind):
    torch.manual_seed(0)
    module, cell = getattr(nn, kind)(2, 4, batch_first=True).double(), getattr(nn, kind + "Cell")(2, 4).double()
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in module.state_dict().items()})
    expected = memory(module)
    assert torch.allclose(memory(Adapted(cell)), expected)
    assert torch.allclose(memory(cell), expected)


def test_a_step_of_ones_own():
    cell = nn.GRUCell(1, 3).double()

    def step(x, state=None):
        return cell(x, state)

    assert torch.allclose(memory(Adapted(step, step=True, input_size=1)), memory(cell))


def test_outputs_in_dicts_and_objects(lstm):
    @dataclass
    class Output:
        loss: object
        last_hidden_state: torch.Tensor

    expected = memory(lstm)
    assert torch.equal(memory(Adapted(lambda x: {"aux": x, "y": lstm(x)[0]}, output="y", input_size=2)), expected)
    assert torch.equal(memory(Adapted(lambda x: Output(None, lstm(x)[0]), output="last_hidden_state", input_size=2)), expected)
    assert torch.equal(memory(Adapted(lambda x: (None, [lstm(x)[0]]), output=1, input_size=2)), expected)
    assert torch.equal(memory(lambda x: {"y": lstm(x)[0]}, input_size=2), expected)
    for output, message in (("z", "has no 'z'"), (None, "no tensor")):
        adapted = Adapted(lambda x: {"y": None}, output=output, input_size=2)
        with pytest.raises(ValueError, match=message):
            memory(adapted)


def test_an_embedding_takes_weights_of_tokens(lstm):
    embedding = nn.Embedding(3, 2).double()
    adapted = Adapted(lstm, encode=embedding)
    assert adapted.input_size == 3
    tokens = torch.tensor([[0, 2, 1]])
    assert torch.allclose(adapted(nn.functional.one_hot(tokens, 3).double()), lstm(embedding(tokens))[0])


def test_what_cannot_be_told_is_asked_for():
    for module, options in ((lambda x: x, {}), (nn.ReLU(), {}), (nn.LSTM, {"input_size": 1}), (nn.ReLU(), {"input_size": 0})):
        with pytest.raises(ValueError, match=r"input_size|expected a torch\.nn\.Module") as caught:
            Adapted(module, **options)
        assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_quantised_modules_state_what_they_cannot_tell():
    torch.manual_seed(0)
    net = Adapted(nn.LSTM(1, 8, batch_first=True), readout=nn.Linear(8, 1)).eval()
    expected = memory(net)
    quantised = torch.ao.quantization.quantize_dynamic(net, {nn.LSTM, nn.Linear}, dtype=torch.qint8)
    M = memory_function(quantised, T)
    # 8 binary digits: what it cannot tell is below the floor that it states
    assert float(M.floor) > 0.02 * float(expected.max())
    assert float((M.values - expected).abs().max()) < 3 * float(M.floor)


class Averages(nn.Module):
    """Running means of what a layer makes of x: of any length, which torch.export cannot say of a torch.nn.LSTM."""

    input_size = 1

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 4)

    def forward(self, x):
        return torch.tanh(self.layer(x)).cumsum(1)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_exported_and_scripted_modules():
    torch.manual_seed(0)
    net = Averages()
    expected = memory(net)
    x = torch.zeros(2, 8, 1)
    shapes = {"x": {0: torch.export.Dim("batch", min=2, max=4096), 1: torch.export.Dim("time", min=2, max=4096)}}
    exported = torch.export.export(net, (x,), dynamic_shapes=shapes).module()
    assert torch.allclose(memory(exported, input_size=1).double(), expected.double(), atol=1e-6)
    scripted = torch.jit.script(net)
    assert torch.allclose(memory(scripted, input_size=1), expected, atol=1e-6)
