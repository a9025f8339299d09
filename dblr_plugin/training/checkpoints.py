"""Saves and resumes a training: networks, optimisers, schedulers, loss scales and best scores."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from basicsr.utils import get_root_logger
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from dblr_plugin.errors import DBLRError
from dblr_plugin.training.checkpoint_folder import CheckpointFolder, size_of
from dblr_plugin.weights.checkpoint import FORMAT_VERSION

__all__ = ['Checkpoints', 'overruled', 'refuse_other_optimizers', 'refuse_other_schedulers']


class Checkpoints:
    """Saves and resumes the checkpoints of one run; only the first process writes.

    Args:
        opt: The run's options.
        training: The model. Saved and resumed are its ``optimizers``, ``schedulers``, ``steps``, the best scores of its
            ``record``, and ``trained_networks()``: file, such as ``net_g`` -> key in it, such as ``params_ema`` ->
            network.

    Raises:
        DBLRError: If the disk has no room for a single checkpoint.
    """

    def __init__(self, opt: dict, training: Any) -> None:
        self.opt = opt
        self.training = training
        self.saved: int | None = None  # the iteration of the newest checkpoint
        path = opt['path']
        self.folder = CheckpointFolder(path['models'], path['training_states'], opt['logger'].get('max_keep_ckpts'))
        self.writes = opt['rank'] == 0  # other nodes need not have the folder
        if self.writes:
            # an optimiser such as Adam keeps two numbers per weight
            self.folder.check_space(3 * size_of(self._networks()))

    def save(self, iteration: int, is_last: bool) -> None:
        """Saves an iteration, unless it is saved already. A failure is logged, and the next save is tried as usual.

        Raises:
            DBLRError: If the last save of the run fails.
        """
        if iteration == self.saved or not self.writes:
            return
        try:
            self.folder.save(iteration, self._networks(), self._state(iteration))
            self.saved = iteration
        except (DBLRError, OSError, RuntimeError) as error:
            message = f'the checkpoint of iteration {iteration} could not be saved ({error})'
            if is_last:
                raise DBLRError(message) from error
            # a failed checkpoint must not end the training
            get_root_logger().error(f'{message}. It will be tried again at the next opportunity.')

    def _networks(self) -> dict[str, dict]:
        """Returns the contents of the networks' files."""
        # with the network's options, the file can be used without an option file
        about = {'network': self.opt['network_g'], 'format_version': FORMAT_VERSION}
        pad_multiple = (self.opt.get('val') or {}).get('pad_multiple', 1)
        if pad_multiple > 1:
            about['pad_multiple'] = pad_multiple
        return {
            name: {key: _weights(net) for key, net in networks.items()} | (about if name == 'net_g' else {})
            for name, networks in self.training.trained_networks().items()
        }

    def _state(self, iteration: int) -> dict:
        return {
            'epoch': iteration // self.opt['iters_per_epoch'],
            'iter': iteration,
            'optimizers': [o.state_dict() for o in self.training.optimizers],
            'optimizer_types': [type(o).__name__ for o in self.training.optimizers],
            'schedulers': [s.state_dict() for s in self.training.schedulers],
            'scalers': [step.scaler.state_dict() for step in self.training.steps],
            'best_metric_results': self.training.record.best,
            'manual_seed': self.opt['manual_seed'],
        }

    def resume(self, state: dict) -> None:
        """Restores optimisers, schedulers, loss scales and best scores; networks are loaded already.

        ``state`` is the result of ``load_resume_state``; its epoch is recomputed for this run's data.

        Raises:
            DBLRError: If the state belongs to another training or is damaged.
        """
        try:
            self._take_up(state)
        except (AssertionError, AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise DBLRError(
                f'{self.opt["path"]["resume_state"]}: not a state of this training ({error}); its networks, optimisers '
                'and schedulers must be those of the option file'
            ) from error
        iteration, names = state['iter'], self.training.trained_networks().keys()
        # a state that was moved, or is from elsewhere, is not one of this run's checkpoints yet
        self.saved = iteration if self.folder.is_there(iteration, names) else None
        self.training.record.resume(state.get('best_metric_results', {}), iteration)
        # BasicSR reads the epoch after this; the length of an epoch depends on batch size and number of processes
        state['epoch'] = iteration // self.opt['iters_per_epoch']
        if self.writes:  # clean up after a kill during a save
            self.folder.remove_remains()
            if later := self.folder.set_aside_after(iteration):
                get_root_logger().warning(
                    f'{self.folder.states}: {", ".join(later)}: not of this training, which goes on from iteration '
                    f'{iteration}; renamed to .state.old. The networks stay until it saves its own.'
                )
            if self.saved is not None:
                self.folder.make_latest(iteration, list(names))

    def _take_up(self, state: dict) -> None:
        optimizers, schedulers = self.training.optimizers, self.training.schedulers
        refuse_other_optimizers(optimizers, state)
        refuse_other_schedulers(schedulers, state)
        self._warn_of_overruled_settings(state)
        for part, saved in zip([*optimizers, *schedulers], state['optimizers'] + state['schedulers'], strict=True):
            part.load_state_dict(saved)
        for step, scaler in zip(self.training.steps, state.get('scalers', []), strict=False):
            if scaler:  # empty unless train.amp was fp16
                step.scaler.load_state_dict(scaler)
        self._refuse_end_of_schedule()

    def _refuse_end_of_schedule(self) -> None:
        """Rejects a cosine schedule, now the state's, that ends before the training; BasicSR's fails there."""
        total = int(self.opt['train']['total_iter'])
        for scheduler in self.training.schedulers:
            end = sum(getattr(scheduler, 'periods', [total]))
            if end < total - 1:
                raise DBLRError(
                    f'{self.opt["path"]["resume_state"]}: its train.scheduler.periods, with which a resumed run '
                    f'continues, add up to {end} iterations, and train.total_iter is {total}; lower total_iter, or '
                    f'start a new run from its weights: with another name and path.pretrain_network_g: '
                    f'{self.opt["path"].get("pretrain_network_g")}, without --auto_resume and path.resume_state'
                )

    def _warn_of_overruled_settings(self, state: dict) -> None:
        """Warns if the state overrides settings of the option file, or if the last iteration is reached already."""
        path, network = self.opt['path'].get('resume_state'), self.opt['path'].get('pretrain_network_g')
        found = overruled(self.training.optimizers, self.training.schedulers, state)
        differences = '; '.join(dict.fromkeys(found))
        if differences:
            get_root_logger().warning(
                f'Resuming from {path}: {differences}. The values of the state are used. To train with those of the '
                f'option file, start a new run from its weights: with another name and path.pretrain_network_g: '
                f'{network}, without --auto_resume and path.resume_state.'
            )
        seed, own_seed = state.get('manual_seed'), self.opt['manual_seed']
        if seed not in (None, own_seed):
            get_root_logger().warning(
                f'Resuming from {path}: manual_seed is {own_seed} in the option file and was {seed} so far; samples '
                'and augmentation now follow the new one.'
            )
        total = int(self.opt['train']['total_iter'])
        if total <= state['iter']:
            get_root_logger().warning(
                f'{path} is of iteration {state["iter"]} and train.total_iter is {total}: nothing is left to train. '
                'To continue, raise train.total_iter; to go back, name an earlier state (path.resume_state).'
            )


def _weights(net: nn.Module) -> dict:
    bare = net.module if isinstance(net, DistributedDataParallel) else net
    return {key: value.cpu().contiguous() for key, value in bare.state_dict().items()}


def refuse_other_optimizers(optimizers: Sequence[Optimizer], state: dict) -> None:
    """Rejects a training state of other optimisers or networks, which torch loads, only to fail at the first step.

    Raises:
        ValueError: If an optimiser's class, the number of optimisers or of parameter groups, or the shape of a
            parameter differs.
    """
    if len(optimizers) != len(state['optimizers']):
        raise ValueError(f'it has {len(state["optimizers"])} optimisers, and this training has {len(optimizers)}')
    names = state.get('optimizer_types') or [None] * len(optimizers)  # missing in older states and BasicSR's
    for optimizer, saved, name in zip(optimizers, state['optimizers'], names, strict=True):
        own, (first, *_) = type(optimizer).__name__, saved['param_groups']
        lacking = ({'betas', 'momentum', 'alpha', 'rho'} & optimizer.defaults.keys()) - first.keys()
        if name not in (None, own) or (name is None and lacking):
            what = name or f'another one, without {min(lacking)}'
            raise ValueError(f'its optimiser is {what}, and that of the option file is {own}')
        groups, own_groups = len(saved['param_groups']), len(optimizer.param_groups)
        if groups != own_groups:
            raise ValueError(f'its train.lr_mul makes {groups} groups of parameters, and this one {own_groups}')
        for own_group, group in zip(optimizer.param_groups, saved['param_groups'], strict=True):
            for parameter, index in zip(own_group['params'], group['params'], strict=False):
                for key, value in saved['state'].get(index, {}).items():
                    if key in _OF_PARAMETERS and value.shape != parameter.shape:
                        raise ValueError(f'{key} of parameter {index} has another shape')


#: Optimiser state that has the shape of its parameter
_OF_PARAMETERS = ('exp_avg', 'exp_avg_sq', 'max_exp_avg_sq', 'exp_inf', 'momentum_buffer', 'square_avg', 'acc_delta')


def refuse_other_schedulers(schedulers: Sequence[Any], state: dict) -> None:
    """Rejects a training state of other scheduler classes, which torch loads, to continue at wrong rates.

    Raises:
        ValueError: If a scheduler's class differs.
    """
    for scheduler, saved in zip(schedulers, state['schedulers'], strict=True):
        own = inspect.signature(type(scheduler)).parameters.keys() & scheduler.state_dict().keys()
        if lacking := own - saved.keys():
            what = f'another one, without {min(lacking)}'
            raise ValueError(f'its scheduler is {what}; that of the option file is {type(scheduler).__name__}')


def overruled(optimizers: Sequence[Optimizer], schedulers: Sequence[Any], state: dict) -> Iterator[str]:
    """Lists the settings in which a training state differs from newly built optimisers and schedulers.

    BasicSR and torch continue with those of the state.

    Yields:
        ``lr is 5e-05 in the option file and 0.001 in the state``.
    """
    for optimizer, saved in zip(optimizers, state['optimizers'], strict=True):
        groups = zip(optimizer.param_groups, saved['param_groups'], strict=False)  # several with train.lr_mul
        for (own, theirs), key in itertools.product(groups, optimizer.defaults):
            name = 'initial_lr' if key == 'lr' else key
            if key not in _OF_KERNELS:
                yield from _difference(key, own.get(name), theirs.get(name))
    for scheduler, saved in zip(schedulers, state['schedulers'], strict=True):
        own, theirs = vars(scheduler), saved
        if 'arguments' in own:  # PlateauLR's, which torch keeps under other names and values
            own, theirs = own['arguments'], saved.get('arguments', {})
        for key in inspect.signature(type(scheduler)).parameters:
            if key != 'last_epoch' and key in theirs and key in own:
                yield from _difference(key, own[key], theirs[key])


#: Settings that differ between CPU and GPU, and do not change what is computed
_OF_KERNELS = ('foreach', 'fused')


def _difference(key: str, own: Any, saved: Any) -> Iterator[str]:
    own, saved = ([*value.elements()] if hasattr(value, 'elements') else value for value in (own, saved))
    plain = [list(value) if isinstance(value, tuple) else value for value in (own, saved)]
    # newer torch versions have settings that older ones did not save
    if plain[0] != plain[1] and saved is not None:
        yield f'{key} is {own} in the option file and {saved} in the state'
