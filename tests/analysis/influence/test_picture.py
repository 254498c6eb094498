from __future__ import annotations

import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.image import imread
from torch import nn

from analysis import background_memory, effective_state_size, fit_decay, memory_function, plot_background
from analysis.results import columns
from odernn import ContinuousRNN


def test_the_picture_is_drawn_of_any_memory_around_a_background(tmp_path):
    x = torch.randn(3, 40, 1, dtype=torch.float64)
    for name, system in (("rnn", nn.RNN(1, 4, batch_first=True).double()), ("callable", lambda x: x.cumsum(1))):
        for batch in (1, 3):
            path = tmp_path / f"{name}-{batch}.png"
            plot_background(background_memory(system, torch.arange(40.0), x[:batch]), path)
            assert min(imread(path).shape[:2]) > 300
    # nothing that a logarithm could show
    plot_background(background_memory(lambda x: 0 * x, torch.arange(40.0), x), tmp_path / "zero.png")


def test_of_an_ensemble_its_members_are_drawn_and_its_table_has_them_all():
    model = ContinuousRNN(1, 3, 1, ensemble=(2, 1), dtype=torch.float64, seed=0)
    x, t = torch.randn(2, 9, 1, dtype=torch.float64), torch.arange(9.0, dtype=torch.float64)
    M = background_memory(model, t, x)
    with pytest.raises(ValueError, match="one by one"):
        M.plot(Figure().subplots())
    assert M[1, 0].plot(Figure().subplots()).get_lines()
    assert M[1, 0] == M[1][0]
    assert columns(M)["member_0"].tolist() == [0] * 9 + [1] * 9
    assert columns(M)["lag"].tolist() == 2 * t.tolist()
    table = columns(effective_state_size(model, t, x, at=[4, 8]))
    assert table["sequence"].tolist() == [0, 0, 1, 1] * 2
    assert table["time"].tolist() == [4, 8] * 4


def test_the_law_of_decay_is_that_of_an_average_which_the_user_names():
    M = background_memory(ContinuousRNN(1, 3, 1, "linear", seed=0), torch.arange(40.0), torch.randn(2, 40, 1))
    with pytest.raises(ValueError, match="geometric_mean"):
        fit_decay(M)
    assert fit_decay((M.times, M.geometric_mean)).law == "exponential"


def test_what_is_no_such_memory_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expected a BackgroundMemory"):
        plot_background(memory_function(lambda x: x, torch.arange(4.0)), tmp_path / "a.png")
