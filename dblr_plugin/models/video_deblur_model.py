"""Training and testing of any video restoration network with a pixel loss."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from basicsr.data import build_dataset
from basicsr.utils import get_root_logger
from basicsr.utils.dist_util import master_only
from basicsr.utils.registry import MODEL_REGISTRY
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from dblr_plugin.acceleration import autocast, prepare_network, share_batch_statistics
from dblr_plugin.colour import to_network_colour
from dblr_plugin.data.video_deblur_test_dataset import VideoDeblurTestDataset
from dblr_plugin.errors import DBLRError
from dblr_plugin.evaluation.comparison_images import ComparisonImages
from dblr_plugin.evaluation.validation import Interrupted
from dblr_plugin.models.video_test_model import VideoTestModel
from dblr_plugin.training import interrupts
from dblr_plugin.training.monitors import DataMonitor, SkipMonitor
from dblr_plugin.training.objectives import content_losses, restore_sizes, seed_iteration
from dblr_plugin.training.optimizers import build_optimizer
from dblr_plugin.training.parameters import multiply_rates, train_alone
from dblr_plugin.training.plateau_lr import PlateauLR
from dblr_plugin.training.resume import overruled, refuse_damage, refuse_other_optimizers
from dblr_plugin.training.saving import CheckpointFolder, size_of
from dblr_plugin.training.step import Step, StepResult
from dblr_plugin.weights import FORMAT_VERSION

__all__ = ['VideoDeblurModel']


@MODEL_REGISTRY.register()
class VideoDeblurModel(VideoTestModel):
    """Restores one frame of RGB windows; works for DBLRNet, DBN, EDVR and their like.

    A network with ``num_in_ch: 1`` is trained on Y and keeps the blurry frame's colour, one with 3 on RGB.

    Beyond BasicSR's ``SRModel``, under ``train``:
        amp: ``bf16`` or ``fp16``: the networks' forward passes in mixed precision.
        accumulate: Computes a batch in so many pieces, for as much less memory. The gradient is the whole batch's
            where BatchNorm is frozen or missing; otherwise each piece has batch statistics of its own, and the running
            ones move once for each.
        clip_grad_norm: Longer gradients are scaled down to this 2-norm, each network's by itself.
        compile, channels_last: ``torch.compile`` and the faster memory layout for the trained networks.
        max_skipped_steps: A step whose loss or gradient is not finite is skipped and its samples named; so many in a
            row (default 10) end the run.
        lr_mul: Part of a parameter's name -> what its learning rate is multiplied with; BasicSR's ``dcn_lr_mul`` is
            ``{dcn: ...}``.
        train_only: Part of a parameter's name -> the iteration before which such parameters are trained alone;
            BasicSR's ``tsa_iter`` is ``{fusion: ...}``.
        multi_scale: The pixel loss is the sum over all sizes that the network restores (``DeepDeblur``), as published.
        freeze_bn: BatchNorm uses its running statistics and leaves them alone, for fine-tuning with small batches.
        sync_bn: BatchNorm's statistics are those of all processes' batches, on GPUs.
        scheduler: Also ``PlateauLR``. Any optimiser of ``torch.optim``.
    Any device; checkpoints that are complete, atomic and refuse another network's weights
    (``logger.max_keep_ckpts`` of them); EMA with BatchNorm's statistics; all randomness follows from ``manual_seed``
    and the iteration, so that a resumed run is the uninterrupted one; SIGINT and SIGTERM save and stop; validation on
    any number of sets, shared by all processes.
    """

    def __init__(self, opt: dict) -> None:
        self.validated: dict[str, int] = {}  # data set -> iteration of its newest figures
        super().__init__(opt)
        # BasicSR's trainer warns of what this class does support
        get_root_logger().addFilter(lambda record: 'Multiple validation datasets' not in str(record.msg))

    # ------------------------------------------------------------------ set-up

    def model_to_device(self, net: nn.Module) -> nn.Module:
        """Moves a network to this process's device and prepares and wraps it as the options say."""
        net = net.to(self.device)
        if self.is_train:
            train = self.opt['train']
            if train.get('sync_bn'):
                net = share_batch_statistics(net, self.device.type, self.opt['world_size'])
            prepare_network(net, train.get('channels_last', False), train.get('compile', False))
        if not self.opt['dist'] or not any(p.requires_grad for p in net.parameters()):
            return net
        device_ids = [torch.cuda.current_device()] if self.device.type == 'cuda' else None
        # parameters that are frozen for a time take no part in the backward pass
        train_only = self.is_train and self.opt['train'].get('train_only')
        find_unused = self.opt.get('find_unused_parameters', False) or bool(train_only)
        return DistributedDataParallel(net, device_ids=device_ids, find_unused_parameters=find_unused)

    def init_training_settings(self) -> None:
        """Builds EMA, losses, optimisers, schedulers, and what keeps and watches the run."""
        super().init_training_settings()
        train = self.opt['train']
        self.accumulate = train.get('accumulate', 1)
        self.multi_scale = train.get('multi_scale', False)
        self.step_g = self._step(self.net_g, self.optimizer_g)
        self.skip_monitor = SkipMonitor(train.get('max_skipped_steps', 10))
        self.data_monitor = DataMonitor(self.opt['datasets']['train'])
        self.strips = ComparisonImages(Path(self.opt['path']['visualization']))
        self.iteration = 0
        self.saved: int | None = None  # the iteration of the newest checkpoint
        self.checkpoints = CheckpointFolder(
            self.opt['path']['models'], self.opt['path']['training_states'], self.opt['logger'].get('max_keep_ckpts')
        )
        if self.opt['rank'] == 0:  # the one that saves; other nodes need not have the folder
            # an optimiser such as Adam keeps two numbers for each weight
            self.checkpoints.check_space(3 * size_of(self._networks()))
        self.train_mode()

    def _step(self, net: nn.Module, optimizer: torch.optim.Optimizer) -> Step:
        train = self.opt['train']
        return Step(net, optimizer, train.get('amp') == 'fp16', train.get('clip_grad_norm'))

    @property
    def steps(self) -> list[Step]:
        """The steps of all trained networks, in the order of ``optimizers``."""
        return [self.step_g]

    def get_optimizer(self, optim_type: str, params: Any, lr: float, **kwargs: Any) -> torch.optim.Optimizer:
        """Makes any optimiser of ``torch.optim``."""
        return build_optimizer(optim_type, params, lr=lr, **kwargs)

    def setup_optimizers(self) -> None:
        """Makes BasicSR's optimisers, and rates of their own for the parts that ``train.lr_mul`` names."""
        super().setup_optimizers()
        multiply_rates(self.optimizer_g, self.get_bare_model(self.net_g), self.opt['train'].get('lr_mul') or {})

    def setup_schedulers(self) -> None:
        """Makes a scheduler for each optimiser: one of BasicSR's, or ``PlateauLR``."""
        arguments = dict(self.opt['train']['scheduler'])
        if arguments.pop('type') != 'PlateauLR':
            super().setup_schedulers()
            return
        self.schedulers = [PlateauLR(optimizer, **arguments) for optimizer in self.optimizers]

    def train_mode(self) -> None:
        """Puts the trained networks into training mode, BatchNorm as ``train.freeze_bn`` says."""
        for net in (self.net_g, getattr(self, 'net_d', None)):
            if net is None:
                continue
            net.train()
            if self.opt['train'].get('freeze_bn'):
                for module in net.modules():
                    if isinstance(module, _BatchNorm):
                        module.eval()

    # ------------------------------------------------------------------ training

    def feed_data(self, data: dict) -> None:
        """Takes a batch: ``lq`` (b, t, 3, h, w), ``gt`` (b, 3, h, w), RGB in [0, 1]; ``key``, the samples' names."""
        if self.is_train:
            self.data_monitor.batch_arrived()
        self.keys = list(data.get('key', ()))
        self.lq = to_network_colour(data['lq'].to(self.device, non_blocking=True), self.traits.channels)
        if 'gt' in data:
            self.gt = to_network_colour(data['gt'].to(self.device, non_blocking=True), self.traits.channels)

    def optimize_parameters(self, current_iter: int) -> None:
        """One iteration; ends the program, with a checkpoint, after a signal."""
        self.iteration = current_iter
        seed_iteration(self.opt['manual_seed'], current_iter, self.opt['rank'], self.opt['world_size'])
        train_alone(self.get_bare_model(self.net_g), self.opt['train'].get('train_only') or {}, current_iter)
        for step in self.steps:
            step.begin()
        results = self.train_step(current_iter)
        if any(result.skipped for result in results):
            for step in self.steps:  # G too, which restores where D alone is trained
                step.restore_buffers()
        if self.ema_decay > 0:
            self.model_ema(decay=self.ema_decay)
        self._log_step(current_iter, results)
        self.data_monitor.step_done()

    def train_step(self, current_iter: int) -> list[StepResult]:
        """Updates the weights. ``log_dict`` may get figures of its own."""
        self.log_values: dict[str, Tensor] = {}
        result = self.step_g.run(
            self.micro_batches(), lambda piece: self.content_losses(self.forward_g(piece[0]), piece[1])
        )
        self.log_values |= result.losses | {'grad_g': result.grad_norm}
        return [result]

    def micro_batches(self) -> list[tuple[Tensor, Tensor]]:
        """The batch, ``lq`` and ``gt``, in ``train.accumulate`` equal parts."""
        return list(zip(self.lq.chunk(self.accumulate), self.gt.chunk(self.accumulate), strict=True))

    def forward_g(self, lq: Tensor) -> list[Tensor]:
        """Restores, as ``train.amp`` says; float32 whatever it says.

        Returns:
            The restored batch and, with ``train.multi_scale``, its smaller sizes.
        """
        with self.autocast():
            return restore_sizes(self.net_g, lq, self.multi_scale)

    def autocast(self) -> AbstractContextManager:
        """The context for forward passes in training."""
        return autocast(self.device, self.opt['train'].get('amp'))

    def content_losses(self, restored: list[Tensor], gt: Tensor) -> dict[str, Tensor]:
        """The losses that compare what :meth:`forward_g` restored with its truth."""
        pyramid = self.get_bare_model(self.net_g).pyramid if self.multi_scale else None
        return content_losses(restored, gt, self.cri_pix, self.cri_perceptual, pyramid)

    def model_ema(self, decay: float = 0.999) -> None:
        """Moves the averaged network towards the trained one; buffers (BatchNorm's statistics) are copied."""
        net = self.get_bare_model(self.net_g)
        with torch.no_grad():
            for averaged, current in zip(self.net_g_ema.parameters(), net.parameters(), strict=True):
                averaged.lerp_(current, 1 - decay)
            for averaged, current in zip(self.net_g_ema.buffers(), net.buffers(), strict=True):
                averaged.copy_(current)

    def _log_step(self, current_iter: int, results: list[StepResult]) -> None:
        """Shares the figures of an iteration between the processes, and does what they and the signals ask for."""
        values = {**self.log_values, 'interrupted': torch.tensor(float(interrupts.received() is not None))}
        means = self._mean_over_processes(values)
        interrupted = means.pop('interrupted') > 0
        self.log_dict = means
        skipped = any(result.skipped for result in results)
        self.skip_monitor.record(current_iter, skipped, self._suspects(results) if skipped else [])
        content = [value for name, value in means.items() if name in self.content_names]
        for scheduler in self.schedulers:
            if content and isinstance(scheduler, PlateauLR):  # there is none while D is trained alone
                scheduler.record(sum(content))
        if interrupted:
            self.stop()

    #: The losses that ``PlateauLR`` goes by.
    content_names = ('l_pix', 'l_percep', 'l_style')

    def _mean_over_processes(self, values: dict[str, Tensor]) -> dict[str, float]:
        """The means, the same on every process; BasicSR tells them the first alone."""
        stacked = torch.stack([value.detach().to(self.device, torch.float32) for value in values.values()])
        if self.opt['dist']:
            dist.all_reduce(stacked)
            stacked /= self.opt['world_size']
        return dict(zip(values, stacked.tolist(), strict=True))

    def _suspects(self, results: list[StepResult]) -> list[str]:
        """The samples of the processes whose loss was not finite; of all, if it was only a gradient."""
        own = self.keys, all(result.loss_is_finite for result in results)
        everyone: list[Any] = [own]
        if self.opt['dist']:
            everyone = [None] * self.opt['world_size']
            dist.all_gather_object(everyone, own)
        guilty = [keys for keys, finite in everyone if not finite] or [keys for keys, _ in everyone]
        return [key for keys in guilty for key in keys]

    # ------------------------------------------------------------------ checkpoints

    def save(self, epoch: int, current_iter: int) -> None:
        """Saves networks and training state, as BasicSR's trainer asks: iteration -1 is the end of training.

        A save that fails is reported and tried again at the next occasion.

        Raises:
            DBLRError: If it was the last occasion.
        """
        final = current_iter == -1
        self._save(self.iteration if final else current_iter, final)
        self.data_monitor.pause()

    @master_only
    def _save(self, iteration: int, final: bool) -> None:
        if iteration == self.saved:
            return
        try:
            self.checkpoints.save(iteration, self._networks(), self._training_state(iteration))
            self.saved = iteration
        except (DBLRError, OSError, RuntimeError) as error:
            message = f'the checkpoint of iteration {iteration} could not be saved ({error})'
            if final:
                raise DBLRError(message) from error
            # training is worth more than one checkpoint
            get_root_logger().error(f'{message}. It is tried again at the next occasion.')

    def _networks(self) -> dict[str, dict]:
        """What the networks' files hold."""
        weights = {'params': self.net_g}
        if hasattr(self, 'net_g_ema'):
            weights['params_ema'] = self.net_g_ema
        # with the network's options, whoever has the file needs no option file to use it
        about = {'network': self.opt['network_g'], 'format_version': FORMAT_VERSION}
        pad_multiple = (self.opt.get('val') or {}).get('pad_multiple', 1)
        if pad_multiple > 1:
            about['pad_multiple'] = pad_multiple
        return {'net_g': {key: self._weights(net) for key, net in weights.items()} | about}

    def _weights(self, net: nn.Module) -> dict[str, Tensor]:
        return {k: v.cpu().contiguous() for k, v in self.get_bare_model(net).state_dict().items()}

    def _training_state(self, iteration: int) -> dict:
        return {
            'epoch': iteration // self.opt['iters_per_epoch'],
            'iter': iteration,
            'optimizers': [o.state_dict() for o in self.optimizers],
            'optimizer_types': [type(o).__name__ for o in self.optimizers],
            'schedulers': [s.state_dict() for s in self.schedulers],
            'scalers': [step.scaler.state_dict() for step in self.steps],
            'best_metric_results': self.record.best,
        }

    def resume_training(self, resume_state: dict) -> None:
        """Takes up optimisers, schedulers, loss scales, the best figures, and a validation that was cut short."""
        try:
            refuse_other_optimizers(self.optimizers, resume_state)
            refuse_damage(self.optimizers, self.schedulers, resume_state)
            self._tell_what_the_state_overrules(resume_state)
            super().resume_training(resume_state)
            for step, scaler in zip(self.steps, resume_state.get('scalers', []), strict=False):
                step.scaler.load_state_dict(scaler)
        except (AssertionError, AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise DBLRError(
                f'{self.opt["path"]["resume_state"]}: not a state of this training ({error}); its networks, optimisers '
                'and schedulers must be those of the option file'
            ) from error
        self.iteration = resume_state['iter']
        # a state that was moved here, or named from elsewhere, is none of this run's checkpoints yet
        self.saved = self.iteration if self.checkpoints.is_there(self.iteration, self._networks()) else None
        self.record.resume(resume_state.get('best_metric_results', {}), self.iteration)
        # BasicSR reads the epoch after this; with another batch size or number of processes epochs have another length
        resume_state['epoch'] = self.iteration // self.opt['iters_per_epoch']
        self._tidy_checkpoints()
        self._validate_what_was_missed()

    def _tell_what_the_state_overrules(self, state: dict) -> None:
        """Warns of settings that resuming takes from the state, and of an end that is reached already."""
        path, network = self.opt['path'].get('resume_state'), self.opt['path'].get('pretrain_network_g')
        differences = '; '.join(dict.fromkeys(overruled(self.optimizers, self.schedulers, state)))
        if differences:
            get_root_logger().warning(
                f'Resuming from {path}: {differences}. The state wins. To train with those of the option file, start '
                f'anew from its weights: another name, path.pretrain_network_g: {network}, neither --auto_resume nor '
                'path.resume_state.'
            )
        total = int(self.opt['train']['total_iter'])
        if total <= state['iter']:
            get_root_logger().warning(
                f'{path} is of iteration {state["iter"]} and train.total_iter is {total}: nothing is left to train. '
                'To go on, raise train.total_iter; to go back, name an earlier state (path.resume_state).'
            )

    @master_only
    def _tidy_checkpoints(self) -> None:
        """After a kill inside a save."""
        self.checkpoints.remove_remains()
        if self.saved is not None:
            self.checkpoints.make_latest(self.iteration, self._networks())

    def stop(self) -> None:
        """Saves and ends the program, as a signal asked for; its exit code is the shell's for that signal."""
        if self.iteration:
            self.save(-1, -1)
            get_root_logger().info(f'Stopped and saved at iteration {self.iteration}; --auto_resume goes on there.')
        if self.opt['dist']:
            dist.barrier()  # torchrun kills the others when one has ended, and the first may still be saving
            dist.destroy_process_group()
        raise SystemExit(128 + (interrupts.received() or 15))

    # ------------------------------------------------------------------ validation

    def nondist_validation(
        self, dataloader: DataLoader, current_iter: int | str, tb_logger: Any, save_img: bool
    ) -> None:
        """Restores and scores a data set, logs the figures and appends them to ``metrics.json``.

        BasicSR validates once more when training ends, with a counter that has run past the last iteration: the
        figures belong to ``total_iter``, and are not made again if they were made there.
        """
        if not self.is_train:
            super().nondist_validation(dataloader, current_iter, tb_logger, save_img)
            return
        dataset = cast(VideoDeblurTestDataset, dataloader.dataset)
        current_iter = min(int(current_iter), int(self.opt['train']['total_iter']))
        if self.validated.get(dataset.opt['name']) == current_iter:
            return
        self.validated[dataset.opt['name']] = current_iter
        try:
            self.score(
                dataset,
                current_iter,
                tb_logger,
                save_img,
                callbacks=[self.strips.begin(dataset)],
                interrupted=lambda: interrupts.received() is not None,
                finish=lambda: self.strips.finish(current_iter, tb_logger),
            )
        except Interrupted:
            self.stop()
        self.data_monitor.pause()
        self.train_mode()

    dist_validation = nondist_validation

    def _validate_what_was_missed(self) -> None:
        """Makes the figures of the iteration resumed from, if they were due and the run ended before they were done."""
        val_freq = (self.opt.get('val') or {}).get('val_freq')
        if not val_freq or self.iteration % val_freq:
            return
        for phase, options in self.opt['datasets'].items():
            if phase.startswith('val') and self._is_missing(options['name']):
                loader = DataLoader(build_dataset(options))
                self.nondist_validation(loader, self.iteration, None, self.opt['val'].get('save_img', False))

    def _is_missing(self, name: str) -> bool:
        """Whether a data set has no figures of this iteration; the first process knows."""
        missing = [not self.record.has(name, self.iteration)]
        if self.opt['dist']:
            dist.broadcast_object_list(missing, 0)
        return missing[0]
