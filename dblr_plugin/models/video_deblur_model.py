"""Training and testing of any video restoration network with a pixel loss."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from basicsr.models.sr_model import SRModel
from basicsr.utils import get_root_logger, imwrite
from basicsr.utils.dist_util import master_only
from basicsr.utils.registry import ARCH_REGISTRY, MODEL_REGISTRY
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from dblr_plugin.errors import DBLRError
from dblr_plugin.metrics import write_json
from dblr_plugin.models.checkpoint import load_weights, save_atomically
from dblr_plugin.models.restorer import FrameRestorer, to_network_colour
from dblr_plugin.models.validation import protocols_of, score_dataset

__all__ = ['VideoDeblurModel', 'network_argument']


@MODEL_REGISTRY.register()
class VideoDeblurModel(SRModel):
    """Restores the middle frame of RGB windows; works for DBLRNet, DBN, EDVR and their like.

    A network with ``num_in_ch: 1`` is trained on Y and keeps the blurry frame's colour, one with 3 on RGB.

    Beyond BasicSR's ``SRModel``: any device; checkpoints that are atomic and refuse another network's weights; EMA
    with BatchNorm's statistics; ``train.freeze_bn`` (BatchNorm uses its running statistics and leaves them alone, for
    fine-tuning with small batches); validation on any number of sets, shared by all processes.
    """

    def __init__(self, opt: dict) -> None:
        self.num_in_ch = network_argument(opt['network_g'], 'num_in_ch', 3)
        self.validated: dict[str, int] = {}  # data set -> iteration of its newest figures
        super().__init__(opt)
        # BasicSR's trainer warns of what this class does support
        get_root_logger().addFilter(lambda record: 'Multiple validation datasets' not in str(record.msg))

    # ------------------------------------------------------------------ networks

    def model_to_device(self, net: nn.Module) -> nn.Module:
        """Moves a network to this process's device and wraps it for distributed training."""
        if not self.opt['dist']:
            return super().model_to_device(net)
        net = net.to(self.device)
        if not any(p.requires_grad for p in net.parameters()):
            return net
        device_ids = [torch.cuda.current_device()] if self.device.type == 'cuda' else None
        find_unused = self.opt.get('find_unused_parameters', False)
        return DistributedDataParallel(net, device_ids=device_ids, find_unused_parameters=find_unused)

    def init_training_settings(self) -> None:
        """Builds EMA, losses, optimisers and schedulers."""
        super().init_training_settings()
        self.train_mode()

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

    def model_ema(self, decay: float = 0.999) -> None:
        """Moves the averaged network towards the trained one; buffers (BatchNorm's statistics) are copied."""
        net = self.get_bare_model(self.net_g)
        with torch.no_grad():
            for averaged, current in zip(self.net_g_ema.parameters(), net.parameters(), strict=True):
                averaged.lerp_(current, 1 - decay)
            for averaged, current in zip(self.net_g_ema.buffers(), net.buffers(), strict=True):
                averaged.copy_(current)

    # ------------------------------------------------------------------ training

    def feed_data(self, data: dict) -> None:
        """Takes a batch: ``lq`` (b, t, 3, h, w) and ``gt`` (b, 3, h, w), RGB in [0, 1]."""
        self.lq = to_network_colour(data['lq'].to(self.device, non_blocking=True), self.num_in_ch)
        if 'gt' in data:
            self.gt = to_network_colour(data['gt'].to(self.device, non_blocking=True), self.num_in_ch)

    # ------------------------------------------------------------------ checkpoints

    def load_network(
        self, net: nn.Module, load_path: str, strict: bool = True, param_key: str | None = 'params'
    ) -> None:
        """Loads weights, whatever wrote them; raises DBLRError where they belong to another network."""
        net = self.get_bare_model(net)
        load_weights(net, load_path, strict, param_key)
        get_root_logger().info(f'Loaded {type(net).__name__} from {load_path}.')

    @master_only
    def save_network(
        self,
        net: nn.Module | list[nn.Module],
        net_label: str,
        current_iter: int,
        param_key: str | list[str] = 'params',
    ) -> None:
        """Saves ``<net_label>_<iter>.pth`` (``latest`` for iteration -1) atomically."""
        nets = net if isinstance(net, list) else [net]
        keys = param_key if isinstance(param_key, list) else [param_key]
        content = {
            key: {k: v.cpu() for k, v in self.get_bare_model(n).state_dict().items()}
            for key, n in zip(keys, nets, strict=True)
        }
        name = f'{net_label}_{"latest" if current_iter == -1 else current_iter}.pth'
        self._save(content, Path(self.opt['path']['models']) / name, final=current_iter == -1)

    @master_only
    def save_training_state(self, epoch: int, current_iter: int) -> None:
        """Saves ``<iter>.state``, atomically and after the networks: where it exists, they are complete."""
        if current_iter == -1:
            return
        state = {
            'epoch': epoch,
            'iter': current_iter,
            'optimizers': [o.state_dict() for o in self.optimizers],
            'schedulers': [s.state_dict() for s in self.schedulers],
            'best_metric_results': getattr(self, 'best_metric_results', {}),
        }
        self._save(state, Path(self.opt['path']['training_states']) / f'{current_iter}.state', final=False)

    def resume_training(self, resume_state: dict) -> None:
        """Takes up optimisers, schedulers and the record of the best figures."""
        super().resume_training(resume_state)
        self.best_metric_results = resume_state.get('best_metric_results', {})
        # BasicSR reads the epoch after this; with another batch size or number of processes epochs have another length
        resume_state['epoch'] = resume_state['iter'] // self.opt['iters_per_epoch']

    def _save(self, content: dict, path: Path, final: bool) -> None:
        try:
            save_atomically(content, path)
        except (OSError, RuntimeError) as error:
            message = f'{path} could not be saved ({error}); free disk space or mend the permissions'
            if final:
                raise DBLRError(message) from error
            # training is worth more than one checkpoint: the next occasion saves again
            get_root_logger().error(message)

    # ------------------------------------------------------------------ validation

    def restorer(self) -> FrameRestorer:
        """The current network (EMA's where there is one) as a restorer of RGB windows, in evaluation mode."""
        net = self.get_bare_model(getattr(self, 'net_g_ema', self.net_g)).eval()
        self._share_buffers(net)
        return FrameRestorer(net, self.num_in_ch, self.opt['val'].get('pad_multiple', 1))

    def _share_buffers(self, net: nn.Module) -> None:
        """Gives all processes the first one's BatchNorm statistics, so that figures do not depend on who measured."""
        if self.opt['dist']:
            for buffer in net.buffers():
                dist.broadcast(buffer, 0)

    def nondist_validation(self, dataloader: DataLoader, current_iter: int | str, tb_logger, save_img: bool) -> None:
        """Restores and scores a data set, logs the figures and appends them to ``metrics.json``.

        BasicSR validates once more when training ends, with a counter that has run past the last iteration: the
        figures belong to ``total_iter``, and are not made again if they were made there.
        """
        dataset = dataloader.dataset
        if self.is_train:
            current_iter = min(current_iter, int(self.opt['train']['total_iter']))
            if self.validated.get(dataset.opt['name']) == current_iter:
                return
            self.validated[dataset.opt['name']] = current_iter
        restore = self.restorer()
        figures = score_dataset(
            dataset,
            lambda window: restore(window.to(self.device)),
            protocols_of(self.opt['val']),
            keep_image=(lambda sample, image: self._save_image(dataset, sample, image, current_iter))
            if save_img
            else None,
            progress=self.opt['val'].get('pbar', True),
        )
        if self.is_train:
            self.train_mode()
        if figures:
            self._report(dataset.opt['name'], figures, current_iter, tb_logger)

    dist_validation = nondist_validation

    def _save_image(self, dataset, sample: dict, image: np.ndarray, current_iter: int | str) -> None:
        frame = Path(sample['lq_path']).stem
        suffix = current_iter if self.is_train else self.opt['val'].get('suffix') or self.opt['name']
        folder = Path(self.opt['path']['visualization']) / dataset.opt['name'] / sample['folder']
        imwrite(image, str(folder / f'{frame}_{suffix}.png'))

    def _report(self, name: str, figures: list[dict], current_iter: int | str, tb_logger) -> None:
        # the first protocol's metrics are called as those of val.metrics are, so that runs can be compared
        labels = [f'{entry["protocol"]}/' if number else '' for number, entry in enumerate(figures)]
        labelled = list(zip(labels, figures, strict=True))
        self.metric_results = {
            label + metric: value for label, entry in labelled for metric, value in entry['mean'].items()
        }
        self._initialize_best_metric_results(name)
        for metric, value in self.metric_results.items():
            self._update_best_metric_result(name, metric, value, current_iter)
        for label, entry in labelled:
            self._log_figures(name, label, entry, current_iter, tb_logger)
        self._append_metrics([{'dataset': name, 'iter': current_iter, **entry} for entry in figures])

    def _initialize_best_metric_results(self, dataset_name: str) -> None:
        """Starts the record of the best figures; BasicSR's knows only the metrics of ``val.metrics``."""
        if not hasattr(self, 'best_metric_results'):
            self.best_metric_results = {}
        record = self.best_metric_results.setdefault(dataset_name, {})
        for metric in self.metric_results:
            better = (self.opt['val'].get('metrics') or {}).get(metric, {}).get('better', 'higher')
            worst = float('-inf' if better == 'higher' else 'inf')
            record.setdefault(metric, {'better': better, 'val': worst, 'iter': -1})

    @master_only
    def _log_figures(self, name: str, label: str, entry: dict, current_iter: int | str, tb_logger) -> None:
        lines = [f'Validation {name} (protocol {entry["protocol"]})']
        for metric, value in entry['mean'].items():
            best = self.best_metric_results[name][label + metric]
            lines.append(f'\t # {metric}: {value:.4f}\tBest: {best["val"]:.4f} @ {best["iter"]} iter')
            clip_mean, frame_mean = entry['clip_mean'][metric], entry['frame_mean'][metric]
            lines.append(f'\t    clip mean {clip_mean:.4f}, frame mean {frame_mean:.4f}')
            lines += [f'\t    {clip}: {means[metric]:.4f}' for clip, means in entry['clips'].items()]
            if tb_logger:
                tag = f'metrics/{name}/{label}{metric}'
                tb_logger.add_scalar(tag, value, current_iter)
                for clip, means in entry['clips'].items():
                    tb_logger.add_scalar(f'{tag}/{clip}', means[metric], current_iter)
        get_root_logger().info('\n'.join(lines))

    @master_only
    def _append_metrics(self, entries: list[dict]) -> None:
        path = Path(self.opt['path']['log']) / 'metrics.json'
        earlier = json.loads(path.read_text()) if path.exists() else []
        # a resumed run validates again at iterations that it had passed before it was stopped
        again = {(entry['dataset'], entry['iter']) for entry in entries}
        write_json(path, [*(e for e in earlier if (e['dataset'], e['iter']) not in again), *entries])


def network_argument(network: dict, name: str, missing: object) -> object:
    """An argument of a network's class: as its options give it, else the class's default.

    Args:
        network: ``network_g`` or ``network_d`` of the options.
        name: The argument, such as ``num_in_ch``.
        missing: Returned for a class that has no such argument.
    """
    if name in network:
        return network[name]
    argument = inspect.signature(ARCH_REGISTRY.get(network['type'])).parameters.get(name)
    return missing if argument is None else argument.default
