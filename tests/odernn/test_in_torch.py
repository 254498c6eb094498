"""Models as modules of PyTorch: plain loops, copies, saved weights, parts of other modules."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from odernn import ContinuousRNN, DiscreteSSM, LeakyRNN, StateSpaceModel

T = torch.linspace(0, 2, 21)
X = torch.randn(8, 21, 1, generator=torch.Generator().manual_seed(0))
Y = X.cumsum(1) / 10


def rnn(**options):
    return ContinuousRNN(1, 4, 1, seed=0, **options)


@pytest.mark.parametrize("kind", [ContinuousRNN, StateSpaceModel, LeakyRNN, DiscreteSSM])
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam, torch.optim.RMSprop])
def test_a_plain_loop_lowers_the_loss(kind, optimizer):
    model = kind(1, 4, 1, recurrence="diagonal", parameterization="softplus", seed=0)
    steps = optimizer(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(10):
        for x, y in DataLoader(TensorDataset(X, Y), batch_size=4):
            steps.zero_grad()
            loss = nn.functional.mse_loss(model(x, T), y)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            steps.step()
            losses.append(loss.item())
    assert sum(losses[-2:]) < sum(losses[:2])


def test_an_lbfgs_closure():
    model = rnn()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=5)

    def closure():
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(X, T), Y)
        loss.backward()
        return loss

    first = optimizer.step(closure).item()
    assert closure().item() < first


def test_copies_and_saved_weights_give_the_same_answers():
    model = rnn(recurrence="symmetric", parameterization="exp")
    y = model(X, T)
    fresh = ContinuousRNN(1, 4, 1, recurrence="symmetric", parameterization="exp", seed=1)
    fresh.load_state_dict(model.state_dict())
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    whole = torch.load(file, weights_only=False)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), fresh, whole):
        assert torch.equal(other(X, T), y)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.c.zero_()
    assert torch.equal(model(X, T), y)


def test_a_model_is_part_of_a_larger_module():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.memory, self.head = nn.Linear(1, 3), ContinuousRNN(3, 4, 2, seed=0), nn.Linear(2, 1)

        def forward(self, x):
            return self.head(torch.relu(self.memory(self.embed(x), T)))

    net = Net().double()
    loss = net(X.double()).square().mean()
    loss.backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in net.parameters())
    seen = []
    net.memory.register_forward_hook(lambda module, given, y: seen.append(y.shape))
    net(X.double())
    assert seen == [(8, 21, 2)]


def test_frozen_weights_get_no_gradient():
    model = rnn()
    model.layers[0].recurrence.requires_grad_(False)
    model(X, T).sum().backward()
    assert all(weight.grad is None for weight in model.layers[0].recurrence.parameters())
    assert model.c.grad is not None
    assert [group["name"] for group in model.parameter_groups()] == ["input", "bias", "readout"]


@pytest.mark.parametrize("options", [{}, {"recurrence": "lru", "parameterization": "exp"}, {"num_layers": 2, "bias": False}])
def test_parameter_groups_hold_every_weight_once(options):
    model = rnn(**options)
    groups = model.parameter_groups(recurrent_lr=1e-4, readout_lr=0.0, weight_decay=0.1)
    held = [id(weight) for group in groups for weight in group["params"]]
    assert sorted(held) == sorted(id(weight) for weight in model.parameters())
    known = model.raw_weights()
    names = {id(weight): name for name, weight in model.named_parameters()}
    for group in groups:
        weights = [known[names[id(weight)]] for weight in group["params"]]
        assert {weight.kind for weight in weights} == {group["name"]}
        assert {weight.decays for weight in weights} == {group["weight_decay"] > 0}
        assert group.get("lr") == {"recurrent": 1e-4, "readout": 0.0}.get(group["name"])
    optimizer = torch.optim.AdamW(groups, lr=1e-2)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    model(X, T).square().sum().backward()
    optimizer.step()
    assert torch.equal(model.c, before["c"])
    assert not torch.equal(model.layers[0].U, before["layers.0.U"])


def test_bad_rates_are_refused():
    with pytest.raises(ValueError, match="recurrent_lr"):
        rnn().parameter_groups(recurrent_lr=-1.0)
    with pytest.raises(ValueError, match="weight_decay"):
        rnn().parameter_groups(weight_decay=float("nan"))
