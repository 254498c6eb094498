from __future__ import annotations

import pytest
import torch
from hypothesis import settings

# The same examples in every run: a test that fails must fail again.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def _one_thread_and_fixed_seed():
    """Small problems run fastest on one thread, and a test that forgets its seed should still repeat."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
