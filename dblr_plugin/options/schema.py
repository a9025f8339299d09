"""All keys of our option files, with their types and whether they are required.

Arguments of the class that a ``type`` names (network, loss, optimiser, scheduler, metric) are checked against that
class.
"""

from __future__ import annotations

import enum
import inspect
from typing import Annotated, Literal, TypedDict

import torch
from basicsr.models import lr_scheduler
from basicsr.utils.registry import LOSS_REGISTRY

from dblr_plugin.evaluation.metrics import IMAGES, all_metrics
from dblr_plugin.training.step import PlateauLR
from dblr_plugin.value_types import NATURAL, NETWORK, ComponentKind, Constraint, registered

__all__ = ['TEST_SETS', 'TRAIN_SETS', 'Options', 'RequiredWhen']


class RequiredWhen(enum.Enum):
    """Which option files need a key. Keys without this mark are optional."""

    ALWAYS = enum.auto()
    TRAINING = enum.auto()
    TESTING = enum.auto()


ALWAYS, TRAINING, TESTING = RequiredWhen

Count = Annotated[int, Constraint('from 1', lambda v: v >= 1)]
# BasicSR adds the rank, and NumPy takes seeds below 2^32
Seed = Annotated[int, Constraint('from 0 to 2147483647', lambda v: 0 <= v < 2**31)]
NotNegative = Annotated[float, Constraint('from 0', lambda v: v >= 0)]
Positive = Annotated[float, Constraint('above 0', lambda v: v > 0)]
# an empty name, or only dots, would be the folder of all experiments, which BasicSR then archives; the length limit
# leaves room for file names derived from it
Name = Annotated[
    str, Constraint('that can name a folder', lambda v: v.strip('. ') and not set('/\\\0') & set(v) and len(v) <= 100)
]
Odd = Annotated[Count, Constraint('and odd, as a window has a middle', lambda v: v % 2 == 1)]


def _optimisers() -> dict[str, type]:
    # in order: the base class; needs a closure; only for sparse gradients; only for matrices
    unfit = {'Optimizer', 'LBFGS', 'SparseAdam', 'Muon'}
    return {name: cls for name, cls in vars(torch.optim).items() if inspect.isclass(cls) and name not in unfit}


def _schedulers() -> dict[str, type]:
    basicsr = {name: cls for name, cls in vars(lr_scheduler).items() if name.endswith('LR') and name[0] != '_'}
    # BasicSR's base model accepts MultiStepLR as an alias of its own class
    return basicsr | {'MultiStepLR': lr_scheduler.MultiStepRestartLR, 'PlateauLR': PlateauLR}


LOSS = ComponentKind(lambda: registered(LOSS_REGISTRY))
OPTIMISER = ComponentKind(_optimisers, given=frozenset({'params'}), needed=frozenset({'lr'}))
SCHEDULER = ComponentKind(_schedulers, given=frozenset({'optimizer', 'last_epoch'}))
METRIC = ComponentKind(
    all_metrics,
    given=IMAGES | {'crop_border', 'test_y_channel'},  # set by a protocol, if not by the option file
    extra={'better': Literal['higher', 'lower'], 'crop_border': NATURAL, 'test_y_channel': bool},
    closed=True,
)

Network = Annotated[dict, NETWORK]
Loss = Annotated[dict, LOSS]
Optimiser = Annotated[dict, OPTIMISER]
Scheduler = Annotated[dict, SCHEDULER]
Metric = Annotated[dict, METRIC]


class IoBackend(TypedDict, total=False):
    """How frames are stored; never needed, as it is inferred from the paths."""

    type: Annotated[Literal['disk', 'lmdb'], ALWAYS]


class _DataSet(TypedDict, total=False):
    """Keys of all our datasets."""

    name: Annotated[Name, ALWAYS]
    type: Annotated[str, ALWAYS]
    num_frame: Odd
    causal: bool  # windows end with the frame to restore
    scale: Literal[1]
    pin_memory: bool


class _ClipSet(_DataSet, total=False):
    """Keys of datasets of clips."""

    dataroot_lq: Annotated[str, ALWAYS]  # folder of clips, or .lmdb
    meta_info_file: str | None
    io_backend: IoBackend | None
    # aligns the other frames to the one to restore; 'consistent' takes occluded pixels from that frame
    flow: bool | Literal['consistent']


class _Training(TypedDict, total=False):
    """Keys of all training sets."""

    dataroot_gt: Annotated[str, ALWAYS]
    gt_size: Annotated[Count, ALWAYS]  # side of the square crop
    random_reverse: bool
    use_hflip: bool
    use_rot: bool
    y_only: bool  # read luma only
    batch_size_per_gpu: Annotated[Count, ALWAYS]
    num_worker_per_gpu: Annotated[NATURAL, ALWAYS]
    persistent_workers: bool
    timeout: Annotated[float, Constraint('of seconds from 0', lambda v: v >= 0)]  # for one batch; 0 waits forever
    dataset_enlarge_ratio: Count  # a fraction would leave out the same samples in all epochs, as in BasicSR
    prefetch_mode: Literal['cuda', 'cpu'] | None
    num_prefetch_queue: Count


class TrainSet(_ClipSet, _Training, total=False):
    """``datasets.train`` of clips."""

    interval_list: Annotated[list[Count], Constraint('with at least one entry', bool)]


class MotionTrainSet(_DataSet, _Training, total=False):
    """``datasets.train`` synthesised from sharp images."""


class TestSet(_ClipSet, total=False):
    """``datasets.val``, ``datasets.test``, ``datasets.val_2`` and so on."""

    dataroot_gt: str | None  # without it, frames are restored but not scored
    padding: Literal['replicate', 'reflection', 'reflection_circle', 'circle']
    persistent_workers: Literal[False]  # BasicSR validates without workers, and torch then rejects persistent ones


#: Our dataset classes -> their sections.
TRAIN_SETS = {'VideoDeblurDataset': TrainSet, 'SyntheticMotionDataset': MotionTrainSet}
TEST_SETS = {'VideoDeblurTestDataset': TestSet}


class Path(TypedDict, total=False):
    """``path``: weights and state to start from, and output folders."""

    pretrain_network_g: str | None
    pretrain_network_d: str | None
    param_key_g: str | None
    param_key_d: str | None
    strict_load_g: bool
    strict_load_d: bool
    resume_state: str | None
    ignore_resume_networks: list[str] | None
    experiments_root: str | None
    results_root: str | None


class Train(TypedDict, total=False):
    """``train``."""

    total_iter: Annotated[Count, TRAINING]
    warmup_iter: Annotated[int, Constraint('from -1', lambda v: v >= -1)]  # -1 disables it
    ema_decay: Annotated[float, Constraint('from 0 and below 1', lambda v: 0 <= v < 1)]  # 0 disables it
    freeze_bn: bool
    sync_bn: bool  # BatchNorm over all processes
    multi_scale: bool  # compute the pixel loss at all scales that network_g restores
    lr_mul: dict[str, NotNegative] | None  # substring of parameter names -> learning rate factor
    train_only: dict[str, Count] | None  # substring of parameter names -> first iteration that trains all
    amp: Literal['bf16', 'fp16'] | None
    accumulate: Count  # micro-batches per batch
    clip_grad_norm: Positive | None
    compile: bool | Literal['reduce-overhead']
    channels_last: bool
    max_skipped_steps: Count

    optim_g: Annotated[Optimiser, TRAINING]
    optim_d: Optimiser | None
    scheduler: Annotated[Scheduler, TRAINING]

    pixel_opt: Loss | None
    perceptual_opt: Loss | None
    gan_opt: Loss | None
    net_d_iters: Count
    net_d_init_iters: NATURAL


class Val(TypedDict, total=False):
    """``val``."""

    val_freq: Annotated[Count, TRAINING]
    save_img: Annotated[bool, ALWAYS]
    suffix: str | None
    pbar: bool
    pad_multiple: Count  # frames are padded to a multiple of it
    backend: Literal['torch', 'compile', 'openvino', 'mnn', 'auto']
    precision: Literal['fp32', 'bf16', 'fp16', 'int8', 'auto']
    self_ensemble: bool
    metrics: dict[str, Metric] | None
    protocol: str | list[str] | None


class Wandb(TypedDict, total=False):
    """``logger.wandb``."""

    project: str | None
    resume_id: str | None


class Logger(TypedDict, total=False):
    """``logger``."""

    print_freq: Annotated[Count, TRAINING]
    save_checkpoint_freq: Annotated[Count, TRAINING]
    use_tb_logger: Annotated[bool, TRAINING]
    max_keep_ckpts: Count | None
    wandb: Wandb | None


class DistParams(TypedDict, total=False):
    """``dist_params``."""

    backend: str
    port: Annotated[int, Constraint('from 1 to 65535', lambda v: 1 <= v <= 65535)]
    timeout: Annotated[float, Constraint('of seconds above 0', lambda v: v > 0)]  # for collective operations


class Options(TypedDict, total=False):
    """A whole option file."""

    name: Annotated[Name, ALWAYS]
    model_type: Annotated[str, ALWAYS]
    scale: Literal[1]
    num_gpu: Annotated[Literal['auto'] | NATURAL, ALWAYS]
    manual_seed: Seed | None
    find_unused_parameters: bool
    imports: list[str] | None  # Python files to run first, which register further classes
    datasets: Annotated[dict, ALWAYS]  # train: TrainSet or MotionTrainSet, all others: TestSet
    network_g: Annotated[Network, ALWAYS]
    network_d: Network | None
    path: Annotated[Path, ALWAYS]
    train: Annotated[Train, TRAINING]
    val: Annotated[Val | None, TESTING]
    logger: Annotated[Logger, TRAINING]
    dist_params: DistParams
