"""Checks option files before anything is built: unknown keys, unknown classes, missing sections, with file and line."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from pathlib import Path

import basicsr
import torch
import yaml
from basicsr.models import lr_scheduler
from basicsr.utils.registry import ARCH_REGISTRY, DATASET_REGISTRY, LOSS_REGISTRY, METRIC_REGISTRY, MODEL_REGISTRY

from dblr_plugin.errors import DBLRError, nearest
from dblr_plugin.metrics import choose_protocols
from dblr_plugin.models.validation import protocols_of
from dblr_plugin.models.video_deblur_model import VideoDeblurModel, network_argument

__all__ = ['check_option_file', 'check_options', 'is_ours']

_COMMON = {'name', 'model_type', 'num_gpu', 'datasets', 'network_g', 'path'}
_REQUIRED = {True: _COMMON | {'train', 'logger'}, False: _COMMON | {'val'}}
_TOP = _COMMON | {
    'scale', 'manual_seed', 'network_d', 'train', 'val', 'logger', 'dist_params', 'find_unused_parameters',
}  # fmt: skip
_SECTIONS: dict[str, set[str]] = {
    'path': {
        'pretrain_network_g', 'pretrain_network_d', 'param_key_g', 'param_key_d', 'strict_load_g', 'strict_load_d',
        'resume_state', 'ignore_resume_networks', 'experiments_root', 'results_root',
    },
    'train': {
        'total_iter', 'warmup_iter', 'ema_decay', 'freeze_bn', 'optim_g', 'optim_d', 'scheduler', 'pixel_opt',
        'perceptual_opt', 'ldl_opt', 'gan_opt', 'net_d_iters', 'net_d_init_iters',
    },
    'val': {'val_freq', 'save_img', 'suffix', 'pbar', 'pad_multiple', 'metrics', 'protocol'},
    'logger': {'print_freq', 'save_checkpoint_freq', 'use_tb_logger', 'wandb'},
}  # fmt: skip
_NEEDED = {
    'train': {'total_iter', 'optim_g', 'scheduler'},
    'logger': {'print_freq', 'save_checkpoint_freq', 'use_tb_logger'},
}
_FRAMES = {
    'name', 'type', 'dataroot_lq', 'dataroot_gt', 'meta_info_file', 'io_backend', 'num_frame', 'scale', 'pin_memory',
    'persistent_workers',
}  # fmt: skip
_TRAIN_SET = _FRAMES | {
    'gt_size', 'interval_list', 'random_reverse', 'use_hflip', 'use_rot', 'num_worker_per_gpu', 'batch_size_per_gpu',
    'dataset_enlarge_ratio', 'prefetch_mode', 'num_prefetch_queue', 'y_only',
}  # fmt: skip
_TEST_SET = _FRAMES | {'padding'}
_NEEDED_TRAIN_SET = {
    'name', 'type', 'dataroot_lq', 'dataroot_gt', 'gt_size', 'batch_size_per_gpu', 'num_worker_per_gpu',
}  # fmt: skip


def check_option_file(path: str, is_train: bool) -> None:
    """Checks a YAML option file. Files whose model is not ours are left to BasicSR, once its class is known.

    Args:
        path: The file.
        is_train: Whether it is for training; testing needs other sections.

    Raises:
        DBLRError: Naming file, line, key and the nearest known name.
    """
    if not Path(path).is_file():
        raise DBLRError(f'{path}: no such option file')
    try:
        root = yaml.compose(Path(path).read_text(), Loader=yaml.SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DBLRError(f'{path}: not valid YAML: {" ".join(str(error).split())}') from error
    _OptionFile(path, is_train).check(root)


def is_ours(opt: dict) -> bool:
    """Whether the options are for one of the plugin's models."""
    return issubclass(MODEL_REGISTRY.get(opt['model_type']), VideoDeblurModel)


def check_options(opt: dict) -> None:
    """Refuses parsed options that contradict each other or that this machine cannot run.

    Raises:
        DBLRError: If more GPUs are asked for than there are, a prefetcher cannot work, the windows of a data set
            have another length than the network's, there is no such protocol, or a path does not exist. BasicSR
            would find that out only after it has put an older experiment of the same name aside.
    """
    found = torch.cuda.device_count()
    if opt['num_gpu'] > found:
        raise DBLRError(f'num_gpu is {opt["num_gpu"]}, but {found} CUDA devices are visible; set num_gpu: auto')
    for name, dataset in opt['datasets'].items():
        mode = dataset.get('prefetch_mode')
        if mode == 'cpu':
            raise DBLRError(f'datasets.{name}.prefetch_mode: cpu hangs when a frame cannot be read; remove the line')
        if mode == 'cuda' and opt['num_gpu'] == 0:
            raise DBLRError(f'datasets.{name}.prefetch_mode: cuda needs a GPU; remove the line')
    frames = network_argument(opt['network_g'], 'num_frame', None)
    for name, dataset in opt['datasets'].items():
        if frames is not None and dataset.get('num_frame', 5) != frames:
            raise DBLRError(
                f'datasets.{name}.num_frame is {dataset.get("num_frame", 5)}, but network_g takes windows of {frames} '
                f'frames; set both alike'
            )
    protocols_of(opt.get('val') or {})  # --protocol and --force_yml are not in the option file
    _check_paths(opt)


def _check_paths(opt: dict) -> None:
    paths = {
        f'datasets.{name}.{key}': dataset.get(key)
        for name, dataset in opt['datasets'].items()
        for key in ('dataroot_lq', 'dataroot_gt', 'meta_info_file')
    }
    if not (opt['auto_resume'] or opt['path'].get('resume_state')):
        paths |= {f'path.{key}': value for key, value in opt['path'].items() if key.startswith('pretrain_network_')}
    for key, path in paths.items():
        if path is not None and not Path(path).exists():
            raise DBLRError(f'{key}: {path} does not exist (looked up from {Path.cwd()})')


class _OptionFile:
    """Walks the YAML node tree, which knows the line of each key."""

    def __init__(self, path: str, is_train: bool) -> None:
        self.path = path
        self.is_train = is_train

    def check(self, root: yaml.Node | None) -> None:
        """Checks the whole file."""
        top = self.entries(root, '')
        model = top.get('model_type')
        if model is not None:
            cls = self.registered(model, MODEL_REGISTRY, 'model_type')
            if not issubclass(cls, VideoDeblurModel):
                return
        self.known(top, _TOP, '')
        self.needed(top, _REQUIRED[self.is_train], '', root)
        for section, keys in _SECTIONS.items():
            if section in top:
                entries = self.entries(top[section], section)
                self.known(entries, keys, section)
                if self.is_train:
                    self.needed(entries, _NEEDED.get(section, set()), section, top[section])
        for section in ('network_g', 'network_d'):
            if section in top:
                self.component(top[section], ARCH_REGISTRY, section)
        self.check_datasets(top['datasets'])
        if 'train' in top and self.is_train:
            self.check_train(self.entries(top['train'], 'train'))
        if 'val' in top:
            val = self.entries(top['val'], 'val')
            self.check_metrics(val.get('metrics'))
            self.check_protocol(val.get('protocol'))

    def check_datasets(self, node: yaml.Node) -> None:
        """Checks the sections of ``datasets``."""
        phases = self.entries(node, 'datasets')
        for phase, value in phases.items():
            section = f'datasets.{phase}'
            if phase.split('_')[0] not in ('train', 'val', 'test'):
                self.fail(value, f"{section}: data sets are called 'train', 'val', 'val_2', 'test', 'test_2' and so on")
            entries = self.entries(value, section)
            self.needed(entries, {'type'}, section, value)
            cls = self.registered(entries['type'], DATASET_REGISTRY, f'{section}.type')
            if not cls.__module__.startswith('dblr_plugin.'):
                continue
            is_train = phase.split('_')[0] == 'train'
            self.known(entries, _TRAIN_SET if is_train else _TEST_SET, section)
            self.needed(entries, _NEEDED_TRAIN_SET if is_train else {'name', 'dataroot_lq'}, section, value)
        if self.is_train and 'train' not in phases:
            self.fail(node, 'datasets: training needs a data set called train')

    def check_train(self, train: dict[str, yaml.Node]) -> None:
        """Checks losses, optimisers and scheduler."""
        for section in ('pixel_opt', 'perceptual_opt', 'ldl_opt', 'gan_opt'):
            if section in train:
                self.component(train[section], LOSS_REGISTRY, f'train.{section}')
        for section in ('optim_g', 'optim_d'):
            if section in train:
                self.component(train[section], torch.optim, f'train.{section}', skip=('params',))
        self.component(train['scheduler'], lr_scheduler, 'train.scheduler', skip=('optimizer',))

    def check_metrics(self, node: yaml.Node | None) -> None:
        """Checks ``val.metrics``."""
        for name, value in self.entries(node, 'val.metrics').items():
            section = f'val.metrics.{name}'
            self.component(value, METRIC_REGISTRY, section, skip=('img', 'img2', 'kwargs'), also=('better',))

    def check_protocol(self, node: yaml.Node | None) -> None:
        """Checks ``val.protocol``."""
        if node is not None and node.tag != 'tag:yaml.org,2002:null':
            names = node.value if isinstance(node, yaml.SequenceNode) else [node]
            try:
                choose_protocols([name.value for name in names])
            except DBLRError as error:
                self.fail(node, f'val.protocol: {error}')

    # ------------------------------------------------------------------ building blocks

    def fail(self, node: yaml.Node | None, message: str) -> None:
        """Raises DBLRError with file and line."""
        line = f':{node.start_mark.line + 1}' if node is not None else ''
        raise DBLRError(f'{self.path}{line}: {message}')

    def entries(self, node: yaml.Node | None, section: str) -> dict[str, yaml.Node]:
        """The keys and values of a mapping; an empty one counts as an empty mapping."""
        if node is None or node.tag == 'tag:yaml.org,2002:null':
            return {}
        if not isinstance(node, yaml.MappingNode):
            self.fail(node, f'{section or "the file"} must hold keys and values')
        found: dict[str, yaml.Node] = {}
        for key, value in node.value:
            if key.value in found:
                self.fail(key, f"'{key.value}' stands twice in {section or 'the file'}")
            found[key.value] = value
        return found

    def known(self, entries: dict[str, yaml.Node], keys: Iterable[str], section: str) -> None:
        """Fails at a key that is none of ``keys``."""
        for key, value in entries.items():
            if key not in keys:
                self.fail(value, f"unknown key '{f'{section}.{key}' if section else key}'{nearest(key, keys)}")

    def needed(self, entries: dict[str, yaml.Node], keys: set[str], section: str, node: yaml.Node | None) -> None:
        """Fails if one of ``keys`` is missing."""
        missing = sorted(keys - entries.keys())
        if missing:
            self.fail(node, f'{section or "the file"} lacks {", ".join(missing)}')

    def registered(self, node: yaml.Node, registry: object, section: str) -> type:
        """The class a scalar names, in one of BasicSR's registries or in a module."""
        name = node.value
        if isinstance(registry, type(ARCH_REGISTRY)):
            names = [k for k, _ in registry]
            if name in names:
                return registry.get(name)
        else:
            names = [k for k, v in vars(registry).items() if inspect.isclass(v)]
            if name in names:
                return getattr(registry, name)
        self.fail(
            node,
            f"{section}: no class '{name}' is registered{nearest(name, names)} Registered: "
            f'{", ".join(sorted(names))} (basicsr {basicsr.__version__} imported from {basicsr.__path__[0]})',
        )

    def component(
        self,
        node: yaml.Node,
        registry: object,
        section: str,
        skip: Iterable[str] = (),
        also: Iterable[str] = (),
    ) -> None:
        """Checks a ``type`` and the arguments beside it against the class's signature."""
        entries = self.entries(node, section)
        self.needed(entries, {'type'}, section, node)
        name = entries['type'].value
        # BasicSR's base model takes this as another name for its own MultiStepRestartLR
        if registry is lr_scheduler and name == 'MultiStepLR':
            arguments = inspect.signature(lr_scheduler.MultiStepRestartLR).parameters
        else:
            arguments = inspect.signature(self.registered(entries['type'], registry, f'{section}.type')).parameters
        self.known(entries, {*arguments, *also, 'type'} - {*skip}, section)
