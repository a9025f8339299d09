"""Explains errors of torch that end a training through no fault of the code."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator

from dblr_plugin.files import write_fault

__all__ = ['PEER_ENDED', 'explain']

#: What is told of an error that only follows from another process's
PEER_ENDED = 'another process of this run has ended; the cause is in its own error, above or on its machine'

# what reading does not say
_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.ENAMETOOLONG)

_MEANINGS = {
    # the data loader
    r'DataLoader timed out after ([\d.]+) seconds': (
        'no batch came for {0} s: the disk or the network behind the training data does not answer, or is too slow; '
        'fix that, or raise datasets.train.timeout'
    ),
    r'Bus error|out of shared memory|insufficient shared memory': (
        "the data loader's workers ran out of shared memory (/dev/shm): enlarge it (docker run --shm-size=8g), or "
        'lower datasets.train.num_worker_per_gpu'
    ),
    r'DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (?:is killed by signal|exited unexpectedly)': (
        'a worker of the data loader (process {0}) was killed, as a rule because memory ran out: lower '
        'datasets.train.num_worker_per_gpu or batch_size_per_gpu'
    ),
    r'Too many open files': (
        'too many files are open: raise the limit (ulimit -n 65536), or lower datasets.train.num_worker_per_gpu'
    ),
    # memory
    r'CUDA out of memory|CUDA error: out of memory|CUBLAS_STATUS_ALLOC_FAILED': (
        "the GPU's memory is full: lower datasets.train.batch_size_per_gpu or gt_size, compute batches in parts "
        '(train.accumulate: 2), or use mixed precision (train.amp: bf16)'
    ),
    r"DefaultCPUAllocator: (?:can't allocate memory|not enough memory)": (
        'the memory is full: lower datasets.train.batch_size_per_gpu, gt_size or num_worker_per_gpu, or compute '
        'batches in parts (train.accumulate: 2)'
    ),
    # other processes
    r'Timed out waiting \d+ms for|Application timeout|before timing out|collective operation timeout': (
        'the processes of this run wait for one that does not come: it hangs, or is much slower (its data?); find out '
        'why, or raise dist_params.timeout'
    ),
    r'gloo.*(?:closed by peer|reset by peer|Broken pipe)|remote process (?:has )?exited|ncclRemoteError': PEER_ENDED,
    r'EADDRINUSE|[Aa]ddress already in use': (
        'the port by which the processes find each other is taken, perhaps by another run: name a free one '
        '(--master-port=29501, PORT=29501 for scripts/dist_train.sh)'
    ),
    r'clients joined|wait timeout after|timed out.* while trying to connect|failed to connect/validate to host': (
        'the processes of this run did not find each other: all must be started, with the same number of nodes, '
        'address (MASTER_ADDR) and port, and no firewall may stand between them'
    ),
}


def explain(error: BaseException, folder: str = '') -> str | None:
    """Says in one sentence why training ended and what helps.

    Args:
        error: What ended it.
        folder: Where the run writes, for errors that name no file.

    Returns:
        The sentence; None for an error that only its traceback explains.

    >>> explain(RuntimeError('DataLoader timed out after 600 seconds')).split(':')[0]
    'no batch came for 600 s'
    >>> explain(RuntimeError('mat1 and mat2 shapes cannot be multiplied')) is None
    True
    """
    if isinstance(error, KeyboardInterrupt):
        return 'interrupted'
    if isinstance(error, OSError) and error.errno in _OF_THE_DISK:  # BasicSR's own files
        unnamed = f'a file below {folder}' if folder else 'a file'
        return str(write_fault(error.filename2 or error.filename or unnamed, error))
    # torch's errors all are RuntimeErrors; the BrokenPipeError of `... | head` is none
    if not isinstance(error, RuntimeError):
        return None
    text = '\n'.join(_messages(error))
    for pattern, meaning in _MEANINGS.items():
        found = re.search(pattern, text, re.DOTALL)
        if found:
            return meaning.format(*found.groups())
    return None


def _messages(error: BaseException | None) -> Iterator[str]:
    """An error's message and those of its causes: of a loader's worker, only the cause says what killed it."""
    while error is not None:
        yield str(error)
        error = error.__cause__
