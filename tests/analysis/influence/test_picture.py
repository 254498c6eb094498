from __future__ import annotations

import pytest
import torch
from matplotlib.image import imread
from torch import nn

from analysis import background_memory, memory_function, plot_background


def test_the_picture_is_drawn_of_any_memory_around_a_background(tmp_path):
    x = torch.randn(3, 40, 1, dtype=torch.float64)
    for name, system in (("rnn", nn.RNN(1, 4, batch_first=True).double()), ("callable", lambda x: x.cumsum(1))):
        for batch in (1, 3):
            path = tmp_path / f"{name}-{batch}.png"
            plot_background(background_memory(system, torch.arange(40.0), x[:batch]), path)
            assert min(imread(path).shape[:2]) > 300
    # nothing that a logarithm could show
    plot_background(background_memory(lambda x: 0 * x, torch.arange(40.0), x), tmp_path / "zero.png")


def test_what_is_no_such_memory_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expected a BackgroundMemory"):
        plot_background(memory_function(lambda x: x, torch.arange(4.0)), tmp_path / "a.png")
