"""Checks for options that conflict with each other."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator

import torch
from basicsr.utils.registry import ARCH_REGISTRY, LOSS_REGISTRY, MODEL_REGISTRY

from dblr_plugin.archs.traits import NetworkTraits, network_argument, pad_multiple, round_up
from dblr_plugin.errors import DBLRError
from dblr_plugin.evaluation.metrics import check_metrics
from dblr_plugin.evaluation.protocols import choose_protocols
from dblr_plugin.models.dblrgan_model import DBLRGANModel
from dblr_plugin.models.video_deblur_model import VideoDeblurModel
from dblr_plugin.training.step import build_optimizer

__all__ = ['conflicts', 'window_conflicts']

Conflict = tuple[str, str]


def conflicts(opt: dict, is_train: bool) -> Iterator[Conflict]:
    """Yields options that conflict with others: the key, as ``a.b.c``, and the message to print after it.

    Args:
        opt: Options that match the schema.
        is_train: Whether they are for training.
    """
    of_networks = list(_networks(opt))
    yield from of_networks
    if of_networks:
        return  # the other checks need networks that can be built
    yield from window_conflicts(opt)
    yield from _names(opt)
    yield from _scores(opt)
    if is_train:
        yield from _gan(opt)
        yield from _losses(opt)
        yield from _sizes(opt)
        yield from _graphs(opt)
        yield from _optimisers(opt)
        yield from _trainable(opt['network_g'])
        yield from _parts(opt)
        yield from _training_set(opt)
        yield from _schedule(opt['train'])
        yield from _wandb(opt['logger'])
        yield from _ignored_networks(opt)
    elif opt['val'] is None:
        yield 'val', 'is empty, and a test needs it; write val: {save_img: true}'


def _networks(opt: dict) -> Iterator[Conflict]:
    network = opt['network_g']
    channels = network_argument(network, 'num_in_ch', 3)
    out = network_argument(network, 'num_out_ch', channels)
    if channels not in (1, 3):
        yield 'network_g.num_in_ch', f'is {channels}, and frames have 1 (Y) or 3 (RGB); set one of these'
    if out != channels:
        yield 'network_g.num_out_ch', f'is {out}, and num_in_ch is {channels}; set both to the same value'
    yield from _of_basicsr(network)
    discriminator = opt.get('network_d')
    if discriminator:
        judged = network_argument(discriminator, 'num_in_ch', out)
        if judged != out:
            fault = f'is {judged}, and network_g restores {out} channels; set network_d to the same'
            yield 'network_d.num_in_ch', fault
    for section in ('network_g', 'network_d'):
        # constructors of other networks may have side effects
        if opt.get(section) and _is_our_network(opt[section]):
            try:
                _without_weights(opt[section])
            except (ValueError, RuntimeError) as error:
                yield section, f'cannot be built: {error}'


def _of_basicsr(network: dict) -> Iterator[Conflict]:
    """Checks BasicSR's networks, of which only EDVR can restore a frame of a window."""
    name = network['type']
    if not ARCH_REGISTRY.get(name).__module__.startswith('basicsr.'):
        return
    if network_argument(network, 'num_frame', None) is None:
        yield 'network_g.type', f'is {name}, which does not restore one frame per window; write EDVR, or one of ours'
        return
    for needed in ('hr_in', 'with_predeblur'):
        if network_argument(network, needed, True) is False:
            yield f'network_g.{needed}', f'is false, and the network would enlarge frames fourfold; set {needed}: true'
    features, groups = (network_argument(network, key, 1) for key in ('num_feat', 'deformable_groups'))
    if features % groups:
        yield 'network_g.num_feat', f'is {features}, and must be a multiple of deformable_groups, {groups}'


def _is_our_network(network: dict) -> bool:
    return ARCH_REGISTRY.get(network['type']).__module__.startswith('dblr_plugin.')


def _without_weights(network: dict) -> torch.nn.Module:
    """Builds a network without allocating its weights, if its constructor permits that."""
    arguments = dict(network)
    cls = ARCH_REGISTRY.get(arguments.pop('type'))
    try:
        with torch.device('meta'):
            return cls(**arguments)
    except RuntimeError:  # such as Swin transformers, which read values of tensors that they make
        return cls(**arguments)


def window_conflicts(opt: dict) -> Iterator[Conflict]:
    """Yields where ``datasets`` do not make the windows that ``network_g`` takes, as video inference does.

    That is their number of frames, which one is restored, and whether the others are aligned to it.
    """
    network = opt['network_g']
    traits = NetworkTraits.of(network)
    last = traits.num_frame - 1
    has_argument = network_argument(network, 'num_frame', None) is not None
    takes_any = traits.restores == 'all' or (_is_our_network(network) and not has_argument)
    flow = network_argument(network, 'flow', None)
    if network.get('center_frame_idx') not in (None, last // 2, last):
        yield 'network_g.center_frame_idx', f'must be {last // 2} (the middle frame of a window) or {last} (the last)'
    for name, dataset in opt['datasets'].items():
        trail = f'datasets.{name}'
        given = dataset.get('num_frame', 5)
        if not takes_any and given != traits.num_frame:
            fix = 'set both to the same value'
            if not has_argument:  # tests and deblurring would use the default
                fix = f'give {network["type"]} an argument num_frame that is {given} by default'
            yield f'{trail}.num_frame', f'is {given}, but network_g takes windows of {traits.num_frame} frames; {fix}'
        causal = bool(dataset.get('causal', False))
        if causal != traits.causal:
            fix = f'set both to the same value (EDVR: center_frame_idx: {last})'
            yield f'{trail}.causal', f'is {str(causal).lower()}, unlike network_g; {fix}'
        if traits.causal and dataset.get('random_reverse'):
            yield f'{trail}.random_reverse', 'would put another frame at the end of causal windows; set it to false'
        if traits.causal and dataset.get('padding', 'replicate') != 'replicate':
            yield f'{trail}.padding', f'is {dataset["padding"]}, and causal windows are padded by replicate; remove it'
        aligned = dataset.get('flow', False)
        if aligned != (flow or False):
            unaligned = f'{network["type"]} takes frames as they are; remove it'
            fix = unaligned if flow is None else 'set both to the same value'
            yield f'{trail}.flow', f'is {str(aligned).lower()}, unlike network_g: {fix}'


def _names(opt: dict) -> Iterator[Conflict]:
    """Checks that dataset names are unique, as scores and images are saved under them."""
    seen: dict[str, str] = {}
    names = {phase: dataset.get('name') for phase, dataset in opt['datasets'].items() if phase != 'train'}
    for phase, name in names.items():
        first = seen.setdefault(name, phase)
        if first != phase:
            yield f'datasets.{phase}.name', f"is '{name}', as that of datasets.{first}; give it one of its own"


def _scores(opt: dict) -> Iterator[Conflict]:
    """Checks protocols and metrics."""
    val = opt.get('val') or {}
    for key, check in (('protocol', choose_protocols), ('metrics', check_metrics)):
        if val.get(key) is not None:
            try:
                check(val[key])
            except DBLRError as error:
                yield f'val.{key}', f'cannot be used: {error}'


def _gan(opt: dict) -> Iterator[Conflict]:
    """Checks that a discriminator is configured if and only if the model trains one."""
    model, name = MODEL_REGISTRY.get(opt['model_type']), opt['model_type']
    for trail in ('network_d', 'train.optim_d', 'train.gan_opt'):
        is_given = bool({**opt, **opt['train']}.get(trail.split('.')[-1]))
        if issubclass(model, DBLRGANModel) and not is_given:
            yield trail, f'is missing, and {name} needs it; add it, or use VideoDeblurModel'
        elif model is VideoDeblurModel and is_given:  # other models may train a discriminator too
            yield trail, f'is given, and {name} trains no discriminator; remove it, or use DBLRGANModel'


#: Loss -> the argument by which the trainer's call can be recognised
_LOSSES = {'pixel_opt': 'target', 'perceptual_opt': 'gt', 'gan_opt': 'is_disc'}


def _losses(opt: dict) -> Iterator[Conflict]:
    train = opt['train']
    if not train.get('pixel_opt') and not train.get('perceptual_opt'):
        yield 'train', 'has neither pixel_opt nor perceptual_opt; add one, such as pixel_opt: {type: MSELoss}'
    known = {name: cls for name, cls in LOSS_REGISTRY if cls.__module__.startswith(('basicsr.', 'dblr_plugin.'))}
    for key, argument in _LOSSES.items():
        fitting = [name for name, cls in known.items() if argument in inspect.signature(cls.forward).parameters]
        name = (train.get(key) or {}).get('type')
        if name in known and name not in fitting:
            yield f'train.{key}.type', f'is {name}, which cannot be used here; write {" or ".join(fitting)}'


def _sizes(opt: dict) -> Iterator[Conflict]:
    """Checks that for a multi-scale loss, the network restores several scales and the crop size is divisible."""
    if not opt['train'].get('multi_scale'):
        return
    name, size = opt['network_g']['type'], opt['datasets']['train']['gt_size']
    network = ARCH_REGISTRY.get(name)
    if not hasattr(network, 'pyramid'):
        yield 'train.multi_scale', f'is true, and {name} restores only one size; remove it'
    elif size % network.size_multiple:
        fit = round_up(size, network.size_multiple)
        fault = f'is {size}, and train.multi_scale needs a multiple of {network.size_multiple}; write {fit}'
        yield 'datasets.train.gt_size', fault


def _graphs(opt: dict) -> Iterator[Conflict]:
    """Checks CUDA graphs, which reuse output buffers: supported only with a single network and whole batches."""
    train = opt['train']
    if train.get('compile') == 'reduce-overhead':
        if issubclass(MODEL_REGISTRY.get(opt['model_type']), DBLRGANModel):
            yield 'train.compile', f'is reduce-overhead, which {opt["model_type"]} does not offer; write true'
        elif train.get('accumulate', 1) > 1:
            yield 'train.compile', 'is reduce-overhead, which takes a batch whole; write true, or remove accumulate'


def _optimisers(opt: dict) -> Iterator[Conflict]:
    """Builds the optimisers and takes a step to check their arguments."""
    for section in ('optim_g', 'optim_d'):
        if opt['train'].get(section):
            arguments = dict(opt['train'][section])
            on_gpu = opt['num_gpu'] != 0 and torch.cuda.is_available()
            weights = torch.nn.Parameter(torch.zeros(2, 2, device='cuda' if on_gpu else 'cpu'))
            weights.grad = torch.ones_like(weights)
            try:
                build_optimizer(arguments.pop('type'), [weights], **arguments).step()
            except (ValueError, RuntimeError, AssertionError) as error:
                yield f'train.{section}', f'cannot be used: {error}'


def _parts(opt: dict) -> Iterator[Conflict]:
    """Checks that the names in ``lr_mul`` and ``train_only`` match parameters of the network."""
    given = [(key, part) for key in ('lr_mul', 'train_only') for part in opt['train'].get(key) or {}]
    if not given:
        return
    names = [name for name, _ in _without_weights(opt['network_g']).named_parameters()]
    for key, part in given:
        if not (isinstance(part, str) and any(part in name for name in names)):
            parts = ', '.join(sorted({name.split('.')[0] for name in names}))
            yield f'train.{key}.{part}', f'fits no parameter of {opt["network_g"]["type"]}, whose parts are {parts}'


def _trainable(network: dict) -> Iterator[Conflict]:
    name = network['type']
    if NetworkTraits.of(network).restores == 'all':
        yield (
            'network_g.type',
            f'is {name}, which restores all frames, and training sets have one sharp frame a window; train it with '
            "another model and data set, such as BasicSR's VideoRecurrentModel and REDSRecurrentDataset",
        )
    elif _is_our_network(network) and not any(True for _ in _without_weights(network).parameters()):
        yield 'network_g.type', f'is {name}, which has no weights to train; dblr test scores it'


def _training_set(opt: dict) -> Iterator[Conflict]:
    train_set, trail = opt['datasets']['train'], 'datasets.train'
    channels = network_argument(opt['network_g'], 'num_in_ch', 3)
    if train_set.get('y_only') and channels != 1:
        yield f'{trail}.y_only', f'is true, but network_g takes {channels} channels; remove it or set num_in_ch: 1'
    mode = train_set.get('prefetch_mode')
    if mode == 'cpu':
        yield f'{trail}.prefetch_mode', 'is cpu, which hangs when a frame cannot be read; remove the line'
    if mode == 'cuda' and not train_set.get('pin_memory'):
        yield f'{trail}.prefetch_mode', 'is cuda, which needs pinned memory; add pin_memory: true beside it'
    batch, micro_batches = train_set.get('batch_size_per_gpu', 1), opt['train'].get('accumulate', 1)
    if batch % micro_batches:
        fault = f'is {micro_batches}, and does not divide batch_size_per_gpu, {batch}; set it to a divisor'
        yield 'train.accumulate', fault
    size = train_set.get('gt_size')
    if size is not None:
        yield from _crop(opt, size, f'{trail}.gt_size')


def _crop(opt: dict, size: int, trail: str) -> Iterator[Conflict]:
    network = opt['network_g']['type']
    multiple = pad_multiple(network, (opt.get('val') or {}).get('pad_multiple', 1))
    if size % multiple:
        fit = round_up(size, multiple)
        yield trail, f'is {size}, and the sides of frames of {network} are multiples of {multiple}; write {fit}'
    if opt.get('network_d'):
        name = opt['network_d']['type']
        least = getattr(ARCH_REGISTRY.get(name), 'min_size', 1)
        if size < least:
            yield trail, f'is {size}, and {name} needs crops of at least {least}; raise it'
        only = network_argument(opt['network_d'], 'input_size', size)  # BasicSR's VGGStyleDiscriminator
        if size != only:
            yield trail, f'is {size}, and {name} takes crops of input_size, {only}; set both to 128 or 256'


def _schedule(train: dict) -> Iterator[Conflict]:
    scheduler, trail = train['scheduler'], 'train.scheduler'
    milestones = scheduler.get('milestones', [])
    if any(later <= earlier for earlier, later in itertools.pairwise(milestones)):
        yield f'{trail}.milestones', f'{milestones} must increase; sort them, and write each once'
    key = 'periods' if 'periods' in scheduler else 'restarts'
    count, weights = len(scheduler.get(key, [0])), len(scheduler.get('restart_weights', [1]))
    if count != weights:
        yield f'{trail}.restart_weights', f'are {weights}, and {key} are {count}; give each of these one weight'
    total = sum(scheduler.get('periods', [train['total_iter']]))
    if total < train['total_iter'] - 1:
        fault = f'add up to {total} iterations, less than total_iter, {train["total_iter"]}; lengthen the last'
        yield f'{trail}.periods', fault


def _wandb(logger: dict) -> Iterator[Conflict]:
    if (logger.get('wandb') or {}).get('project') and not logger['use_tb_logger']:
        yield 'logger.wandb.project', 'needs use_tb_logger: true; BasicSR sends the values for TensorBoard'


def _ignored_networks(opt: dict) -> Iterator[Conflict]:
    known = [key for key in opt if key.startswith('network_')]
    for name in opt['path'].get('ignore_resume_networks') or []:
        if name not in known:
            yield 'path.ignore_resume_networks', f"names '{name}'; the networks are {' and '.join(known)}"
