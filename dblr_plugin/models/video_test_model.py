"""Testing of any video restoration network."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch.distributed as dist
from basicsr.models.sr_model import SRModel
from basicsr.utils import get_root_logger
from torch import nn
from torch.utils.data import DataLoader, Dataset

from dblr_plugin.archs.traits import NetworkTraits
from dblr_plugin.errors import DBLRError
from dblr_plugin.evaluation.pictures import write_picture
from dblr_plugin.evaluation.validation import protocols_of, score_dataset
from dblr_plugin.evaluation.validation_record import ValidationRecord
from dblr_plugin.restore.backends import choose
from dblr_plugin.restore.frame_restorer import FrameRestorer, build_restorer
from dblr_plugin.weights import load_weights

__all__ = ['VideoTestModel']


class VideoTestModel(SRModel):
    """Restores and scores data sets, on any device, the work shared by all processes.

    Beyond BasicSR's ``SRModel``, under ``val``:
        protocol: Names of :mod:`dblr_plugin.evaluation.protocols`, in place of ``metrics``.
        pad_multiple: What frames are padded to a multiple of, for networks that need it.
        backend: ``torch`` (the default), ``compile``, ``openvino`` or ``auto``, the quickest.
        precision: ``fp32`` (the default), ``bf16``, ``fp16`` or ``auto``, the quickest. The shorter ones change
            figures a little.
    """

    def __init__(self, opt: dict) -> None:
        self.traits = NetworkTraits.of(opt['network_g'])
        metrics = (opt.get('val') or {}).get('metrics')
        # a test is for its figures; a training is worth more than they are
        self.record = ValidationRecord(Path(opt['path']['log']) / 'metrics.json', metrics, lenient=opt['is_train'])
        self._inputs: dict[str, list[dict]] = {}  # data set -> figures of its blurry frames, which stay the same
        super().__init__(copy.deepcopy(opt))  # BasicSR's models take keys out of what they are given
        val = self.opt.get('val') or {}
        self.runs_as = {'backend': val.get('backend', 'torch'), 'precision': val.get('precision', 'fp32')}
        try:
            choose(self.device, **self.runs_as)
        except DBLRError as error:
            raise DBLRError(f'val: {error}') from error

    def load_network(
        self, net: nn.Module, load_path: str, strict: bool = True, param_key: str | None = 'params'
    ) -> None:
        """Loads weights, whatever wrote them; raises DBLRError where they belong to another network."""
        net = self.get_bare_model(net)
        load_weights(net, load_path, strict, param_key)
        get_root_logger().info(f'Loaded {type(net).__name__} from {load_path}.')

    def restorer(self, frames: int = 1) -> FrameRestorer:
        """The current network (EMA's where there is one) as a restorer of RGB windows, in evaluation mode.

        Args:
            frames: How many it is to restore, roughly.
        """
        net = self.get_bare_model(getattr(self, 'net_g_ema', self.net_g))
        self._share_buffers(net)
        multiple = self.opt['val'].get('pad_multiple', 1)
        return build_restorer(
            net, self.opt['network_g'], self.device, size_multiple=multiple, frames=frames, **self.runs_as
        )

    def _share_buffers(self, net: nn.Module) -> None:
        """Gives all processes the first one's BatchNorm statistics, so that figures do not depend on who measured."""
        if self.opt['dist']:
            for buffer in net.buffers():
                dist.broadcast(buffer, 0)

    def nondist_validation(self, dataloader: DataLoader, current_iter: int | str, tb_logger, save_img: bool) -> None:
        """Restores and scores a data set, logs the figures and appends them to ``metrics.json``."""
        self.score(dataloader.dataset, current_iter, tb_logger, save_img)

    dist_validation = nondist_validation

    def score(
        self,
        dataset: Dataset,
        current_iter: int | str,
        tb_logger,
        save_img: bool,
        callbacks: Sequence[Callable[[dict, np.ndarray], None]] = (),
        interrupted: Callable[[], bool] = lambda: False,
    ) -> None:
        """Restores and scores a data set, and records the figures.

        Args:
            dataset: As for :func:`score_dataset`, and so are ``keepers`` and ``interrupted``.
            current_iter: Whose figures they are.
            tb_logger: TensorBoard's writer, if there is one.
            save_img: Whether restored frames are written.

        Raises:
            Interrupted: If ``interrupted`` said so.
        """
        restore = self.restorer(len(dataset))
        self._pictures_failed = False
        savers = [lambda sample, image: self._save_image(dataset, sample, image, current_iter)] if save_img else []
        name, protocols = dataset.opt['name'], protocols_of(self.opt['val'])
        figures = score_dataset(
            dataset,
            lambda window: restore(window.to(self.device)),
            protocols,
            [*savers, *callbacks],
            self.opt['val'].get('pbar', True),
            interrupted,
            score_input=name not in self._inputs,
        )
        inputs = self._inputs.setdefault(name, [entry.get('input') for entry in figures])
        figures = [{**entry, 'input': blurry} for entry, blurry in zip(figures, inputs, strict=True)]
        if figures:
            self.record.add(name, figures, current_iter, tb_logger)

    def _save_image(self, dataset: Dataset, sample: dict, image: np.ndarray, current_iter: int | str) -> None:
        if self._pictures_failed:
            return
        frame = Path(sample['lq_path']).stem
        suffix = current_iter if self.is_train else self.opt['val'].get('suffix') or self.opt['name']
        folder = Path(self.opt['path']['visualization']) / dataset.opt['name'] / sample['folder']
        try:
            write_picture(folder / f'{frame}_{suffix}.png', image)
        except DBLRError as error:
            if not self.is_train:
                raise
            self._pictures_failed = True
            get_root_logger().error(f"{error}. Training goes on without this validation's pictures.")

    @property
    def best_metric_results(self) -> dict[str, dict[str, dict]]:
        """Data set, metric -> the best figure so far and its iteration; BasicSR's name for it."""
        return self.record.best
