"""Measures a method: restores its frames once, as ``dblr test`` does, and scores them."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
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

from dblr_plugin.archs.traits import NetworkTraits
from dblr_plugin.benchmark.crops import window_errors
from dblr_plugin.benchmark.methods import Method
from dblr_plugin.benchmark.record import MethodFolder
from dblr_plugin.errors import DBLRError
from dblr_plugin.evaluation import Protocol
from dblr_plugin.evaluation.pictures import write_picture
from dblr_plugin.evaluation.validation import RestoredFrame, score_dataset
from dblr_plugin.files import atomic_write
from dblr_plugin.measure.complexity import complexity
from dblr_plugin.measure.consistency import TemporalConsistency
from dblr_plugin.measure.perceptual import PerceptualDistance
from dblr_plugin.models.video_test_model import VideoTestModel
from dblr_plugin.prepare.in_between import MIN_SIDE
from dblr_plugin.restore.video_restorer import VideoRestorer
from dblr_plugin.yaml_file import import_files, read_option_file

__all__ = ['build_restorer', 'count_operations', 'measure_quality']


def measure_quality(
    method: Method, protocols: list[Protocol], lpips: PerceptualDistance | None, folder: MethodFolder
) -> dict:
    """Restores and scores the data set; writes the frames and what crops are chosen by.

    Args:
        method: With its weights in place.
        protocols: By which it is scored; the first one's frames are those that crops are chosen from.
        lpips: Where it can be measured.
        folder: The method's.

    Returns:
        ``figures``, entries of :func:`dblr_plugin.evaluation.summarise`; ``clips``, clip -> ``frames`` (indices of the
        first protocol's), ``names`` (of all), ``size`` (h, w), ``lpips``, ``warping_error`` and
        ``warping_error_truth`` (None where not measured); ``mean``, the means of the last three over the clips.
    """
    torch.backends.cudnn.benchmark = True  # as BasicSR's test has it: figures must be the same
    dataset = build_dataset(method.test_set)
    model = _build_model(method.test, folder.root)
    observer = _Observer(folder.frames, protocols[0], lpips)
    shutil.rmtree(folder.frames, ignore_errors=True)
    figures = score_dataset(dataset, model.restorer(), protocols, [observer])
    with atomic_write(folder.window_errors) as partial, open(partial, 'wb') as file:
        errors: dict[str, Any] = {clip: np.stack(seen.errors) for clip, seen in observer.clips.items()}
        np.savez_compressed(file, **errors)
    clips = {name: clip.figures() for name, clip in observer.clips.items()}
    return {'figures': figures, 'clips': clips, 'mean': _means(clips)}


def count_operations(method: Method, size: tuple[int, int]) -> dict:
    """``parameters`` and ``macs`` of the network for a frame of this width and height.

    Where operations cannot be counted, ``macs`` is None and ``uncounted`` says why.
    """
    network = method.test['network_g']
    with _quiet():
        net = build_network(network).to('cuda' if torch.cuda.is_available() else 'cpu')
    multiple = method.test['val'].get('pad_multiple', 1)
    height, width = (-(-side // multiple) * multiple for side in size[::-1])
    traits = NetworkTraits.of(network)
    counted = {'parameters': sum(parameter.numel() for parameter in net.parameters()), 'macs': None}
    try:
        return {**counted, 'macs': complexity(net, (1, traits.num_frame, traits.channels, height, width)).macs}
    except DBLRError as error:
        return {**counted, 'uncounted': str(error)}


def build_restorer(option_file: str) -> VideoRestorer:
    """The network of a test's option file as ``dblr deblur`` runs it with ``--backend torch --precision fp32``.

    Its weights are random, which changes no time.
    """
    options = read_option_file(option_file).plain()
    import_files(options.get('imports') or ())
    settings = {'backend': 'torch', 'precision': 'fp32', 'size_multiple': options['val'].get('pad_multiple', 1)}
    with _quiet():
        net = build_network(options['network_g'])
    return VideoRestorer(net, options['network_g'], **settings)


def _build_model(options: dict, folder: Path) -> VideoTestModel:
    """What BasicSR's test builds of these options."""
    state = {'is_train': False, 'dist': False, 'rank': 0, 'world_size': 1, 'num_gpu': torch.cuda.device_count()}
    with _quiet():
        return build_model({**options, **state, 'path': {**options['path'], 'log': str(folder)}})


@contextmanager
def _quiet() -> Iterator[None]:
    """BasicSR describes whole networks."""
    logger = get_root_logger()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


class _Clip:
    """What is seen of one clip's frames."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.indices: list[int] = []
        self.errors: list[np.ndarray] = []
        self.lpips: list[float] = []
        self.consistency = TemporalConsistency()
        self.size = (0, 0)

    def figures(self) -> dict:
        missing = {'warping_error': None, 'warping_error_truth': None}
        warping: Mapping[str, float | None] = self.consistency.figures() or missing
        own = {'size': self.size, 'names': self.names, 'frames': self.indices}
        return {**own, 'lpips': fmean(self.lpips) if self.lpips else None, **warping}


class _Observer:
    """Takes each restored frame, in order: writes it, and measures what validation does not."""

    def __init__(self, folder: Path, protocol: Protocol, lpips: Callable | None) -> None:
        self.folder, self.protocol, self.lpips = folder, protocol, lpips
        self.clips: dict[str, _Clip] = {}

    def __call__(self, frame: RestoredFrame) -> None:
        restored, truth = frame.picture, frame.truth
        assert truth is not None  # settle_methods refuses data sets without ground truth
        clip = self.clips.setdefault(frame.clip, _Clip())
        clip.names.append(frame.name)
        clip.size = truth.shape[:2]
        write_picture(self.folder / frame.clip / f'{frame.name}.png', restored)
        is_large = min(truth.shape[:2]) >= MIN_SIDE  # enough for optical flow and AlexNet
        if is_large:
            clip.consistency.add(restored, truth)
        if frame.index in self.protocol.frames(frame.count):
            clip.indices.append(frame.index)
            clip.errors.append(window_errors(restored, truth))
            if self.lpips is not None and is_large:
                clip.lpips.append(self.lpips(restored, truth))


def _means(clips: dict[str, dict]) -> dict[str, float | None]:
    """Over the clips that have a figure."""
    names = ('lpips', 'warping_error', 'warping_error_truth')
    found = {name: [clip[name] for clip in clips.values() if clip[name] is not None] for name in names}
    return {name: fmean(values) if values else None for name, values in found.items()}
