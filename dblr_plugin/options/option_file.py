"""Checks an option file, with command-line settings applied, against the schema and the classes it names."""

from __future__ import annotations

import inspect
import logging
import re
import types
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, NoReturn, Union, get_args, get_origin, get_type_hints, is_typeddict

import basicsr
from basicsr.utils.registry import DATASET_REGISTRY, MODEL_REGISTRY

from dblr_plugin.data.video_deblur_test_dataset import VideoDeblurTestDataset
from dblr_plugin.errors import DBLRError, nearest, raise_faults
from dblr_plugin.models.video_deblur_model import VideoDeblurModel
from dblr_plugin.options.conflicts import conflicts
from dblr_plugin.options.schema import LOSS, METRIC, TEST_SETS, TRAIN_SETS, Options, RequiredWhen, TestSet, TrainSet
from dblr_plugin.value_types import ComponentKind, fault, fits, registered, whole
from dblr_plugin.weights.shipped import SHIPPED, find_weights
from dblr_plugin.yaml_file import Located, Override, apply, import_files, read_option_file

__all__ = ['check_option_file', 'check_section', 'check_values']

_log = logging.getLogger(__name__)


def check_option_file(path: str | Path, is_train: bool, overrides: Sequence[Override] = ()) -> dict | None:
    """Checks a YAML option file. If its model is a registered class that is not ours, it is left to BasicSR.

    Args:
        path: The file.
        is_train: Whether it is for training; testing needs other sections.
        overrides: Settings from the command line.

    Returns:
        The options to pass to BasicSR; None if the model is not ours.

    Raises:
        DBLRError: The file has faults; the message gives file and line (or the setting), the key and the fix. A file
            for BasicSR's models is only read, and its ``imports`` are imported.
    """
    root = read_option_file(path)
    root.value = root.entries('')
    if not _is_ours(_model_class(root)):
        _import_own_files(root)  # they may register the model, or classes that BasicSR's needs
        cls = _model_class(root)
        if cls is not None and not _is_ours(cls):
            _refuse_overrides(overrides, f'{root.value["model_type"].value} of {path}')
            return None
    apply(overrides, root)
    return check_values(root, is_train)


def check_values(root: Located, is_train: bool) -> dict:
    """Checks an option file's values as :func:`check_option_file` does; returns the options to pass to BasicSR."""
    _import_own_files(root)
    checker = _Checker(is_train)
    checker.check(root)
    checker.raise_all()
    options = root.plain()
    for trail, message in conflicts(options, is_train):
        with checker.recording():
            root.at(trail).fail(f'{trail} {message}')
    checker.raise_all()
    if options.get('val') is None:
        options.pop('val', None)  # BasicSR's --debug expects a section
    path = options.get('path') or {}
    for key in path.keys() & {'pretrain_network_g', 'pretrain_network_d'}:
        if path[key] in SHIPPED:
            path[key] = str(find_weights(path[key]))
    for phase, cls in checker.foreign.items():
        where = root.at(f'datasets.{phase}').where
        options['datasets'][phase] = _ForeignSection(options['datasets'][phase], f'{where}: datasets.{phase}', cls)
    return options


def _model_class(root: Located) -> Callable | None:
    """Returns the class of ``model_type``; None if there is none of that name."""
    model = root.entries('').get('model_type', Located(None, '')).plain()
    return registered(MODEL_REGISTRY).get(model) if isinstance(model, str) else None


def _is_ours(cls: Callable | None) -> bool:
    return isinstance(cls, type) and issubclass(cls, VideoDeblurModel)


def _import_own_files(root: Located) -> None:
    """Imports the files in ``imports``, unless its value is invalid, which is reported with the other faults."""
    own_files = root.entries('').get('imports', Located(None, root.where))
    if own_files.value is not None and not fault(own_files.plain(), list[str]):
        try:
            import_files(own_files.value)
        except DBLRError as error:
            own_files.fail(str(error))


def check_section(here: Located, schema: type, trail: str = '') -> None:
    """Checks a section of any YAML file against a TypedDict, as for option files; raises DBLRError."""
    checker = _Checker(is_train=True)
    with checker.recording():
        checker.section(here, schema, trail)
    checker.raise_all()


def _refuse_overrides(overrides: Sequence[Override], what: str) -> None:
    """Rejects our own command-line options for a model that would ignore them."""
    for override in overrides:
        if override.option == '--protocol':
            raise DBLRError(f'--protocol: {what} scores by val.metrics alone; leave it out')
        if override.option == '--set':
            raise DBLRError(f'--set: {what} is not one of dblr_plugin; use --force_yml')


class _Checker:
    """Walks an option file's values and records all faults, as starting a run for each one would take minutes."""

    def __init__(self, is_train: bool) -> None:
        self.faults: list[str] = []
        self.foreign: dict[str, str] = {}  # dataset -> its class, for datasets without a schema
        self.needs = {RequiredWhen.ALWAYS, RequiredWhen.TRAINING if is_train else RequiredWhen.TESTING}
        self.is_train = is_train

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Records a fault raised in the block, and continues after it."""
        try:
            yield
        except DBLRError as error:
            self.faults.append(str(error))

    def raise_all(self) -> None:
        """Raises DBLRError for all faults recorded so far."""
        raise_faults(list(dict.fromkeys(self.faults)), 'options')

    def check(self, root: Located) -> None:
        """Checks the whole file."""
        model = root.value.get('model_type')
        if model is not None:
            with self.recording():
                cls = _class_of(model, registered(MODEL_REGISTRY), 'model_type')
                if not issubclass(cls, VideoDeblurModel):
                    model.fail(f'model_type {model.value} is not one of dblr_plugin; write it into an option file')
        self.section(root, Options, '')
        data_sets = root.value.get('datasets')
        if data_sets is not None and isinstance(data_sets.value, dict):
            self.data_sets(data_sets)

    def section(self, here: Located, schema: type, trail: str) -> None:
        """Checks a section against a TypedDict; an empty one becomes ``{}``, which BasicSR needs."""
        here.value = here.entries(trail)
        annotations = get_type_hints(schema, include_extras=True)
        required = {
            key
            for key, annotation in annotations.items()
            if any(isinstance(mark, RequiredWhen) and mark in self.needs for mark in _parts(annotation)[1])
        }
        self.fields(here, annotations, required, trail)

    def fields(
        self, here: Located, annotations: Mapping[str, Any], required: Collection[str], trail: str, others: bool = False
    ) -> None:
        """Checks keys and values; with ``others``, keys without an annotation may have any value."""
        entries = here.entries(trail)
        missing = set(required) - entries.keys()
        for key, entry in entries.items():
            name = f'{trail}.{key}' if trail else str(key)
            if key in annotations:
                with self.recording():
                    self.value(entry, annotations[key], name)
            elif not others:
                hint = nearest(key, annotations)
                missing = {other for other in missing if hint != nearest(other, [other])}  # misspelt, reported here
                known = f'; known here: {", ".join(sorted(annotations))}'
                with self.recording():
                    entry.fail(f"unknown key '{name}'{hint or known}")
        if missing:
            with self.recording():
                what = ', '.join(sorted(missing))
                here.fail(f'{trail or "the file"} lacks {what}; add {"it" if len(missing) == 1 else "them"}')

    def value(self, here: Located, annotation: Any, trail: str) -> None:
        """Checks a value: a section, a class with its arguments, a mapping of such values, or a leaf."""
        base, marks = _parts(annotation)
        kind = next((mark for mark in marks if isinstance(mark, ComponentKind)), None)
        if here.value is None and fits(None, annotation):
            return
        if is_typeddict(base):
            self.section(here, base, trail)
        elif kind is not None:
            self.component(here, kind, trail)
        elif get_origin(base) is dict:
            for name, entry in here.entries(trail).items():
                self.value(entry, get_args(base)[1], f'{trail}.{name}')
        elif not fits(here.plain(), annotation) and fits(whole(here.value), annotation):
            here.value = whole(here.value)
        else:
            found = fault(here.plain(), annotation)
            if found:
                here.fail(f'{trail} {found}')

    def component(self, here: Located, kind: ComponentKind, trail: str) -> None:
        """Checks a ``type`` and its arguments."""
        self.fields(here, {}, {'type'}, trail, others=True)
        if 'type' not in here.entries(trail):
            return
        cls = _class_of(here.value['type'], kind.classes(), f'{trail}.type')
        if kind is LOSS and not isinstance(cls, type):
            here.value['type'].fail(
                f'{trail}.type is {cls.__name__}, a function; write a class with forward(pred, target)'
            )
        if kind is METRIC and 'img' not in inspect.signature(cls).parameters:
            here.value['type'].fail(
                f'{trail}.type is {cls.__name__}, which has no argument img; name the images of a metric img and img2'
            )
        arguments = kind.arguments(cls)
        annotations = {'type': str} | arguments.annotations
        self.fields(here, annotations, arguments.required, trail, arguments.others)

    def data_sets(self, here: Located) -> None:
        """Checks the sections of ``datasets``; a null one is left out, as a file may not want one of its base's."""
        here.value = {phase: entry for phase, entry in here.value.items() if entry.value is not None}
        kinds = ('train', 'val') if self.is_train else ('test', 'val')
        misnamed = False
        for phase, entry in here.value.items():
            trail = f'datasets.{phase}'
            with self.recording():
                if str(phase).split('_')[0] not in kinds or str(phase).startswith('train_'):
                    misnamed = True
                    what = 'training must be called train, val, val_2'
                    if not self.is_train:
                        what = 'testing must be called test, test_2, val'
                    entry.fail(f'{trail}: the data sets of {what} and so on{nearest(phase, kinds)}')
                self.any_data_set(entry, phase, trail)
        if self.is_train and 'train' not in here.value and not misnamed:
            with self.recording():
                here.fail('datasets lacks train; add it')

    def any_data_set(self, here: Located, phase: str, trail: str) -> None:
        """Checks a dataset; if it is not ours, only its type, as its keys are unknown until it reads them."""
        self.fields(here, {}, {'type'}, trail, others=True)
        if 'type' not in here.entries(trail):
            return
        cls = _class_of(here.value['type'], registered(DATASET_REGISTRY), f'{trail}.type')
        if cls.__module__.startswith('dblr_plugin.'):
            self.data_set(here, cls.__name__, phase == 'train', trail)
        elif phase != 'train' and not (isinstance(cls, type) and issubclass(cls, VideoDeblurTestDataset)):
            here.value['type'].fail(
                f'{trail}.type is {cls.__name__}, which has no clips to restore; write {" or ".join(TEST_SETS)}'
            )
        elif phase != 'train' and cls.__getitem__ is not VideoDeblurTestDataset.__getitem__ and not _reads_frames(cls):
            here.value['type'].fail(
                f'{trail}.type is {cls.__name__}, which changes __getitem__, and networks get their frames from '
                'read_blurry and read_truth; override these instead'
            )
        else:
            self.foreign[phase] = cls.__name__
            _warn_of_misspelt_keys(here, cls, TrainSet if phase == 'train' else TestSet, trail)

    def data_set(self, here: Located, cls: str, is_train: bool, trail: str) -> None:
        """Checks one of our datasets."""
        fitting = TRAIN_SETS if is_train else TEST_SETS
        if cls not in fitting:
            here.value['type'].fail(f'{trail}.type is {cls}, which cannot be used here; write {" or ".join(fitting)}')
        self.section(here, fitting[cls], trail)


def _warn_of_misspelt_keys(here: Located, cls: Callable, section: type, trail: str) -> None:
    """Warns of keys close to those of our data sets that a class of someone else, by its source, does not read."""
    source = ''
    for part in getattr(cls, '__mro__', [cls]):
        with suppress(OSError, TypeError):  # not from a file
            source += inspect.getsource(part)
    known = get_type_hints(section)
    for key, entry in here.value.items():
        hint = nearest(key, known)
        if key not in known and hint and not re.search(rf'\b{re.escape(str(key))}\b', source):
            _log.warning('%s: %s.%s is not read by %s%s', entry.where, trail, key, cls.__name__, hint)


def _reads_frames(cls: type[VideoDeblurTestDataset]) -> bool:
    """Returns whether a data set changes the methods by which frames are read for networks and scores."""
    own = VideoDeblurTestDataset
    return cls.read_blurry is not own.read_blurry or cls.read_truth is not own.read_truth


def _parts(annotation: Any) -> tuple[Any, list[Any]]:
    """Strips ``Annotated`` and ``| None`` from an annotation; returns the rest, and the marks found."""
    marks: list[Any] = []
    while True:
        members = [part for part in get_args(annotation) if part is not types.NoneType]
        if get_origin(annotation) is Annotated:
            annotation, *found = get_args(annotation)
            marks += found
        elif get_origin(annotation) in (Union, types.UnionType) and len(members) == 1:
            annotation = members[0]
        else:
            return annotation, marks


def _class_of(here: Located, classes: Mapping[str, Callable], trail: str) -> Any:
    """Returns the class that a value names."""
    name = here.plain()
    found = fault(name, str)
    if found:
        here.fail(f'{trail} {found}')
    if name not in classes:
        here.fail(
            f"{trail}: no class '{name}' is registered{nearest(name, classes) or '.'} Registered: "
            f'{", ".join(sorted(classes))} (basicsr {basicsr.__version__} imported from {basicsr.__path__[0]})'
        )
    return classes[name]


class _ForeignSection(dict):
    """Options of a third-party class; reading a missing key is reported like any other fault.

    Args:
        values: The keys and values.
        where: Location and name of the section, for messages.
        reader: The class that reads it.
    """

    def __init__(self, values: dict[str, Any], where: str, reader: str) -> None:
        super().__init__(values)
        self.where, self.reader = where, reader

    def __missing__(self, key: str) -> NoReturn:
        raise _MissingKeyError(f'{self.where} lacks {key}, which {self.reader} or its loader needs; add it')

    def __reduce__(self) -> tuple[Any, ...]:
        return _ForeignSection, (dict(self), self.where, self.reader)


class _MissingKeyError(DBLRError, KeyError):
    """A DBLRError, shown in one line, that is also the KeyError that EAFP code expects."""

    __str__ = Exception.__str__
