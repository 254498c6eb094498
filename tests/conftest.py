from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread_and_fixed_seed():
    """Small problems run fastest on one thread, and a test that forgets its seed should still repeat."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
