"""Measures a method: restores its frames once, as ``dblr test`` does, and scores them."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from basicsr.archs import build_network
from basicsr.data import build_dataset
from basicsr.models import build_model
from basicsr.utils import get_root_logger

from dblr_plugin.archs.traits import NetworkTraits, pad_multiple, round_up
from dblr_plugin.benchmark.complexity import multiply_adds
from dblr_plugin.benchmark.crops import window_errors
from dblr_plugin.benchmark.methods import Method
from dblr_plugin.benchmark.record import MethodFolder
from dblr_plugin.data.flow import MIN_SIDE
from dblr_plugin.errors import DBLRError
from dblr_plugin.evaluation.consistency import flow_and_visible, warped_difference
from dblr_plugin.evaluation.perceptual import lpips
from dblr_plugin.evaluation.protocols import Protocol
from dblr_plugin.evaluation.validation import RestoredFrame, score_dataset, write_picture
from dblr_plugin.files import atomic_write
from dblr_plugin.models.video_test_model import VideoTestModel
from dblr_plugin.restore.video_restorer import VideoRestorer
from dblr_plugin.yaml_file import import_files, read_option_file

__all__ = ['build_restorer', 'count_operations', 'measure_quality']

# measured by every benchmark in addition to the metrics of its protocols
_OWN = ('lpips', 'warping_error', 'warping_error_truth')


def measure_quality(method: Method, protocols: list[Protocol], backbone: Path | None) -> dict:
    """Restores and scores the data set; writes the frames and the window errors for choosing crops.

    Args:
        method: The method, with its weights in place.
        protocols: Protocols to score by; crops are chosen from the frames scored by the first.
        backbone: AlexNet weights for LPIPS; None to skip it.

    Returns:
        ``figures``, entries of :func:`~dblr_plugin.evaluation.scores.summarise`; ``clips``, clip -> ``frames`` (indices
        of those scored by the first protocol), ``names`` (of all frames), ``size`` (h, w), ``lpips``, ``warping_error``
        and ``warping_error_truth`` (None if not measured); ``mean``, the means of the last three over the clips.
    """
    torch.backends.cudnn.benchmark = True  # as in BasicSR's test: figures must be the same
    dataset = build_dataset(method.test_set)
    folder, model = method.folder, _build_model(method.test, method.folder.root)
    observer = _Observer(folder, protocols[0], backbone)
    shutil.rmtree(folder.frames, ignore_errors=True)
    figures = score_dataset(dataset, model.restorer(), protocols, [observer])
    with atomic_write(folder.window_errors) as partial, open(partial, 'wb') as file:
        errors: dict[str, Any] = {clip: np.stack(seen.errors) for clip, seen in observer.clips.items()}
        np.savez_compressed(file, **errors)
    clips = {name: clip.figures() for name, clip in observer.clips.items()}
    return {'figures': figures, 'clips': clips, 'mean': _means(clips)}


def count_operations(method: Method, size: tuple[int, int]) -> dict:
    """Returns ``parameters`` and ``macs`` of the network for a frame of this width and height.

    If operations cannot be counted, ``macs`` is None and ``uncounted`` gives the reason.
    """
    network = method.test['network_g']
    with _quiet():
        net = build_network(network).to('cuda' if torch.cuda.is_available() else 'cpu')
    multiple = pad_multiple(network['type'], method.test['val'].get('pad_multiple', 1))
    height, width = (round_up(side, multiple) for side in size[::-1])
    traits = NetworkTraits.of(network)
    parameters = sum(parameter.numel() for parameter in net.parameters())
    try:
        operators = multiply_adds(net, (1, traits.num_frame, traits.channels, height, width))
    except DBLRError as error:
        return {'parameters': parameters, 'macs': None, 'uncounted': str(error)}
    return {'parameters': parameters, 'macs': sum(operators.values())}


def build_restorer(option_file: str) -> VideoRestorer:
    """Builds the network of a test's option file as in ``dblr deblur --backend torch --precision fp32``.

    Its weights are random, which does not affect timing.
    """
    options = read_option_file(option_file).plain()
    import_files(options.get('imports') or ())
    settings = {'backend': 'torch', 'precision': 'fp32', 'size_multiple': options['val'].get('pad_multiple', 1)}
    with _quiet():
        net = build_network(options['network_g'])
    return VideoRestorer(net, options['network_g'], **settings)


def _build_model(options: dict, folder: Path) -> VideoTestModel:
    """Builds the model that BasicSR's test would build from these options."""
    state = {'is_train': False, 'dist': False, 'rank': 0, 'world_size': 1, 'num_gpu': torch.cuda.device_count()}
    with _quiet():
        return build_model({**options, **state, 'path': {**options['path'], 'log': str(folder)}})


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences BasicSR's logger, which prints whole networks."""
    logger = get_root_logger()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


class _Clip:
    """Measurements of one clip's frames."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.indices: list[int] = []
        self.errors: list[np.ndarray] = []
        self.size = (0, 0)
        self.scores: dict[str, list[float]] = {name: [] for name in _OWN}

    def figures(self) -> dict:
        means = {name: fmean(scores) if scores else None for name, scores in self.scores.items()}
        return {'size': self.size, 'names': self.names, 'frames': self.indices, **means}


class _Observer:
    """Receives restored frames in order, writes them, and measures what validation does not."""

    def __init__(self, folder: MethodFolder, protocol: Protocol, backbone: Path | None) -> None:
        self.folder, self.protocol, self.backbone = folder, protocol, backbone
        self.clips: dict[str, _Clip] = {}
        self.before: RestoredFrame | None = None

    def __call__(self, frame: RestoredFrame) -> None:
        restored, truth = frame.picture, frame.truth
        assert truth is not None  # settle_methods rejects data sets without ground truth
        clip = self.clips.setdefault(frame.clip, _Clip())
        clip.names.append(frame.name)
        clip.size = truth.shape[:2]
        write_picture(self.folder.frame(frame.clip, frame.name), restored)
        is_large = min(truth.shape[:2]) >= MIN_SIDE  # enough for optical flow and AlexNet
        if is_large and self.before is not None and self.before.clip == frame.clip:
            _add_warping_errors(clip, self.before, frame)
        self.before = frame
        if frame.index in self.protocol.frames(frame.count):
            clip.indices.append(frame.index)
            clip.errors.append(window_errors(restored, truth))
            if self.backbone is not None and is_large:
                clip.scores['lpips'].append(lpips(restored, truth, backbone=str(self.backbone)))


def _add_warping_errors(clip: _Clip, before: RestoredFrame, frame: RestoredFrame) -> None:
    """Adds the warping errors of the restored frame and of the ground truth, from the same optical flow."""
    assert before.truth is not None and frame.truth is not None
    flow, visible = flow_and_visible(before.truth, frame.truth)
    if visible.any():  # false after a cut
        own = warped_difference(before.picture, frame.picture, flow, visible)
        clip.scores['warping_error'].append(own)
        clip.scores['warping_error_truth'].append(warped_difference(before.truth, frame.truth, flow, visible))


def _means(clips: dict[str, dict]) -> dict[str, float | None]:
    """Means over the clips that have a figure."""
    found = {name: [clip[name] for clip in clips.values() if clip[name] is not None] for name in _OWN}
    return {name: fmean(values) if values else None for name, values in found.items()}
