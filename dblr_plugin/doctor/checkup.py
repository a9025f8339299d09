"""The list of all checks, in the order of the report."""

from __future__ import annotations

from functools import partial

from dblr_plugin.doctor import data, devices, machine, plugin, software
from dblr_plugin.doctor.examine import Check

__all__ = ['checks']

_PACKAGE_NEEDS = {
    'torchvision': ('torch', 'numpy', 'pillow'),
    'basicsr': ('numpy', 'opencv-python', 'pyyaml', 'lmdb', 'tqdm', 'torch', 'torchvision'),
}


def checks(opt: str | None = None) -> list[Check]:
    """Returns what there is to check.

    Args:
        opt: An option file whose data and weights are to be checked too.
    """
    found = [*_software(), *_machine(), *_processes(opt)]
    return found if opt is None else [*found, *_run(opt)]


def _software() -> list[Check]:
    packages = 'Python and packages'
    together = 'BasicSR and the plugin'
    return [
        Check(packages, 'Python', software.find_python),
        *(
            Check(packages, name, partial(software.find_package, name), needs=_PACKAGE_NEEDS.get(name, ()))
            for name in software.MODULES
        ),
        Check(packages, 'optional packages', software.find_extras),
        Check(together, 'which basicsr', plugin.find_basicsr, needs=('basicsr',)),
        Check(together, 'registered classes', plugin.find_registered, needs=('basicsr', 'pillow')),
        Check(together, 'operators', plugin.find_operators, needs=('torchvision',)),
    ]


def _machine() -> list[Check]:
    subject = 'This machine'
    return [
        Check(subject, 'processor', machine.find_processor, needs=('torch',)),
        Check(subject, 'GPUs', devices.find_gpus, needs=('torch',)),
        Check(subject, 'space', machine.find_space),
        Check(subject, 'compiler', machine.find_compiler),
    ]


def _processes(opt: str | None) -> list[Check]:
    subject = 'Starting a training'
    return [
        Check(subject, 'backends', devices.find_backends, needs=('torch',)),
        Check(subject, 'command', partial(devices.find_start, opt), needs=('torch',)),
    ]


def _run(opt: str) -> list[Check]:
    subject = opt
    readable = ('option file', 'registered classes')
    return [
        Check(subject, 'option file', partial(data.find_file, opt), needs=('pyyaml',)),
        Check(subject, 'options', partial(data.find_options, opt), needs=readable),
        # every frame's header is read, which a network drive may take its time for
        Check(subject, 'data', partial(data.find_data, opt), needs=readable, seconds=900),
        Check(subject, 'loader workers', partial(data.find_workers, opt), needs=(*readable, 'data'), seconds=900),
        Check(subject, 'weights', partial(data.find_weights, opt), needs=readable),
        Check(subject, 'output folder', partial(data.find_output, opt), needs=('option file',)),
    ]
