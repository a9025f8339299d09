"""Testing of any video restoration network."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from basicsr.models.sr_model import SRModel
from basicsr.utils import get_root_logger
from torch import nn
from torch.utils.data import DataLoader

from dblr_plugin.archs.traits import NetworkTraits
from dblr_plugin.data.video_deblur_test_dataset import VideoDeblurTestDataset
from dblr_plugin.errors import DBLRError
from dblr_plugin.evaluation.scores import ValidationRecord
from dblr_plugin.evaluation.validation import RestoredFrame, protocols_of, score_dataset, share_buffers, write_picture
from dblr_plugin.restore.backends import choose
from dblr_plugin.restore.video_restorer import VideoRestorer
from dblr_plugin.weights.checkpoint import fill, named_weights, read_checkpoint, tell_other_network

__all__ = ['VideoTestModel']


class VideoTestModel(SRModel):
    """Restores and scores data sets on any device, with the work split between all processes.

    A test takes a checkpoint's EMA weights, if it has any, as validation does; ``path.param_key_g`` changes that.

    Options under ``val`` that BasicSR's ``SRModel`` lacks:
        protocol: Names of :mod:`dblr_plugin.evaluation.protocols`, in place of ``metrics``.
        pad_multiple: Frames are padded to a multiple of this, for networks that need it.
        backend: ``torch`` (the default), ``compile``, ``openvino``, ``mnn`` or ``auto``, the fastest.
        precision: ``fp32`` (the default), ``bf16``, ``fp16``, ``int8`` or ``auto``, the fastest. Lower precisions
            change scores slightly; int8 is calibrated on windows from the whole set.
        self_ensemble: Whether the results of four flips are averaged, as by EDVR's authors; false by default.
    """

    def __init__(self, opt: dict) -> None:
        self.traits = NetworkTraits.of(opt['network_g'])
        metrics = (opt.get('val') or {}).get('metrics')
        # failing to record scores ends a test, which exists for them, but not a training
        self.record = ValidationRecord(Path(opt['path']['log']) / 'metrics.json', metrics, lenient=opt['is_train'])
        # data set -> protocol -> scores of its blurry frames, which never change
        self._inputs: dict[str, dict[str, dict | None]] = {}
        opt = copy.deepcopy(opt)  # BasicSR's models remove keys from their options
        if not opt['is_train']:  # validation scores the EMA weights; BasicSR's test would take those under params
            opt['path'].setdefault('param_key_g', 'params_ema')
        super().__init__(opt)
        if not opt['is_train'] and not opt['path'].get('pretrain_network_g') and [*self.net_g.parameters()]:
            name = type(self.net_g).__name__
            get_root_logger().warning('path.pretrain_network_g is empty: %s is tested with its initial weights.', name)
        val = self.opt.get('val') or {}
        self.runs_as = {'backend': val.get('backend', 'torch'), 'precision': val.get('precision', 'fp32')}
        try:
            choose(self.device, **self.runs_as)
        except DBLRError as error:
            raise DBLRError(f'val: {error}') from error

    def load_network(
        self, net: nn.Module, load_path: str, strict: bool = True, param_key: str | None = 'params'
    ) -> None:
        """Loads weights of any origin; raises DBLRError if they belong to another network."""
        net = self.get_bare_model(net)
        content = read_checkpoint(load_path)
        fill(net, named_weights(content, load_path, param_key), load_path, strict)
        if strict and net is self.get_bare_model(self.net_g):
            tell_other_network(content, self.opt['network_g'], load_path)
        key = f' ({param_key})' if param_key in content else ''
        get_root_logger().info(f'Loaded {type(net).__name__} from {load_path}{key}.')

    def restorer(self, frames: int = 1) -> VideoRestorer:
        """Returns a restorer for the current network (the EMA network if there is one), in evaluation mode.

        Args:
            frames: Approximate number of frames to restore.
        """
        net = self.get_bare_model(getattr(self, 'net_g_ema', self.net_g))
        share_buffers(net)
        multiple = self.opt['val'].get('pad_multiple', 1)
        averages = self.opt['val'].get('self_ensemble', False)
        settings = {'size_multiple': multiple, 'frames': frames, 'self_ensemble': averages, **self.runs_as}
        return VideoRestorer(net, self.opt['network_g'], self.device, **settings)

    def nondist_validation(
        self, dataloader: DataLoader, current_iter: int | str, tb_logger: Any, save_img: bool
    ) -> None:
        """Restores and scores a data set, logs the scores and appends them to ``metrics.json``."""
        dataset = cast(VideoDeblurTestDataset, dataloader.dataset)
        self.score(dataset, current_iter, tb_logger, save_img)

    dist_validation = nondist_validation

    def score(
        self,
        dataset: VideoDeblurTestDataset,
        current_iter: int | str,
        tb_logger: Any,
        save_img: bool,
        callbacks: Sequence[Callable[[RestoredFrame], None]] = (),
        interrupted: Callable[[], bool] = lambda: False,
        finish: Callable[[], None] = lambda: None,
    ) -> None:
        """Restores and scores a data set, and records the scores.

        Args:
            dataset, callbacks, interrupted: See :func:`score_dataset`.
            current_iter: The iteration that the scores belong to, or the name of the test.
            tb_logger: TensorBoard's writer; None without TensorBoard.
            save_img: Whether restored frames are written.
            finish: Called after all frames are restored, before the scores are recorded: once scores are recorded,
                resuming after a kill does not validate again.

        Raises:
            Interrupted: If ``interrupted`` returned True.
        """
        self._pictures_failed = False
        savers = [lambda frame: self._save_image(dataset, frame, current_iter)] if save_img else []
        name, protocols = dataset.opt['name'], protocols_of(self.opt['val'])
        figures = score_dataset(
            dataset,
            self.restorer(len(dataset)),
            protocols,
            [*savers, *callbacks],
            self.opt['val'].get('pbar', True),
            interrupted,
            score_input=name not in self._inputs,
        )
        finish()
        if figures:
            inputs = self._inputs.setdefault(name, {entry['protocol']: entry.get('input') for entry in figures})
            figures = [{**entry, 'input': inputs.get(entry['protocol'])} for entry in figures]
            self.record.add(name, figures, current_iter, tb_logger)

    def _save_image(self, dataset: VideoDeblurTestDataset, frame: RestoredFrame, current_iter: int | str) -> None:
        if self._pictures_failed:
            return
        suffix = current_iter if self.is_train else self.opt['val'].get('suffix') or self.opt['name']
        folder = Path(self.opt['path']['visualization']) / dataset.opt['name'] / frame.clip
        try:
            write_picture(folder / f'{frame.name}_{suffix}.png', frame.picture)
        except DBLRError as error:
            if not self.is_train:
                raise
            self._pictures_failed = True
            get_root_logger().error(f"{error}. Training continues without this validation's images.")

    @property
    def best_metric_results(self) -> dict[str, dict[str, dict]]:
        """Data set -> metric -> best score so far and its iteration, under BasicSR's name."""
        return self.record.best
