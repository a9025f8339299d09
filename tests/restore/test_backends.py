"""Every backend gives the result of the network in float32, within its precision."""

import copy
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from unittest import mock

import numpy as np
import pytest
import torch
from basicsr.archs.edvr_arch import EDVR
from networks import build_trained
from torch import Tensor, nn

from dblr_plugin.archs import DBN, BlurryInput, DBLRNet, DeepDeblur, MultiScaleDBLRNet
from dblr_plugin.errors import DBLRError
from dblr_plugin.restore import backends, mnn_forward
from dblr_plugin.restore.backends import (
    FRAMES_WORTH_COMPILING,
    build_forward,
    choose,
    openvino_installed,
)
from dblr_plugin.restore.mnn_forward import MNNForward, mnn_installed
from dblr_plugin.restore.openvino_forward import OpenVINOForward
from dblr_plugin.restore.video_restorer import VideoRestorer

CPU, GPU = torch.device('cpu'), torch.device('cuda')
needs_openvino = pytest.mark.skipif(not openvino_installed(), reason='openvino is not installed')
needs_mnn = pytest.mark.skipif(not mnn_installed(), reason='mnn is not installed')
needs_compiler = pytest.mark.skipif(shutil.which('g++') is None, reason='no C++ compiler')
DECIBELS = {'fp32': 100, 'fp16': 60, 'bf16': 50}
WINOGRAD = 95  # its transforms round, too


def picture(channels: int, h: int, w: int) -> Tensor:
    """Returns a window (1, 5, c, h, w) of smooth texture in [0, 1]."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(5, channels, h // 8 + 1, w // 8 + 1, generator=generator)
    return nn.functional.interpolate(coarse, size=(h, w), mode='bicubic').clamp(0, 1).unsqueeze(0)


def dblrnet(**options) -> nn.Module:
    torch.manual_seed(0)
    net = DBLRNet(**{'num_feat': 16, 'num_block': 2, **options})
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    nn.init.normal_(net.reconstruction[-1].weight, std=0.05)
    return net.eval()


def edvr() -> nn.Module:
    torch.manual_seed(0)
    sizes = {'num_feat': 16, 'num_extract_block': 1, 'num_reconstruct_block': 1, 'deformable_groups': 2}
    net = EDVR(**sizes, hr_in=True, with_predeblur=True).eval()
    for module in net.modules():
        if hasattr(module, 'conv_offset'):  # initially zero, as without motion
            nn.init.normal_(module.conv_offset.weight, std=0.1)
            nn.init.normal_(module.conv_offset.bias)
    return net


NETWORKS = {
    'paper': (dblrnet, 1),
    'skip': (lambda: dblrnet(input_skip=True), 1),
    'single, RGB': (lambda: dblrnet(single=True, groups=4, num_in_ch=3, num_out_ch=3), 3),
    'middle frame': (lambda: BlurryInput(3), 3),
    'DBN': (lambda: build_trained(partial(DBN, num_feat=4)), 3),
    'DeepDeblur': (lambda: build_trained(partial(DeepDeblur, num_feat=4, num_block=1, num_frame=5)), 3),
}
each = pytest.mark.parametrize(('name', 'precision'), [
    (name, precision)
    for name in NETWORKS
    for precision in DECIBELS
    if precision == 'fp32' or name not in ('DBN', 'DeepDeblur')
])  # fmt: skip


def decibels(a: Tensor, b: Tensor) -> float:
    return -10 * torch.log10((a - b).square().mean() + 1e-20).item()


def compare(build, channels: int, backend: str, precision: str, sizes=((48, 64), (32, 48))) -> None:
    net = build()
    weights = copy.deepcopy(net.state_dict())
    forward = build_forward(net, CPU, backend, precision)
    for size in (*sizes, sizes[0]):  # the first size again, as something may be cached for it
        window = picture(channels, *size)
        before = window.clone()
        with torch.no_grad():
            expected = net(window)
        restored = forward(window)
        assert restored.dtype == torch.float32 and restored.shape == expected.shape and not restored.requires_grad
        assert decibels(restored, expected) > (WINOGRAD if backend == 'mnn' else DECIBELS[precision])
        assert torch.equal(window, before)
    assert all(torch.equal(value, weights[key]) for key, value in net.state_dict().items())


@pytest.fixture
def no_fallback(caplog) -> Iterator[None]:
    yield
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


@each
def test_torch_equals_the_network(name, precision):
    compare(*NETWORKS[name], 'torch', precision)


@pytest.mark.slow
@needs_openvino
@each
def test_openvino_equals_the_network(name, precision, no_fallback):
    compare(*NETWORKS[name], 'openvino', precision)


@needs_mnn
@pytest.mark.parametrize('name', [*NETWORKS, 'several scales'])
def test_mnn_equals_the_network(name, no_fallback):
    scales = partial(MultiScaleDBLRNet, num_feat=(8, 16), num_block=(1, 1))
    compare(*NETWORKS.get(name, (lambda: build_trained(scales), 1)), 'mnn', 'fp32', sizes=((48, 64), (33, 45)))


@needs_mnn
def test_mnn_writes_nothing_and_runs_in_any_thread(capfd):
    net = dblrnet()
    forward, windows = MNNForward(net), [picture(1, 32, 48), picture(1, 48, 32)] * 3
    with torch.no_grad(), ThreadPoolExecutor(3) as threads:
        forward(windows[0])
        restored = list(threads.map(forward, windows[1:2])) + [forward(window) for window in windows[2:]]
        for window, found in zip(windows[1:], restored, strict=True):
            assert decibels(found, net(window)) > WINOGRAD
    assert capfd.readouterr() == ('', '')


@pytest.mark.parametrize('forward', [
    pytest.param(lambda net: OpenVINOForward(net, 'fp32'), id='openvino', marks=needs_openvino),
    pytest.param(MNNForward, id='mnn', marks=needs_mnn),
])  # fmt: skip
@pytest.mark.parametrize('sizes', [((32, 48),), ((32, 48), (48, 32))])
def test_threads_get_the_results_of_their_own_windows(forward, sizes):
    run = forward(BlurryInput(1))
    windows = [torch.rand(1, 5, 1, *sizes[number % len(sizes)]) for number in range(24)]
    with ThreadPoolExecutor(4) as threads:
        for window, found in zip(windows, threads.map(run, windows), strict=True):
            assert torch.equal(found, window[:, 2])


@needs_mnn
@needs_openvino
@pytest.mark.slow
def test_auto_runs_in_openvino_what_mnn_cannot(machine, caplog):
    machine(openvino=True, mnn=True)
    net, window = edvr(), picture(3, 32, 48)
    forward = build_forward(net, CPU, 'auto', 'fp32')
    with torch.no_grad(), caplog.at_level(logging.INFO):
        assert decibels(forward(window), net(window)) > DECIBELS['fp32']
    (message,) = [r for r in caplog.records if 'cannot run' in r.getMessage()]
    assert message.levelno == logging.INFO and 'MNN cannot run this network (' in message.getMessage()


@needs_mnn
@pytest.mark.slow
def test_mnn_installs_and_reports_nothing():
    """Its package of tools installs one that reports to its authors."""
    code = (
        'import sys, torch, dblr_plugin; from dblr_plugin.archs import BlurryInput; '
        'from dblr_plugin.restore.backends import build_forward; '
        "build_forward(BlurryInput(1), torch.device('cpu'), 'mnn', 'fp32')(torch.rand(1, 5, 1, 32, 32)); "
        "assert 'MNN' in sys.modules and not any(name.startswith('MNN.tools') for name in sys.modules)"
    )
    subprocess.run([sys.executable, '-c', code], check=True)


@pytest.mark.parametrize('precision', ['fp32', 'bf16'])
def test_torch_equals_edvr(precision):
    compare(edvr, 3, 'torch', precision, sizes=((32, 48),))


@needs_openvino
@pytest.mark.slow
def test_openvino_equals_edvr(no_fallback):
    compare(edvr, 3, 'openvino', 'fp32', sizes=((32, 48),))


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize('precision', ['fp32', 'bf16'])
def test_compile_equals_the_network(precision, no_fallback):
    compare(lambda: dblrnet(num_block=0, tail_conv=False), 1, 'compile', precision, sizes=((48, 64),))


@pytest.mark.parametrize('precision', ['fp32', 'bf16', 'fp16'])
def test_identity_is_bit_identical(precision):
    # an untrained network adds zero to its input, which bf16 must not round to 8 bits
    net = DBLRNet(num_feat=16, num_block=1, input_skip=True).eval()
    window = picture(1, 48, 48)
    assert torch.equal(build_forward(net, CPU, 'torch', precision)(window), window[:, 2])


@needs_openvino
def test_openvino_runs_networks_of_one_frame():
    net, frame = torch.nn.Conv2d(3, 3, 3, padding=1).eval(), picture(3, 48, 64)[:, 0]
    assert decibels(OpenVINOForward(net, 'fp32')(frame), net(frame)) > DECIBELS['fp32']


@needs_openvino
def test_identity_in_openvino_is_not_rounded_to_bf16():
    net = DBLRNet(num_feat=16, num_block=1, input_skip=True).eval()
    window = picture(1, 48, 48)
    assert decibels(build_forward(net, CPU, 'openvino', 'bf16')(window), window[:, 2]) > 75


@pytest.mark.slow
@needs_openvino
def test_openvino_sends_no_telemetry(tmp_path):
    code = (
        'import torch, dblr_plugin; from dblr_plugin.archs import BlurryInput; '
        'from dblr_plugin.restore.backends import build_forward; '
        "build_forward(BlurryInput(1), torch.device('cpu'), 'openvino', 'fp32')(torch.rand(1, 5, 1, 32, 32))"
    )
    done = subprocess.run([sys.executable, '-c', code], env=os.environ | {'HOME': str(tmp_path)}, capture_output=True)
    assert done.returncode == 0 and b'cannot run' not in done.stderr, done.stderr
    assert not (tmp_path / 'intel').exists()


class Unconvertible(nn.Module):
    def forward(self, x):
        return torch.linalg.qr(x[:, 2])[0] @ torch.linalg.qr(x[:, 2])[1]


class FixesSize(nn.Module):
    """Its trace keeps the width of the window that it was traced with."""

    def forward(self, x):
        return x[:, 2] * torch.arange(float(int(x.shape[-1])) // 1).sum()


class FixesSizeOfLittle(nn.Module):
    """Adds something small to the frame that depends on the width, which the trace keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.Sequential(*(nn.Conv2d(1, 1, 3, padding=1) for _ in range(4)))
        for conv in self.convs:
            nn.init.dirac_(conv.weight)

    def forward(self, x):
        return x[:, 2] + 0.05 * self.convs(x[:, 2]) * int(x.shape[-1]) / 64


@pytest.mark.parametrize(
    ('backend', 'title'),
    [pytest.param('openvino', 'OpenVINO', marks=needs_openvino), pytest.param('mnn', 'MNN', marks=needs_mnn)],
)
@pytest.mark.parametrize(
    'net', [Unconvertible(), FixesSize(), FixesSizeOfLittle()], ids=['unknown operation', 'wrong', 'slightly wrong']
)
def test_torch_runs_networks_that_others_cannot(net, backend, title, caplog):
    forward = build_forward(net, CPU, backend, 'fp32')
    for window in (picture(1, 32, 40), picture(1, 48, 32)):
        torch.testing.assert_close(forward(window), net(window))
    warnings = [r.getMessage() for r in caplog.records if r.name.startswith('dblr_plugin.')]
    assert len(warnings) == 1 and f'{title} cannot run this network (' in warnings[0]


def test_failure_of_compile_is_reported_once(caplog):
    def broken(net, **options):
        def forward(window):
            raise RuntimeError('g++ says no\nand more')

        return forward

    net = dblrnet()
    with mock.patch.object(torch, 'compile', broken):
        forward = build_forward(net, CPU, 'compile', 'fp32')
    window = picture(1, 32, 32)
    for _ in range(2):
        torch.testing.assert_close(forward(window), net(window))
    warnings = [r.getMessage() for r in caplog.records]
    assert warnings == ['torch.compile cannot run this network (g++ says no); continuing without it.']


def test_out_of_memory_does_not_fall_back():
    def full(net, **options):
        def forward(window):
            raise MemoryError

        return forward

    with mock.patch.object(torch, 'compile', full):
        forward = build_forward(dblrnet(), CPU, 'compile', 'fp32')
    for _ in range(2):
        with pytest.raises(MemoryError):
            forward(picture(1, 32, 32))


def test_errors_of_the_network_are_raised():
    with pytest.raises(ValueError, match='expects'):
        build_forward(dblrnet(), CPU, 'torch', 'fp32')(torch.rand(1, 3, 1, 32, 32))


@pytest.fixture
def machine(monkeypatch):
    """Returns a function that simulates what this machine has."""

    def setting(
        openvino: bool = False,
        mnn: bool = False,
        bf16: bool = False,
        int8: bool = False,
        compiler: bool = True,
        capability=(8, 0),
    ) -> None:
        monkeypatch.setattr(backends, 'openvino_installed', lambda: openvino)
        monkeypatch.setattr(backends, 'mnn_installed', lambda: mnn)
        monkeypatch.setattr(backends, 'mnn_is_fastest', lambda: mnn)
        monkeypatch.setattr(backends, '_bf16_is_fast', lambda: bf16)
        monkeypatch.setattr(backends, 'int8_is_fast', lambda: int8)
        monkeypatch.setattr(backends, 'nncf_installed', lambda: True)
        monkeypatch.setattr(backends, '_has_compiler', lambda device: compiler)
        monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda device: capability)

    return setting


def test_auto_chooses_backend_and_precision_on_cpus(machine):
    many = FRAMES_WORTH_COMPILING
    for has, frames, expected in (
        ({'openvino': True, 'bf16': True}, 1, ('openvino', 'bf16')),
        ({'openvino': True}, many, ('openvino', 'fp32')),
        ({'openvino': True, 'mnn': True}, 1, ('mnn', 'fp32')),
        ({'openvino': True, 'mnn': True, 'bf16': True}, many, ('openvino', 'bf16')),
        ({'openvino': True, 'int8': True}, many, ('openvino', 'int8')),
        ({'openvino': True, 'int8': True}, many - 1, ('openvino', 'fp32')),
        ({'openvino': True, 'int8': True, 'bf16': True}, many, ('openvino', 'int8')),
        ({'openvino': True, 'int8': True, 'bf16': True}, many - 1, ('openvino', 'bf16')),
        ({'bf16': True}, many, ('compile', 'bf16')),
        ({'bf16': True}, many - 1, ('torch', 'bf16')),
        ({'bf16': True, 'compiler': False}, many, ('torch', 'bf16')),
        ({}, many, ('torch', 'fp32')),
    ):
        machine(**has)
        assert choose(CPU, 'auto', 'auto', frames) == expected
    assert choose(CPU, 'torch', 'fp32') == ('torch', 'fp32')


@pytest.mark.parametrize(('flags', 'installed', 'extra'), [
    ({'avx2'}, (), 'mnn'), ({'avx2'}, ('openvino',), 'mnn'), ({'avx2'}, ('mnn',), None),
    ({'avx2', 'avx512f'}, ('mnn',), 'openvino'), ({'avx2', 'avx512f'}, ('openvino',), None), (set(), (), None),
])  # fmt: skip
def test_faster_backends_that_are_missing_are_named(monkeypatch, caplog, flags, installed, extra):
    for module in (mnn_forward, backends):
        monkeypatch.setattr(module, 'cpu_flags', lambda: flags)
    monkeypatch.setattr(backends, 'openvino_installed', lambda: 'openvino' in installed)
    monkeypatch.setattr(backends, 'mnn_installed', lambda: 'mnn' in installed)
    with caplog.at_level(logging.INFO, 'dblr_plugin'):
        build_forward(dblrnet(), CPU, 'auto', 'fp32')
        build_forward(dblrnet(), CPU, 'torch', 'fp32')
    expected = [] if extra is None else [f"Faster on this processor: pip install 'dblr_plugin[{extra}]'."]
    assert [record.getMessage() for record in caplog.records if 'Faster' in record.getMessage()] == expected


def test_auto_chooses_backend_and_precision_on_gpus(machine):
    for capability, precision in (((9, 0), 'bf16'), ((7, 5), 'fp16'), ((6, 1), 'fp32')):
        machine(openvino=True, capability=capability)
        assert choose(GPU, 'auto', 'auto', FRAMES_WORTH_COMPILING) == ('compile', precision)
        assert choose(GPU, 'auto', 'auto') == ('torch', precision)
    assert choose(torch.device('mps'), 'auto', 'auto', FRAMES_WORTH_COMPILING) == ('torch', 'fp32')


@needs_openvino
@pytest.mark.slow
def test_openvino_devices_are_used_or_refused():
    """Only the CPU can be tested; missing devices are refused before anything is built."""
    net, options = DBLRNet(num_feat=16, num_block=1), {'type': 'DBLRNet', 'num_feat': 16, 'num_block': 1}
    frames = [np.full((32, 32, 3), 100, np.uint8)] * 2
    one, other = (
        list(VideoRestorer(net, options, device=device, precision='fp32').restore(frames))
        for device in ('openvino:CPU', 'cpu')
    )
    assert all((a == b).all() for a, b in zip(one, other, strict=True))
    with pytest.raises(DBLRError, match="OpenVINO has no device 'NPU' here, only CPU"):
        VideoRestorer(net, options, device='openvino:NPU')
    with pytest.raises(DBLRError, match='cannot be used with backend torch'):
        VideoRestorer(net, options, device='openvino:GPU', backend='torch')


def test_unknown_or_unavailable_choices_are_refused(machine):
    machine(openvino=False)
    with pytest.raises(DBLRError, match="no backend 'opnvino'.*did you mean 'openvino'"):
        choose(CPU, 'opnvino', 'auto')
    with pytest.raises(DBLRError, match="no precision 'int9'"):
        choose(CPU, 'auto', 'int9')
    with pytest.raises(DBLRError, match='pip install openvino'):
        choose(CPU, 'openvino', 'auto')
    with pytest.raises(DBLRError, match='pip install mnn'):
        choose(CPU, 'mnn', 'auto')
    for backend in ('openvino', 'mnn'):
        with pytest.raises(DBLRError, match='runs on the CPU, not on cuda'):
            choose(GPU, backend, 'auto')
    machine(mnn=True)
    with pytest.raises(DBLRError, match='mnn takes precision fp32, not bf16'):
        choose(CPU, 'mnn', 'bf16')
