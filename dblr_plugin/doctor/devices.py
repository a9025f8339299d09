"""GPUs, and starting a training on one or several."""

from __future__ import annotations

import os
import shutil
import socket
import warnings
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from dblr_plugin.doctor.findings import Finding, fault, note, ok, pip, reason

__all__ = ['find_backends', 'find_gpus', 'find_start']

_DRIVER_FILES = ('/proc/driver/nvidia/version', '/dev/nvidiactl')
_REINSTALL = pip('install', '--upgrade', '--force-reinstall', 'torch', 'torchvision')


def find_gpus() -> Iterator[Finding]:
    """Every CUDA device with a computation done on it; where there is none, why."""
    import torch

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        usable = torch.cuda.is_available()
    if not usable:
        yield _why_no_gpu(torch.__version__, torch.version.cuda, [str(w.message) for w in caught])
        return
    for number in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(number)
        text = (
            f'cuda:{number} {properties.name}, {properties.total_memory / 2**30:.0f} GiB, '
            f'capability {properties.major}.{properties.minor}'
        )
        try:
            total = (torch.ones(64, 64, device=f'cuda:{number}') @ torch.ones(64, 64, device=f'cuda:{number}')).sum()
            if total.item() != 64**3:
                raise RuntimeError(f'a sum is {total.item()} instead of {64**3}')
        except RuntimeError as error:
            yield fault(
                f'{text}: it does not compute ({reason(error)})',
                f'torch {torch.__version__} is built for {" ".join(torch.cuda.get_arch_list())}; install one for this '
                'GPU, or hide the GPU with CUDA_VISIBLE_DEVICES:',
                _REINSTALL,
            )
        else:
            yield ok(text)


def _why_no_gpu(version: str, cuda: str | None, warned: list[str]) -> Finding:
    driver, card = _driver(), _card()
    hidden = os.environ.get('CUDA_VISIBLE_DEVICES')
    if hidden is not None and cuda and driver:
        return note(f'no GPU: CUDA_VISIBLE_DEVICES is {hidden!r}', 'to use them:', 'unset CUDA_VISIBLE_DEVICES')
    if cuda is None and (driver or card):
        return fault(
            f'torch {version} is a build without CUDA, but this machine has an NVIDIA GPU ({driver or card})',
            'install a build for CUDA, torch and torchvision from the same place:',
            _REINSTALL,
        )
    if driver:
        why = f' ({warned[0].split(". ")[0].splitlines()[0]})' if warned else ''
        return fault(
            f'torch {version} is built for CUDA {cuda} and finds no GPU, but there is an NVIDIA driver ({driver}){why}',
            'update the driver or install a torch for an older CUDA; in a container, pass the GPUs on; then look at:',
            'nvidia-smi',
            'docker run --gpus all ...',
        )
    if card:
        return note(
            f'no GPU is usable: {card} is on the bus, but there is no NVIDIA driver',
            'to use it, install the driver; in a container, pass it on: docker run --gpus all ...',
        )
    return ok('no GPU: networks run on the CPU')


def _driver() -> str | None:
    """What shows that an NVIDIA driver is installed."""
    return next((path for path in _DRIVER_FILES if Path(path).exists()), None) or shutil.which('nvidia-smi')


def _card() -> str | None:
    """An NVIDIA display controller on the PCI bus."""
    for device in Path('/sys/bus/pci/devices').glob('*'):
        try:
            vendor, kind = ((device / name).read_text().strip() for name in ('vendor', 'class'))
        except OSError:
            continue
        if vendor == '0x10de' and kind.startswith('0x03'):
            return f'NVIDIA device {device.name}'
    return None


def find_backends() -> Iterator[Finding]:
    """Starts a group of one process with each backend that a training may use."""
    import torch
    from torch import distributed

    if not distributed.is_available():
        yield fault('this torch is built without torch.distributed', 'install another build:', _REINSTALL)
        return
    yield _started('gloo', 'cpu')
    if torch.cuda.is_available():
        if distributed.is_nccl_available():
            yield _started('nccl', 'cuda')
        else:
            yield fault('this torch is built without nccl', 'several GPUs need it; install another build:', _REINSTALL)


def _started(backend: str, device: str) -> Finding:
    import torch
    from torch import distributed

    try:
        address = f'tcp://127.0.0.1:{_free_port()}'
        distributed.init_process_group(
            backend, init_method=address, rank=0, world_size=1, timeout=timedelta(seconds=20)
        )
        number = torch.ones(1, device=device)
        distributed.all_reduce(number)
        distributed.destroy_process_group()
    except (RuntimeError, OSError, ValueError) as error:
        return fault(
            f'{backend} does not start: {reason(error)}',
            'processes find each other by the host name; where it has no address, name the network interface:',
            f'export {backend.upper()}_SOCKET_IFNAME=lo',
        )
    return ok(f'{backend} starts, for training in several processes')


def find_start(opt: str | None) -> Iterator[Finding]:
    """The command that trains on all GPUs there are."""
    import torch

    gpus, file = torch.cuda.device_count(), opt or 'options/train_DBLRNet.yml'
    if gpus > 1:
        yield ok(
            f'to train on the {gpus} GPUs of this machine:',
            f'torchrun --nproc_per_node={gpus} -m dblr_plugin.train -opt {file}',
        )
    else:
        yield ok(f'to train on the {"GPU" if gpus else "CPU"} of this machine:', f'dblr train -opt {file}')


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]
