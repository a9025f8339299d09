"""Parts for a Runner: data sets, sampler, protocol scores, a resumable loop, hooks, and one optimiser per network."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import torch
from basicsr.utils.registry import DATASET_REGISTRY
from mmengine.dist import get_dist_info, sync_random_seed
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.logging import MessageHub, print_log
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapperDict, build_optim_wrapper
from mmengine.runner import IterBasedTrainLoop, Runner
from torch import nn
from torch.utils.data import DataLoader, Dataset, Sampler

from dblr_plugin.data.train_sampler import SampleIndex, TrainSampler
from dblr_plugin.errors import DBLRError, nearest, raise_faults
from dblr_plugin.evaluation.protocols import choose_protocols
from dblr_plugin.evaluation.scores import Row, format_table, summarise
from dblr_plugin.evaluation.validation import ComparisonImages, RestoredFrame, frame_scores, to_image
from dblr_plugin.mmengine.registry import (
    DATA_SAMPLERS,
    DATASETS,
    HOOKS,
    LOOPS,
    METRICS,
    OPTIM_WRAPPER_CONSTRUCTORS,
    plain,
    register,
)
from dblr_plugin.options.conflicts import window_conflicts
from dblr_plugin.options.schema import TEST_SETS, TRAIN_SETS
from dblr_plugin.training.objectives import seed_iteration
from dblr_plugin.value_types import fault
from dblr_plugin.weights.checkpoint import NETWORK_KEY

__all__ = [
    'ComparisonImagesHook', 'MultiOptimWrapperConstructor', 'ProtocolScores', 'ResumableSampler', 'ResumableTrainLoop',
    'StopAtInvalidLossHook', 'restored_frame',
]  # fmt: skip

#: BasicSR's data set options that belong to the loader -> their place in MMEngine.
_OF_LOADER = {
    'batch_size_per_gpu': 'batch_size',
    'num_worker_per_gpu': 'num_workers',
    'persistent_workers': 'persistent_workers',
    'pin_memory': 'pin_memory',
    'timeout': 'timeout',
    'prefetch_mode': 'prefetch_factor',
    'num_prefetch_queue': 'prefetch_factor',
    'dataset_enlarge_ratio': 'sampler.ratio',
}


def _builder(name: str, section: type) -> Callable[..., Dataset]:
    """Returns a function that builds a data set from keyword arguments, the options of its section in option files."""
    annotations = get_type_hints(section, include_extras=True)

    def build(**arguments: Any) -> Dataset:
        options = plain(arguments)
        raise_faults([text for key, value in options.items() if (text := _fault(key, value))], f'options of {name}')
        raise_faults(_unlike_network(name, options), f'options of {name}')
        dataset = DATASET_REGISTRY.get(name)({'name': name, **options, 'type': name})
        dataset.metainfo = {'name': dataset.opt['name']}
        return dataset

    def _fault(key: str, value: object) -> str | None:
        if key in _OF_LOADER:
            return f'{name}: {key} belongs to the loader: write {_OF_LOADER[key]} beside dataset'
        if key not in annotations:
            return f"{name} has no option '{key}'{nearest(key, annotations)}"
        found = fault(value, annotations[key])
        return found and f'{name}: {key} {found}'

    build.__name__ = name
    return build


def _unlike_network(name: str, options: dict[str, Any]) -> list[str]:
    """Returns why a data set's windows are not those of the model that the Runner has built, if it is one of ours."""
    about = MessageHub.get_current_instance().get_info(NETWORK_KEY)
    if about is None:
        return []
    found = window_conflicts({'network_g': about['network'], 'datasets': {name: options}})
    faults = (f'{key} {why}'.removeprefix('datasets.') for key, why in found)
    return [text.replace('network_g', 'model.generator') for text in faults]


for _name, _section in {**TRAIN_SETS, **TEST_SETS}.items():
    register(DATASETS, _name)(_builder(_name, _section))


def restored_frame(sample: dict[str, Any]) -> RestoredFrame:
    """Converts a ``VideoDeblurTestDataset`` sample with our models' output for scores and comparison images."""
    index, count = (int(number) for number in sample['idx'].split('/'))
    return RestoredFrame(
        clip=sample['folder'],
        name=Path(sample['lq_path']).stem,
        index=index,
        count=count,
        blurry=to_image(sample['blurry']).round().astype(np.uint8),
        restored=to_image(sample['restored']),
        truth=to_image(sample['gt']).round().astype(np.uint8) if 'gt' in sample else None,
    )


@register(DATA_SAMPLERS)
class ResumableSampler(Sampler):
    """An infinite sampler with the order and augmentation of :class:`~dblr_plugin.data.train_sampler.TrainSampler`.

    Args:
        dataset: The training set.
        batch_size: Batch size per process.
        seed: The Runner's seed; None for a random one.
        ratio: ``dataset_enlarge_ratio``: how often an epoch contains each sample.
    """

    def __init__(self, dataset: Dataset, batch_size: int, seed: int | None = None, ratio: int = 1) -> None:
        rank, processes = get_dist_info()
        seed = sync_random_seed() if seed is None else seed
        self._epochs = TrainSampler(dataset, processes, rank, ratio, batch_size=batch_size, seed=seed)

    def resume(self, iteration: int, seed: int) -> None:
        """Makes the sampler start after the batch of an iteration, in a run with this seed."""
        self._epochs.resume_iter, self._epochs.seed = iteration, seed

    def __iter__(self) -> Iterator[SampleIndex]:
        for epoch in itertools.count(self._epochs.resume_iter // self._epochs.iters_per_epoch):
            self._epochs.set_epoch(epoch)
            yield from self._epochs

    def __len__(self) -> int:
        """Returns this process's number of samples per epoch."""
        return len(self._epochs)


@register(METRICS)
class ProtocolScores(BaseMetric):
    """PSNR and SSIM by a protocol of :mod:`dblr_plugin.evaluation.protocols`: ``<protocol>/psnr`` and ``/ssim``.

    Scores of each clip are logged too. For several protocols, use several metrics.

    Args:
        protocol: Name of the protocol.
        prefix: Replaces the protocol's name in the metrics' names.
        collect_device: See MMEngine's ``BaseMetric``; ``gpu`` collects results by communication between the processes,
            on CPUs too, and ``cpu`` through files.

    Raises:
        DBLRError: If there is no such protocol.
    """

    def __init__(self, protocol: str = 'basicsr', prefix: str | None = None, collect_device: str = 'gpu') -> None:
        (self.protocol,) = choose_protocols([protocol])
        super().__init__(collect_device, prefix or self.protocol.name)

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Scores frames: a data set's samples, to which our models have added ``restored``."""
        # one entry per sample, as MMEngine counts them when collecting
        self.results += [list(frame_scores(restored_frame(sample), [self.protocol])) for sample in data_samples]

    def compute_metrics(self, results: list[list[Row]]) -> dict[str, float]:
        """Returns the protocol's scores for the data set; none without ground truth."""
        means: dict[str, float] = {}
        for entry in summarise([row for rows in results for row in rows], [self.protocol]):
            print_log(f'{(self.dataset_meta or {}).get("name", "")}\n{format_table(entry)}', logger='current')
            means |= entry['mean']
        return means


@register(LOOPS)
class ResumableTrainLoop(IterBasedTrainLoop):
    """MMEngine's iteration-based loop, with our sampler.

    On resuming, MMEngine's own loop reads again all batches already trained on. This one starts after them, so that a
    resumed run equals an uninterrupted one. All randomness in networks and losses depends on seed and iteration.

    Args:
        runner: The Runner.
        dataloader: ``train_dataloader``; it needs no sampler.
        kwargs: Further arguments of MMEngine's ``IterBasedTrainLoop``.

    Raises:
        DBLRError: If the data loader has another sampler than :class:`ResumableSampler`.
    """

    def __init__(self, runner: Any, dataloader: DataLoader | Mapping[str, Any], **kwargs: Any) -> None:
        if isinstance(dataloader, Mapping):
            sampler = {'type': ResumableSampler, **dataloader.get('sampler', {})}
            if sampler['type'] in (ResumableSampler, 'ResumableSampler', 'dblr.ResumableSampler'):
                sampler['batch_size'] = dataloader.get('batch_size', 1)
            dataloader = {**dataloader, 'sampler': sampler}
        super().__init__(runner, dataloader, **kwargs)
        if not isinstance(self.dataloader.sampler, ResumableSampler):
            raise DBLRError(
                f'train_dataloader.sampler is {type(self.dataloader.sampler).__name__}, and ResumableTrainLoop has its '
                "own; leave it out, or use MMEngine's IterBasedTrainLoop"
            )

    def run(self) -> nn.Module:
        """Trains to the last iteration."""
        self.dataloader.sampler.resume(self._iter, self.runner.seed)
        # MMEngine takes one batch for each completed iteration; these cost nothing
        self.dataloader_iterator = itertools.chain(itertools.repeat(None, self._iter), iter(self.dataloader))
        return super().run()

    def run_iter(self, data_batch: Any) -> None:
        """Runs one iteration."""
        seed_iteration(self.runner.seed, self._iter + 1, self.runner.rank, self.runner.world_size)
        super().run_iter(data_batch)


_TENSORBOARD = 'TensorboardVisBackend'


@register(HOOKS)
class ComparisonImagesHook(Hook):
    """Saves input, output and ground truth side by side after each validation, as files and in TensorBoard, if on.

    Args:
        clips: Number of clips to show.
        side: Maximum side of the square centre crop of a frame, in pixels.
    """

    def __init__(self, clips: int = 4, side: int = 256) -> None:
        self.clips = clips
        self.side = side

    def before_val_epoch(self, runner: Runner) -> None:
        """Starts a validation."""
        self.images = ComparisonImages(Path(runner.log_dir) / 'vis_data', self.clips, self.side)
        self.take = self.images.begin(runner.val_dataloader.dataset)

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence[dict] | None = None
    ) -> None:
        """Collects the restored frames to show."""
        for sample in outputs or ():
            self.take(restored_frame(sample))

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Writes the images."""
        backends = runner.visualizer._vis_backends
        self.images.finish(runner.iter, backends[_TENSORBOARD].experiment if _TENSORBOARD in backends else None)


@register(HOOKS)
class StopAtInvalidLossHook(Hook):
    """Ends a run at the first non-finite loss, before its weights are saved.

    Our BasicSR models skip such a step; MMEngine's optimisers have already taken it, unless they scale the loss (fp16).
    """

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, torch.Tensor] | None = None
    ) -> None:
        """Checks the log values of an iteration; raises DBLRError, naming the batch's samples, if any is not finite."""
        invalid = [name for name, value in (outputs or {}).items() if not torch.isfinite(torch.as_tensor(value)).all()]
        if invalid:
            raise DBLRError(
                f'iteration {runner.iter + 1}: {", ".join(invalid)} not finite, with samples '
                f'{", ".join(data_batch.get("key", ()))}; look at them, lower the learning rate, or clip gradients '
                '(optim_wrapper.clip_grad); --resume continues from the last checkpoint'
            )


@register(OPTIM_WRAPPER_CONSTRUCTORS)
class MultiOptimWrapperConstructor:
    """Builds ``optim_wrapper`` for a model with several networks; MMagic has a class of the same name and interface.

    Args:
        optim_wrapper_cfg: Name of the network in the model -> its ``optim_wrapper``.
        paramwise_cfg: Must be None: each network's ``optim_wrapper`` has its own.

    Raises:
        DBLRError: If it is given, or the model has no network of such a name.
    """

    def __init__(self, optim_wrapper_cfg: Mapping[str, Any], paramwise_cfg: object = None) -> None:
        if paramwise_cfg is not None:
            raise DBLRError("optim_wrapper.paramwise_cfg has no effect here; move it into the networks' entries")
        self.configs = optim_wrapper_cfg

    def __call__(self, model: nn.Module) -> OptimWrapperDict:
        """Builds one wrapper per network."""
        bare: Any = model.module if is_model_wrapper(model) else model
        networks = dict(bare.named_children())
        unknown = [name for name in self.configs if name not in networks]
        raise_faults(
            [f"optim_wrapper.{name}: the model has no network '{name}'{nearest(name, networks)}" for name in unknown],
            'config',
        )
        return OptimWrapperDict(
            **{name: build_optim_wrapper(networks[name], config) for name, config in self.configs.items()}
        )
