"""Freed memory is used again, in a process of its own as the setting stays."""

import platform

import pytest
from processes import run_python

COUNT = """
import resource
import numpy as np
from dblr_plugin.acceleration import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        np.empty(48 << 20, np.uint8).fill(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

first = faults()
keep_freed_memory()
faults()
print(first, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='other C libraries have no such setting')
def test_freed_memory_is_not_new_memory(tmp_path):
    result = run_python('-c', COUNT, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    before, after = map(int, result.stdout.split())
    assert after < before / 10
