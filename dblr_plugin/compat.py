"""Fixes for stock BasicSR on current Python, torch and torchvision: one small function per defect.

This module imports nothing else of the plugin and may be executed on its own: the shim that ``dblr link`` writes into
a checkout runs it before BasicSR is imported.
"""

from __future__ import annotations

import datetime
import functools
import gc
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import re
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ['deferred', 'light_import', 'prepare_import', 'repair_distributed']


@contextmanager
def light_import() -> Iterator[None]:
    """Context that makes ``import basicsr`` possible and faster: rarely used modules are imported on first use."""
    collects = gc.isenabled()
    gc.disable()  # what imports make is kept; looking through it for garbage takes a tenth of their time
    try:
        prepare_import()
        import numpy as np

        with (
            np.errstate(),  # BasicSR turns off warnings of division, for the whole process
            deferred('scipy.stats', 'multivariate_normal'),
            deferred('scipy.special', 'gamma'),
            deferred('scipy.ndimage.filters', 'convolve'),
        ):
            yield
        _defer_compiler()
    finally:
        if collects:
            gc.enable()


def prepare_import() -> None:
    """Makes ``import basicsr`` possible. Must run before it; further calls change nothing."""
    _alias_functional_tensor()
    _alias_distutils()


@contextmanager
def deferred(module: str, name: str) -> Iterator[None]:
    """Context in which ``from module import name`` gives a stand-in, and the slow module itself is not imported.

    It is imported when the stand-in is called or asked for an attribute, or when anything else is imported from it.

    Args:
        module: A submodule of a package that can be imported.
        name: A function or an object in it, which the importing modules only call or take attributes of.
    """
    if module in sys.modules:
        yield
        return

    def real() -> Any:
        return getattr(importlib.import_module(module), name)

    class StandIn:
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return real()(*args, **kwargs)

        def __getattr__(self, attribute: str) -> Any:
            return getattr(real(), attribute)

    class Module(types.ModuleType):
        def __getattr__(self, attribute: str) -> Any:
            if attribute.startswith('__'):  # asked for by the import system
                raise AttributeError(attribute)
            remove()
            return getattr(importlib.import_module(self.__name__), attribute)

    parts = module.split('.')
    paths = ['.'.join(parts[:length]) for length in range(2, len(parts) + 1)]
    modules = {path: Module(path) for path in paths}
    setattr(modules[module], name, StandIn())

    def remove() -> None:
        for path, stand_in in modules.items():
            if sys.modules.get(path) is stand_in:
                del sys.modules[path]

    sys.modules.update(modules)
    try:
        yield
    finally:
        remove()


class _Submodules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports a deferred package before the first submodule that is asked for, which its own import may load already.

    Args:
        package: Name of the package.
        folders: ``__path__`` of its stand-in.
        load: Imports a module in place of the stand-in.
    """

    def __init__(self, package: str, folders: object, load: Callable[[str], types.ModuleType]) -> None:
        self.package, self.folders, self.load = package, folders, load

    def find_spec(self, path: str, folders: object, target: object = None) -> importlib.machinery.ModuleSpec | None:
        if folders is not self.folders:
            return None
        self.load(self.package)
        sys.meta_path.remove(self)
        self.module = importlib.import_module(path)
        self.spec = self.module.__spec__
        # the import system loads what the module's spec says, and must not load it a second time
        spec = importlib.util.spec_from_loader(path, self)
        vars(self.module)['__spec__'] = spec  # the module of settings refuses new attributes
        return spec

    def create_module(self, spec: object) -> types.ModuleType:
        return self.module

    def exec_module(self, module: types.ModuleType) -> None:
        vars(module)['__spec__'] = self.spec


def _defer_compiler() -> None:
    """Keeps torch from importing its compiler, which takes seconds and 160 MB, before something uses it.

    Steps of optimisers and parts of the meta device only tell it what it must not compile; starting processes and
    DistributedDataParallel only clear its cache and ask for a setting. That is answered here as it would answer.
    """
    name = 'torch._dynamo'
    if name in sys.modules:
        return

    def real(path: str) -> types.ModuleType:
        if sys.modules.get(name) is compiler:
            del sys.modules[name]
        return importlib.import_module(path)

    class StandIn(types.ModuleType):
        def __getattr__(self, attribute: str) -> Any:
            if attribute.startswith('__'):  # asked for by the import system
                raise AttributeError(attribute)
            return getattr(real(self.__name__), attribute)

    def disable(function: Any, *args: Any, **kwargs: Any) -> Any:
        disabled = functools.cache(lambda: real(name).disable(function, *args, **kwargs))
        return lambda *a, **k: (function if sys.modules.get(name) is compiler else disabled())(*a, **k)

    def stand_in(path: str, **attributes: Any) -> types.ModuleType:
        module = StandIn(path)
        vars(module).update(attributes)
        return module

    compiler = stand_in(
        name,
        __spec__=importlib.util.find_spec(name),
        __path__=[],  # makes it a package
        disable=disable,
        graph_break=lambda *_args: None,
        trace_rules=stand_in(f'{name}.trace_rules', clear_lru_cache=lambda: None),
        utils=stand_in(f'{name}.utils', get_optimize_ddp_mode=lambda: 'ddp_optimizer'),
    )
    sys.modules[name] = compiler
    sys.meta_path.insert(0, _Submodules(name, compiler.__path__, real))


def _alias_functional_tensor() -> None:
    """Provides ``torchvision.transforms.functional_tensor``, removed in torchvision 0.17, for BasicSR <= 1.4.2."""
    name = 'torchvision.transforms.functional_tensor'
    import torch  # noqa: F401

    # torchvision imports torch's compiler for this function, which would be a third of the start
    with deferred('torch._dynamo.utils', 'is_compile_supported'):
        import torchvision  # noqa: F401
    if name in sys.modules or importlib.util.find_spec(name) is not None:
        return
    from torchvision.transforms import functional

    alias: Any = types.ModuleType(name)
    alias.rgb_to_grayscale = functional.rgb_to_grayscale
    sys.modules[name] = alias


def _alias_distutils() -> None:
    """Provides ``LooseVersion`` of distutils, removed in Python 3.12, for all versions of BasicSR."""
    if 'distutils' in sys.modules or importlib.util.find_spec('distutils') is not None:
        return
    from packaging.version import Version

    package: Any = types.ModuleType('distutils')
    module: Any = types.ModuleType('distutils.version')
    # BasicSR only compares torchvision's release number, which any packaging version can do
    module.LooseVersion = Version
    package.version = module
    sys.modules.update({'distutils': package, 'distutils.version': module})


def repair_distributed(timeout: float | None = None, on_cpu: bool = False) -> None:
    """Lets torchrun and srun work on CPUs: BasicSR (all versions) forces nccl and divides by the number of GPUs.

    Args:
        timeout: Seconds after which a collective operation fails if not all processes have joined; None for torch's
            default (10 minutes for nccl, 30 for gloo).
        on_cpu: Whether the processes use no GPU, even if there is one.
    """
    from basicsr.utils import dist_util

    dist_util._init_dist_pytorch = functools.partial(_init_process_group, timeout=timeout, on_cpu=on_cpu)
    dist_util._init_dist_slurm = functools.partial(_init_under_slurm, timeout=timeout, on_cpu=on_cpu)


def _init_process_group(backend: str = 'nccl', timeout: float | None = None, on_cpu: bool = False) -> None:
    import torch

    if torch.cuda.is_available() and not on_cpu:
        # LOCAL_RANK instead of BasicSR's RANK modulo the number of GPUs also works on nodes of unequal size
        torch.cuda.set_device(int(os.environ.get('LOCAL_RANK', 0)))
    else:
        backend = 'gloo'
    limit = None if timeout is None else datetime.timedelta(seconds=timeout)
    torch.distributed.init_process_group(backend=backend, timeout=limit)


def _init_under_slurm(backend: str = 'nccl', port: int | None = None, **settings: Any) -> None:
    """Gives torch what srun says. BasicSR asks ``scontrol`` for the first node, which containers lack."""
    import torch

    first_node = re.sub(r'\[(\d+)[^]]*\]', r'\1', os.environ['SLURM_NODELIST']).split(',')[0]  # gpu[03-05,8] -> gpu03
    os.environ |= {
        'RANK': os.environ['SLURM_PROCID'],
        'WORLD_SIZE': os.environ['SLURM_NTASKS'],
        # srun may show each process only its own GPU
        'LOCAL_RANK': str(int(os.environ['SLURM_LOCALID']) % max(1, torch.cuda.device_count())),
        'MASTER_ADDR': os.environ.get('MASTER_ADDR', first_node),
        'MASTER_PORT': str(port or os.environ.get('MASTER_PORT', 29500)),
    }
    _init_process_group(backend, **settings)
