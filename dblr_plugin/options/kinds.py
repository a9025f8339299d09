"""The classes that only trainings and tests name: losses, optimisers, schedulers, metrics."""

from __future__ import annotations

import inspect
from typing import Literal

import torch
from basicsr.models import lr_scheduler
from basicsr.utils.registry import LOSS_REGISTRY

from dblr_plugin.components import NATURAL, ComponentKind, registered
from dblr_plugin.evaluation.metrics import IMAGES, all_metrics
from dblr_plugin.training.plateau_lr import PlateauLR

__all__ = ['LOSS', 'METRIC', 'OPTIMISER', 'SCHEDULER']


def _optimisers() -> dict[str, type]:
    # the base class; one that steps with a closure; one for sparse gradients; one for matrices alone
    unfit = {'Optimizer', 'LBFGS', 'SparseAdam', 'Muon'}
    return {name: cls for name, cls in vars(torch.optim).items() if inspect.isclass(cls) and name not in unfit}


def _schedulers() -> dict[str, type]:
    basicsr = {name: cls for name, cls in vars(lr_scheduler).items() if name.endswith('LR') and name[0] != '_'}
    # BasicSR's base model takes this as another name for its own
    return basicsr | {'MultiStepLR': lr_scheduler.MultiStepRestartLR, 'PlateauLR': PlateauLR}


LOSS = ComponentKind(lambda: registered(LOSS_REGISTRY))
OPTIMISER = ComponentKind(_optimisers, given=frozenset({'params'}), needed=frozenset({'lr'}))
SCHEDULER = ComponentKind(_schedulers, given=frozenset({'optimizer', 'last_epoch'}))
METRIC = ComponentKind(
    all_metrics,
    given=IMAGES | {'crop_border', 'test_y_channel'},  # a protocol has them, if the option file has not
    extra={'better': Literal['higher', 'lower'], 'crop_border': NATURAL, 'test_y_channel': bool},
    closed=True,
)
