"""Training and testing of any video restoration network with a pixel loss."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from basicsr.data import build_dataset
from basicsr.utils import get_root_logger
from basicsr.utils.registry import MODEL_REGISTRY
from torch import Tensor, nn
from torch.utils.data import DataLoader

from dblr_plugin.acceleration import autocast, freeze_batch_statistics, prepare_network, share_batch_statistics
from dblr_plugin.colour import to_network_colour
from dblr_plugin.data.video_deblur_test_dataset import VideoDeblurTestDataset
from dblr_plugin.errors import DBLRError
from dblr_plugin.evaluation.validation import ComparisonImages, Interrupted
from dblr_plugin.models.video_test_model import VideoTestModel
from dblr_plugin.training import interrupts
from dblr_plugin.training.checkpoints import Checkpoints
from dblr_plugin.training.monitors import DataMonitor, SkipMonitor
from dblr_plugin.training.objectives import check_batch, content_losses, restore_sizes, seed_iteration
from dblr_plugin.training.step import (
    PlateauLR,
    Step,
    StepResult,
    build_optimizer,
    mean_over_processes,
    move_average,
    multiply_rates,
    of_all_processes,
    share_gradients,
    suspects,
    train_alone,
    trainable,
)

__all__ = ['VideoDeblurModel']


@MODEL_REGISTRY.register()
class VideoDeblurModel(VideoTestModel):
    """Trains a network that restores one frame of RGB windows, such as DBLRNet, DBN or EDVR.

    A network with ``num_in_ch: 1`` is trained on Y and keeps the blurry frame's colour, one with 3 on RGB.

    Options under ``train`` that BasicSR's ``SRModel`` lacks:
        amp: ``bf16`` or ``fp16``: the networks' forward passes in mixed precision.
        accumulate: Splits a batch into this many micro-batches, which saves memory accordingly. Unless BatchNorm is
            frozen or missing, each micro-batch has its own batch statistics and updates the running ones.
        clip_grad_norm: Larger gradients are scaled down to this 2-norm, for each network separately.
        compile, channels_last: ``torch.compile`` (``reduce-overhead`` is its mode with CUDA graphs) and the faster
            memory layout for the trained networks.
        max_skipped_steps: A step with a non-finite loss or gradient is skipped and its samples are named; this many in
            a row (default 10) end the run.
        lr_mul: Part of a parameter's name -> factor for its learning rate; BasicSR's ``dcn_lr_mul`` is ``{dcn: ...}``.
        train_only: Part of a parameter's name -> the iteration before which only such parameters are trained;
            BasicSR's ``tsa_iter`` is ``{fusion: ...}``.
        multi_scale: The pixel loss is the sum over all sizes that the network restores (``DeepDeblur``), as published.
        freeze_bn: BatchNorm uses its running statistics without updating them, for fine-tuning with small batches.
        sync_bn: BatchNorm computes its statistics over the batches of all processes, on GPUs.
        scheduler: Also ``PlateauLR``. The optimiser can be any of ``torch.optim``.
    All randomness depends only on ``manual_seed`` and the iteration, so a resumed run equals an uninterrupted one.
    SIGINT and SIGTERM save and stop. Any number of data sets can be validated, with the work split between processes.
    """

    #: The losses monitored by ``PlateauLR``.
    content_names = ('l_pix', 'l_percep', 'l_style')

    def __init__(self, opt: dict) -> None:
        self.validated: dict[str, int] = {}  # data set -> iteration of its latest scores
        super().__init__(opt)
        # BasicSR's trainer warns about this, but this class supports it
        get_root_logger().addFilter(lambda record: 'Multiple validation datasets' not in str(record.msg))

    def model_to_device(self, net: nn.Module) -> nn.Module:
        """Moves a network to this process's device, and prepares and wraps it according to the options."""
        net = net.to(self.device)
        if self.is_train:
            train = self.opt['train']
            if train.get('sync_bn'):
                net = share_batch_statistics(net, self.device.type, self.opt['world_size'])
            prepare_network(net, train.get('channels_last', False), train.get('compile', False))
        # temporarily frozen parameters take no part in the backward pass
        find_unused = self.opt.get('find_unused_parameters') or (self.is_train and self.opt['train'].get('train_only'))
        return share_gradients(net, bool(find_unused)) if self.opt['dist'] else net

    def init_training_settings(self) -> None:
        """Builds EMA, losses, optimisers, schedulers, checkpoints and monitors."""
        if not [*self.net_g.parameters()]:
            raise DBLRError(f'network_g.type is {self.opt["network_g"]["type"]}, which has no weights to train')
        self.batch_is_checked = False
        super().init_training_settings()
        train = self.opt['train']
        self.accumulate = train.get('accumulate', 1)
        self.multi_scale = train.get('multi_scale', False)
        networks = [networks['params'] for networks in self.trained_networks().values()]
        step = partial(Step, loss_scaling=train.get('amp') == 'fp16', clip_grad_norm=train.get('clip_grad_norm'))
        self.steps = list(map(step, networks, self.optimizers))
        self.step_g = self.steps[0]
        self.trainable = trainable(self.get_bare_model(self.net_g))
        self.skip_monitor = SkipMonitor(train.get('max_skipped_steps', 10))
        self.data_monitor = DataMonitor(self.opt['datasets']['train'])
        self.strips = ComparisonImages(Path(self.opt['path']['visualization']))
        self.iteration = 0
        self.checkpoints = Checkpoints(self.opt, self)
        self.train_mode()

    def load_network(
        self, net: nn.Module, load_path: str, strict: bool = True, param_key: str | None = 'params'
    ) -> None:
        """Loads weights of any origin; raises DBLRError if they belong to another network."""
        if net is getattr(self, 'net_g_ema', None):
            self.model_ema(0)  # what the file lacks (strict_load_g: false) starts as in net_g, on all processes
        super().load_network(net, load_path, strict, param_key)

    def get_optimizer(self, optim_type: str, params: Any, lr: float, **kwargs: Any) -> torch.optim.Optimizer:
        """Builds any optimiser of ``torch.optim``."""
        return build_optimizer(optim_type, params, lr=lr, **kwargs)

    def setup_optimizers(self) -> None:
        """Builds BasicSR's optimisers, and applies the learning rate factors of ``train.lr_mul``."""
        super().setup_optimizers()
        multiply_rates(self.optimizer_g, self.get_bare_model(self.net_g), self.opt['train'].get('lr_mul') or {})

    def setup_schedulers(self) -> None:
        """Builds a scheduler for each optimiser: one of BasicSR's, or ``PlateauLR``."""
        arguments = dict(self.opt['train']['scheduler'])
        if arguments.pop('type') == 'PlateauLR':
            self.schedulers = [PlateauLR(optimizer, **arguments) for optimizer in self.optimizers]
        else:
            super().setup_schedulers()

    def update_learning_rate(self, current_iter: int, warmup_iter: int = -1) -> None:
        """Sets an iteration's learning rates; a warm-up ends at the scheduled rate.

        BasicSR's warm-up overwrites the rate from which ``MultiStepLR`` and ``PlateauLR`` continue, so a warm-up of two
        iterations would halve it for the whole training.
        """
        if current_iter <= warmup_iter:
            self._set_lr([scheduler.get_last_lr() for scheduler in self.schedulers])
        super().update_learning_rate(current_iter, warmup_iter)

    def train_mode(self) -> None:
        """Puts the trained networks into training mode, with BatchNorm frozen if ``train.freeze_bn`` is set."""
        for step in self.steps:
            step.net.train()
            if self.opt['train'].get('freeze_bn'):
                freeze_batch_statistics(step.net)

    def feed_data(self, data: dict) -> None:
        """Accepts a batch: ``lq`` (b, t, 3, h, w), ``gt`` (b, 3, h, w), RGB in [0, 1]; ``key``, the samples' names."""
        self.data_monitor.batch_arrived()
        if not self.batch_is_checked:  # once, as it makes a GPU wait
            check_batch(data, self.opt['datasets']['train'].get('num_frame', 5))
            self.batch_is_checked = True
        self.keys = list(map(str, data.get('key', ())))
        self.lq = to_network_colour(data['lq'].to(self.device, non_blocking=True), self.traits.channels)
        self.gt = to_network_colour(data['gt'].to(self.device, non_blocking=True), self.traits.channels)

    def optimize_parameters(self, current_iter: int) -> None:
        """Runs one iteration; after a signal, saves a checkpoint and ends the program."""
        self.iteration = current_iter
        seed_iteration(self.opt['manual_seed'], current_iter, self.opt['rank'], self.opt['world_size'])
        if train_only := self.opt['train'].get('train_only'):
            train_alone(self.trainable, train_only, current_iter)
        for step in self.steps:
            step.begin()
        results = self.train_step(current_iter)
        if any(result.skipped for result in results):
            for step in self.steps:  # including G, which runs even when only D is trained
                step.restore_buffers()
        if self.ema_decay > 0:
            self.model_ema(decay=self.ema_decay)
        self._log_step(current_iter, results)
        self.data_monitor.step_done()

    def train_step(self, current_iter: int) -> list[StepResult]:
        """Updates the weights, and sets ``log_values`` for the log."""
        self.log_values: dict[str, Tensor] = {}
        pairs = self.micro_batches()
        result = self.step_g.run(pairs, lambda pair: self.content_losses(self.forward_g(pair[0]), pair[1]))
        self.log_values |= result.losses | {'grad_g': result.grad_norm}
        return [result]

    def micro_batches(self) -> list[tuple[Tensor, Tensor]]:
        """Returns the batch, ``lq`` and ``gt``, split into ``train.accumulate`` equal micro-batches."""
        return list(zip(self.lq.chunk(self.accumulate), self.gt.chunk(self.accumulate), strict=True))

    def forward_g(self, lq: Tensor) -> list[Tensor]:
        """Restores a batch in the precision of ``train.amp``; the result is always float32.

        Returns:
            The restored batch and, with ``train.multi_scale``, its smaller sizes.
        """
        with self.autocast():
            return restore_sizes(self.net_g, lq, self.multi_scale)

    def autocast(self) -> AbstractContextManager:
        """Returns the autocast context for forward passes in training."""
        return autocast(self.device, self.opt['train'].get('amp'))

    def content_losses(self, restored: list[Tensor], gt: Tensor) -> dict[str, Tensor]:
        """Returns the losses that compare the output of :meth:`forward_g` with the ground truth."""
        pyramid = self.get_bare_model(self.net_g).pyramid if self.multi_scale else None
        losses = content_losses(restored, gt, self.cri_pix, self.cri_perceptual, pyramid)
        if getattr(self.cri_pix, 'reduction', None) == 'sum':
            losses['l_pix'] = losses['l_pix'] * self.accumulate  # Step averages over the micro-batches
        return losses

    def model_ema(self, decay: float = 0.999) -> None:
        """Updates the EMA network from the trained one; buffers (BatchNorm's statistics) are copied."""
        move_average(self.net_g_ema, self.get_bare_model(self.net_g), decay)

    def _log_step(self, current_iter: int, results: list[StepResult]) -> None:
        """Averages an iteration's log values over the processes, and acts on skipped steps, plateaus and signals."""
        signalled = torch.full((), float(interrupts.received() is not None), device=self.device)
        values = {**self.log_values, 'interrupted': signalled}
        self.log_dict = mean_over_processes(values, self.device)
        interrupted = self.log_dict.pop('interrupted') > 0
        skipped = any(result.skipped for result in results)
        self.skip_monitor.record(current_iter, skipped, suspects(self.keys, results) if skipped else [])
        content = [value for name, value in self.log_dict.items() if name in self.content_names]
        for scheduler in self.schedulers:
            if content and isinstance(scheduler, PlateauLR):  # no content loss while only D is trained
                scheduler.record(sum(content))
        if interrupted:
            self.stop()

    def trained_networks(self) -> dict[str, dict[str, nn.Module]]:
        """Returns the networks in a checkpoint: file -> key in it -> network."""
        averaged = {'params_ema': self.net_g_ema} if hasattr(self, 'net_g_ema') else {}
        return {'net_g': {'params': self.net_g} | averaged}

    def save(self, epoch: int, current_iter: int) -> None:
        """Saves networks and training state; BasicSR's trainer passes iteration -1 at the end of training."""
        is_last = current_iter == -1
        self.checkpoints.save(self.iteration if is_last else current_iter, is_last)
        self.data_monitor.pause()

    def resume_training(self, resume_state: dict) -> None:
        """Resumes from a checkpoint, and runs the validation due at its iteration if the run ended before it."""
        self.checkpoints.resume(resume_state)
        self.iteration = resume_state['iter']
        val = self.opt.get('val') or {}
        if val.get('val_freq') and self.iteration % val['val_freq'] == 0:
            for phase, options in self.opt['datasets'].items():
                is_done = self.record.has(options['name'], self.iteration)
                if phase.startswith('val') and not of_all_processes(is_done)[0]:
                    loader = DataLoader(build_dataset(options))
                    self.nondist_validation(loader, self.iteration, None, val.get('save_img', False))

    def stop(self) -> None:
        """Saves and ends the program after a signal; the exit code is the shell's for that signal."""
        if self.iteration:
            self.save(-1, -1)
            get_root_logger().info(f'Stopped and saved at iteration {self.iteration}; --auto_resume continues there.')
        interrupts.end_program()

    def nondist_validation(
        self, dataloader: DataLoader, current_iter: int | str, tb_logger: Any, save_img: bool
    ) -> None:
        """Restores and scores a data set, logs the scores and appends them to ``metrics.json``.

        BasicSR validates once more when training ends, with a counter past the last iteration: those scores belong to
        ``total_iter``, and are not computed again if that iteration was validated already.
        """
        if not self.is_train:
            super().nondist_validation(dataloader, current_iter, tb_logger, save_img)
            return
        dataset = cast(VideoDeblurTestDataset, dataloader.dataset)
        last = max(int(self.opt['train']['total_iter']), self.iteration)  # a resumed run may be past its total_iter
        name, current_iter = dataset.opt['name'], min(int(current_iter), last)
        if self.validated.get(name) == current_iter:
            return
        self.validated[name] = current_iter
        try:
            shown, stopped = [self.strips.begin(dataset)], lambda: interrupts.received() is not None
            finish = partial(self.strips.finish, current_iter, tb_logger)
            self.score(dataset, current_iter, tb_logger, save_img, shown, stopped, finish)
        except Interrupted:
            self.stop()
        self.data_monitor.pause()
        self.train_mode()

    dist_validation = nondist_validation
