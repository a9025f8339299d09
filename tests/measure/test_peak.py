"""Memory is that of a fresh process."""

import pytest
import torch

from dblr_plugin.measure.timing import peak_memory

BLOCK = 100 * 2**20  # bytes


def make_hungry():
    """Holds a block for good and takes another one for each run."""
    weights = torch.ones(BLOCK // 4)
    return lambda: (weights + 1)[0]


@pytest.mark.slow
def test_memory_is_of_a_fresh_process():
    hoard = torch.ones(BLOCK)  # this process's own memory, 400 MiB, must not count  # noqa: F841
    peak = peak_memory(make_hungry, torch.device('cpu'))
    assert peak is None or 2 * BLOCK <= peak < 3 * BLOCK
