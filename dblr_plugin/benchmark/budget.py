"""The training budget of each method: iterations, batch size and learning rate, read from the options of its run."""

from __future__ import annotations

from collections.abc import Mapping

from dblr_plugin.benchmark.methods import BATCH, RATE, Method

__all__ = ['kept_rates', 'total_iterations', 'training_budget']


def training_budget(method: Method, record: Mapping | None) -> dict | None:
    """What a finished training was given.

    Args:
        method: Its options are those that were run: a record is of no others.
        record: The training's.

    Returns:
        ``iterations`` of its own, ``batch`` of all processes together (None if it went on with more or fewer of them),
        ``lr`` as it starts, ``crop``, ``starts_from`` and ``seconds``; None where nothing was trained here.
    """
    if method.train is None or not record:
        return None
    train, train_set = method.train['train'], method.train['datasets']['train']
    processes = record['processes']
    return {
        'iterations': train['total_iter'],
        'batch': processes and train_set['batch_size_per_gpu'] * processes,
        'lr': train['optim_g']['lr'],
        'crop': train_set['gt_size'],
        'starts_from': method.start or method.train['path'].get('pretrain_network_g'),
        'seconds': record['seconds'],
    }


def total_iterations(method: Method, methods: Mapping[str, Method]) -> int | None:
    """Iterations behind a method's weights, those it starts from included; None if not all are known."""
    if method.train is None:
        return None
    own = method.train['train']['total_iter']
    if method.start is None:
        return own if method.train['path'].get('pretrain_network_g') is None else None
    before = total_iterations(methods[method.start], methods)
    return None if before is None else before + own


def kept_rates(methods: list[Method]) -> str | None:
    """One line on those whose batch size the benchmark file changes, and not the learning rate; None without any."""
    kept = [method for method in methods if BATCH in method.changes and RATE not in method.changes]
    if not kept:
        return None
    batches = {m.name: (m.changes[BATCH], m.training['datasets']['train']['batch_size_per_gpu']) for m in kept}
    named = ', '.join(f'{name} ({before} to {after})' for name, (before, after) in batches.items())
    return f'Batch size for each process changed, and learning rate kept that belongs to the one before: {named}.'
