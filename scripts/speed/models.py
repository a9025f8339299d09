"""BasicSR's models and ours, built as BasicSR builds them, without option files."""

from __future__ import annotations

import dblr_plugin  # noqa: F401  (BasicSR can be imported only after it)

# isort: split

from pathlib import Path
from typing import Any

import torch
from basicsr.models import build_model
from basicsr.models.base_model import BaseModel

__all__ = ['build_bench_model']


def build_bench_model(kind: str, folder: Path, **sections: Any) -> BaseModel:
    """Builds a model, on the first GPU if there is one.

    Args:
        kind: Its class.
        folder: Where it writes.
        sections: What its options have beside names, paths and devices: ``network_g`` and so on.
    """
    paths = {key: folder / key for key in ('models', 'training_states', 'visualization', 'log')}
    for path in paths.values():
        path.mkdir(exist_ok=True)
    return build_model({
        'name': kind, 'model_type': kind, 'scale': 1, 'manual_seed': 0, 'is_train': 'train' in sections,
        'num_gpu': min(torch.cuda.device_count(), 1), 'dist': False, 'rank': 0, 'world_size': 1, 'logger': {},
        'path': {key: str(path) for key, path in paths.items()},
        **sections,
    })  # fmt: skip
