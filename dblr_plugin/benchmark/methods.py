"""The methods of a benchmark file, with the options of each training and test, checked before anything runs.

Methods are ordinary option files with settings, and nothing depends on their names. All faults are reported at once.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from basicsr.utils.registry import ARCH_REGISTRY

from dblr_plugin.archs.traits import NetworkTraits
from dblr_plugin.benchmark.record import MethodFolder
from dblr_plugin.errors import DBLRError, nearest, raise_faults
from dblr_plugin.evaluation.protocols import PROTOCOLS, Protocol
from dblr_plugin.options.option_file import check_section, check_values
from dblr_plugin.weights.shipped import SHIPPED, find_weights
from dblr_plugin.yaml_file import Located, Override, apply, import_files, read_option_file

__all__ = ['BATCH', 'RATE', 'Method', 'settle_methods']

BATCH, RATE = 'datasets.train.batch_size_per_gpu', 'train.optim_g.lr'
_DATA = ('dataroot_lq', 'dataroot_gt', 'meta_info_file')


class MethodSection(TypedDict, total=False):
    """An entry of ``methods``."""

    options: str  # an option file; or
    network_g: dict  # a network that needs no training
    set: dict  # settings, as for dblr train --set: train.total_iter: 1000
    weights: str  # a checkpoint, or a name of `dblr weights`; used without training
    pretrained_from: str  # the method whose weights training starts from


@dataclass(frozen=True)
class Method:
    """A method with its final options.

    Attributes:
        name: Name in reports.
        folder: Its files.
        train: Training options; None if nothing is trained.
        test: Test options; ``path.pretrain_network_g`` names the weights that training will write.
        start: The method whose weights training starts from.
        files: Source files of the options.
        changes: The option file's values of ``BATCH`` and ``RATE``, if the benchmark file changes them.
    """

    name: str
    folder: MethodFolder
    train: dict | None
    test: dict
    start: str | None
    files: tuple[Path, ...]
    changes: dict[str, object]

    @property
    def training(self) -> dict:
        """Training options of a method that is trained."""
        assert self.train is not None
        return self.train

    @property
    def train_set(self) -> dict | None:
        """Options of the training set."""
        return None if self.train is None else self.train['datasets']['train']

    @property
    def test_set(self) -> dict:
        """Options of the test set."""
        return next(iter(self.test['datasets'].values()))

    @property
    def weights(self) -> Path | None:
        """The checkpoint to test."""
        path = self.test['path']['pretrain_network_g']
        return None if path is None else Path(path)


def settle_methods(root: Located, name: str, protocols: list[Protocol], prepare: str | None) -> dict[str, Method]:
    """Builds and checks the methods of a benchmark file.

    Args:
        root: The file, with its own keys already checked.
        name: Name of the benchmark.
        protocols: The protocols to score by.
        prepare: Command that creates the data, quoted in messages about missing data.

    Returns:
        Name -> method, each after the one it starts from.

    Raises:
        DBLRError: One message lists the first fault of each method, with file and line.
    """
    return _Methods(root, name, protocols, prepare).settled()


@dataclass(frozen=True)
class _Setting(Override):
    """A setting of the benchmark file; ``text`` is its key."""

    value: Located

    @property
    def origin(self) -> str:
        return self.value.where

    def parsed(self) -> tuple[list[str], Located]:
        # each method gets its own copy: settings may modify each other
        return self.text.split('.'), copy.deepcopy(self.value)


def _settings(entries: dict[str, Located]) -> list[_Setting]:
    return [_Setting('set', str(key), entry) for key, entry in entries.items()]


class _Methods:
    """Builds the methods of a benchmark file."""

    def __init__(self, root: Located, name: str, protocols: list[Protocol], prepare: str | None) -> None:
        self.entries = root.value['methods'].value
        self.common = _settings(root.value.get('set', Located(None, root.where)).entries('set'))
        self.name, self.protocols, self.prepare = name, protocols, prepare
        self.faults: list[str] = []

    def settled(self) -> dict[str, Method]:
        """Returns all methods, each after the one it starts from; raises DBLRError for faults."""
        for check in (self._section, self._start):
            for name in self.entries:
                self._collect(check, name)
            raise_faults(self.faults, 'methods')
        methods = [self._collect(self._method, name) for name in self._ordered()]
        raise_faults(self.faults, 'methods')
        self._compare(methods)
        raise_faults(self.faults, 'methods')
        return {method.name: method for method in methods}

    def _collect(self, check: Callable, name: str) -> Any:
        """Returns what a check of a method returns, or None after collecting its fault."""
        try:
            return check(name, self.entries[name])
        except DBLRError as error:
            # methods may share a fault
            self.faults += [str(error)] if str(error) not in self.faults else []
            return None

    def _section(self, name: str, here: Located) -> None:
        trail = f'methods.{name}'
        check_section(here, MethodSection, trail)
        if not _slug(name) or '\n' in str(name):
            here.fail(f'{trail}: a method needs a name with letters or digits, on one line')
        same = next(other for other in self.entries if _slug(other).lower() == _slug(name).lower())
        if same != name:
            here.fail(f"{trail}: would share the folder {_slug(name)} with '{same}'; rename one")
        if ('options' in here.value) == ('network_g' in here.value):
            here.fail(f'{trail} needs either options, an option file, or network_g, a network without training')
        if 'pretrained_from' in here.value and not self._is_trained(name):
            here.value['pretrained_from'].fail(f'{trail} is not trained, so pretrained_from has no effect; remove it')

    def _start(self, name: str, here: Located) -> None:
        trail, seen, start = f'methods.{name}.pretrained_from', [name], self._start_of(name)
        if start is None:
            return
        entry = here.value['pretrained_from']
        if start not in self.entries:
            entry.fail(f"{trail}: no method is called '{start}'{nearest(start, self.entries)}")
        if not self._is_trained(start) and 'weights' not in self.entries[start].value:
            entry.fail(f'{trail}: {start} has no weights')
        while start is not None and start in self.entries:
            if start in seen:
                entry.fail(f'{trail}: {" <- ".join([*seen, start])} start from each other; remove one pretrained_from')
            seen.append(start)
            start = self._start_of(start)

    def _is_trained(self, name: str) -> bool:
        return 'options' in self.entries[name].value and 'weights' not in self.entries[name].value

    def _start_of(self, name: str) -> str | None:
        entry = self.entries[name].value.get('pretrained_from')
        return None if entry is None else entry.value

    def _ordered(self) -> list[str]:
        ordered: dict[str, None] = {}

        def add(name: str) -> None:
            if (start := self._start_of(name)) is not None:
                add(start)
            ordered[name] = None

        for name in self.entries:
            add(name)
        return list(ordered)

    def _method(self, name: str, here: Located) -> Method:
        start = self._start_of(name)
        own = _settings(here.value.get('set', Located(None, here.where)).entries(f'methods.{name}.set'))
        # training runs are validated alike unless the file's own settings say otherwise
        alike = _setting('val.protocol', self.protocols[0].name, here)
        named = [_setting('name', self._run_name(name), here)]
        if start is not None:
            named.append(_setting('path.pretrain_network_g', str(self._weights(start)), here))
        root = read_option_file(here.value['options'].value) if 'options' in here.value else _without_training(here)
        root.value = root.entries('')
        before = _values(root, (BATCH, RATE))
        apply([alike, *self.common, *own, *named], root)
        if 'options' not in here.value:
            _fit_to_network(root)
        train = check_values(root, is_train=True) if self._is_trained(name) else None
        if train is not None:
            _check_starts(root, train, start)
        tested = self._tested(name, root)
        test = check_values(tested, is_train=False)
        for options, place in ((train, root), (test, tested)):
            for phase, data_set in (options or {'datasets': {}})['datasets'].items():
                self._check_data(data_set, f'datasets.{phase}', place)
        option_files = [Path(here.value['options'].value)] if 'options' in here.value else []
        files = (*option_files, *map(Path, test.get('imports') or ()))
        after = _values(root, (BATCH, RATE))
        changes = {key: value for key, value in before.items() if after.get(key) != value}
        folder = MethodFolder(Path('benchmarks', self.name, _slug(name)))
        return Method(str(name), folder, train, test, start, files, changes)

    def _run_name(self, name: str) -> str:
        return f'{self.name}_{_slug(name)}'

    def _weights(self, name: str) -> Path | None:
        entry = self.entries[name].value
        if 'weights' in entry:
            given = entry['weights'].value
            return find_weights(given) if given in SHIPPED else Path(given)
        return Path('experiments', self._run_name(name), 'models/net_g_latest.pth') if self._is_trained(name) else None

    def _tested(self, name: str, root: Located) -> Located:
        """Builds test options from the relevant parts of training or test options."""
        here, sets = self.entries[name], root.at('datasets').entries('datasets')
        scored = {phase: entry for phase, entry in sets.items() if str(phase).split('_')[0] in ('val', 'test')}
        if len(scored) != 1:
            found = ', '.join(scored) or 'none'
            here.fail(
                f'methods.{name}: a benchmark has one data set to test on, and datasets has {found}; the option file '
                'and set must name the same one'
            )
        weights = self._weights(name)
        if 'weights' in here.value and weights is not None and not weights.is_file():
            here.value['weights'].fail(f'methods.{name}.weights: {weights} is not a file')
        path = {'pretrain_network_g': weights and str(weights), 'param_key_g': 'params_ema', 'strict_load_g': True}
        val: dict = {'save_img': False, 'protocol': [protocol.name for protocol in self.protocols]}
        own = PROTOCOLS[self.protocols[0].name].metrics
        metrics = {name: dict(asked) for name, asked in self.protocols[0].metrics.items() if name not in own}
        val |= {'metrics': metrics} if metrics else {}
        taken = ('model_type', 'scale', 'num_gpu', 'manual_seed', 'imports', 'network_g')
        options = {
            'name': Located(f'{self._run_name(name)}_test', here.where),
            **{key: root.value[key] for key in taken if key in root.value},
            'datasets': Located(scored, root.at('datasets').where),
            'path': _located(path, here.where),
            'val': _located(val, here.where),
        }
        multiple = root.at('val.pad_multiple')
        if not isinstance(multiple.value, dict):
            options['val'].value['pad_multiple'] = multiple
        return Located(options, root.where)

    def _check_data(self, data_set: dict, trail: str, root: Located) -> None:
        how = f'; {self.prepare} makes it' if self.prepare else ''
        for key in _DATA:
            path = data_set.get(key)
            if path is not None and not Path(path).exists():
                message = f'{trail}.{key}: {path} does not exist (looked up from {Path.cwd()}){how}'
                root.at(f'{trail}.{key}').fail(message)
        if data_set.get('dataroot_gt') is None:
            root.at(trail).fail(f'{trail}.dataroot_gt is missing: scores need the ground truth')

    def _compare(self, methods: Iterable[Method]) -> None:
        """Adds a fault for each method with different data, as its figures would not be comparable."""
        seen: dict[str, tuple[str, list]] = {}
        for method in methods:
            for section, data_set in (('datasets.train', method.train_set), ('datasets.val', method.test_set)):
                if data_set is not None:
                    data = [data_set.get(key) for key in _DATA]
                    other, first = seen.setdefault(section, (method.name, data))
                    if data != first:
                        where = self.entries[method.name].where
                        self.faults.append(
                            f'{where}: methods.{method.name}: {section} is {_paths(data)}, and {_paths(first)} for '
                            f"'{other}'; put it into set, for all methods"
                        )


def _paths(data: Iterable[str | None]) -> str:
    return ', '.join(filter(None, data))


def _values(root: Located, trails: Iterable[str]) -> dict[str, object]:
    """Returns the values at these places, except sections."""
    found = {trail: root.at(trail).value for trail in trails}
    return {trail: value for trail, value in found.items() if not isinstance(value, dict)}


def _slug(name: str) -> str:
    return re.sub(r'[^A-Za-z0-9.-]+', '_', str(name)).strip('._')


def _located(content: object, where: str) -> Located:
    if isinstance(content, dict):
        return Located({key: _located(value, where) for key, value in content.items()}, where)
    return Located(content, where)


def _setting(key: str, value: str, here: Located) -> _Setting:
    return _Setting('set', key, Located(value, here.where))


def _without_training(here: Located) -> Located:
    """Wraps a network that needs no training in options."""
    data_set = {'name': 'test', 'type': 'VideoDeblurTestDataset'}
    frame = {'model_type': 'VideoDeblurModel', 'scale': 1, 'num_gpu': 'auto', 'manual_seed': 0}
    root = _located({**frame, 'datasets': {'val': data_set}, 'path': {}, 'val': {}}, here.where)
    root.value['network_g'] = here.value['network_g']
    return root


def _fit_to_network(root: Located) -> None:
    """Sets the windows that the network needs in the data set, as an option file would."""
    import_files(root.value['imports'].value if 'imports' in root.value else ())
    network, data_set = root.value['network_g'].plain(), root.at('datasets.val')
    if network.get('type') in ARCH_REGISTRY and isinstance(data_set.value, dict):
        traits = NetworkTraits.of(network)
        for key, default in (('num_frame', 5), ('causal', False), ('flow', False)):
            if getattr(traits, key) != default:
                data_set.value.setdefault(key, Located(getattr(traits, key), root.value['network_g'].where))


def _check_starts(root: Located, train: dict, start: str | None) -> None:
    """Rejects a training with missing pretrained networks, except those another method will train."""
    for key, path in train['path'].items():
        is_made = key == 'pretrain_network_g' and start is not None
        if key.startswith('pretrain_network_') and path is not None and not is_made and not Path(path).is_file():
            root.at(f'path.{key}').fail(f'path.{key}: {path} does not exist; write pretrained_from: METHOD, or ~')
