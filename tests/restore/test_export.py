"""``dblr export`` in this process: ONNX files run by onnxruntime, and checkpoints."""

import contextlib
import io
import json
import logging
import re
import sys
import types
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from basicsr.archs import build_network
from basicsr.archs.arch_util import DCNv2Pack
from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from dblr_plugin.archs.traits import NetworkTraits
from dblr_plugin.commands import main
from dblr_plugin.errors import DBLRError
from dblr_plugin.restore.export import _metadata, export_onnx
from dblr_plugin.restore.loading import LoadedNetwork
from dblr_plugin.restore.video_restorer import VideoRestorer
from dblr_plugin.weights.checkpoint import read_checkpoint, save_atomically

NETWORK = {'type': 'DBLRNet', 'num_feat': 16, 'num_block': 1, 'input_skip': True}


def trained(options: dict) -> nn.Module:
    """Returns a network whose layers all have an effect, as after training."""
    torch.manual_seed(0)
    net = build_network(options).eval()
    for module in net.modules():
        if isinstance(module, _BatchNorm):
            module.running_mean.uniform_(-0.3, 0.3)
            module.running_var.uniform_(0.2, 2)
    if options.get('input_skip'):
        nn.init.normal_(net.reconstruction[-1].weight, std=0.02)
    return net


def save(options: dict, folder: Path, **more: object) -> Path:
    path = folder / 'net.pth'
    save_atomically({'params': trained(options).state_dict(), 'network': options, **more}, path)
    return path


def export(*arguments: object) -> list[str]:
    """Runs ``dblr export`` and returns the printed lines."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        main(['export', *map(str, arguments)])
    return printed.getvalue().splitlines()


def run(path: Path, window: torch.Tensor) -> torch.Tensor:
    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    return torch.from_numpy(session.run(['restored'], {'window': window.numpy()})[0])


@pytest.fixture(scope='module')
def weights(tmp_path_factory) -> Path:
    """A checkpoint of a network for Y."""
    return save(NETWORK, tmp_path_factory.mktemp('export'), trained_on='test patterns')


@pytest.fixture(scope='module')
def exported(weights) -> types.SimpleNamespace:
    """The exported ONNX file, and the printed lines."""
    path = weights.with_suffix('.onnx')
    return types.SimpleNamespace(printed=export('--weights', weights, '-o', path), path=path)


@pytest.mark.slow
class TestONNX:
    def test_only_the_comparisons_and_the_file_are_printed(self, exported):
        *compared, last = exported.printed
        found = [re.fullmatch(r'(\d+) x (\d+) pixels: at most (\S+) from PyTorch, (\S+) dB', line) for line in compared]
        sizes = [(int(match[1]), int(match[2])) for match in found]
        assert len(set(sizes)) == 2 and any(height % 2 and width % 2 for height, width in sizes)
        assert all(0 < float(match[3]) < 1e-6 and float(match[4]) > 120 for match in found)
        assert last == f'{exported.path}: net.pth (DBLRNet, trained on test patterns), opset 20'
        assert sorted(path.name for path in exported.path.parent.iterdir()) == ['net.onnx', 'net.pth']
        assert logging.root.manager.disable == logging.NOTSET

    def test_file_states_shapes_and_metadata(self, exported):
        model = onnx.load(exported.path)
        window, restored = model.graph.input[0], model.graph.output[0]
        assert len(model.graph.input) == len(model.graph.output) == 1
        assert sides(window) == [1, 5, 1, 'height', 'width'] and sides(restored) == [1, 1, 'height', 'width']
        assert window.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
        assert [(opset.domain, opset.version) for opset in model.opset_import] == [('', 20)]
        metadata = {entry.key: entry.value for entry in model.metadata_props}
        assert json.loads(metadata.pop('network')) == NETWORK
        assert 'Y of BT.601' in metadata.pop('channels')
        assert metadata == {
            'num_frame': '5', 'restored_frame': '2', 'pad_multiple': '1', 'trained_on': 'test patterns',
        }  # fmt: skip

    def test_file_contains_no_batchnorm_and_no_source_paths(self, exported):
        # two 3D layers, two of the block, two of the tail, three of the reconstruction
        kinds = [node.op_type for node in onnx.load(exported.path).graph.node]
        assert kinds.count('Conv') == 9 and 'BatchNormalization' not in kinds
        assert b'.py' not in exported.path.read_bytes() and b'pkg.' not in exported.path.read_bytes()

    def test_metadata_suffice_to_restore_a_frame(self, exported, weights):
        """An independent NumPy implementation of the metadata's formulas, at a size that the export did not compare."""
        frames = np.random.default_rng(0).integers(60, 200, (5, 45, 58, 3), dtype=np.uint8)
        frames[1:] = (frames[0] * np.linspace(0.99, 1.01, 4)[:, None, None, None]).astype(np.uint8)
        rgb = frames / 255
        y = (rgb @ np.array([65.481, 128.553, 24.966]) + 16) / 255
        session = onnxruntime.InferenceSession(exported.path, providers=['CPUExecutionProvider'])
        restored = session.run(None, {'window': y[None, :, None].astype(np.float32)})[0][0, 0]
        expected = 255 * np.clip(rgb[2] + (restored - y[2])[..., None] * 255 / 219, 0, 1)
        restorer = VideoRestorer.from_weights(weights, device='cpu', backend='torch', precision='fp32')
        found = list(restorer.restore(frames))[2]
        assert np.abs(found - expected).max() < 0.51  # rounded
        assert np.abs(found - frames[2].astype(float)).max() > 3

    def test_causal_rgb_network_is_exported(self, tmp_path):
        options = {'type': 'DBLRNet', 'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 16, 'num_block': 1, 'num_frame': 3}
        options |= {'causal': True, 'single': True, 'groups': 4}
        export('--weights', save(options, tmp_path), '-o', tmp_path / 'net.onnx')
        metadata = {entry.key: entry.value for entry in onnx.load(tmp_path / 'net.onnx').metadata_props}
        assert (metadata['num_frame'], metadata['restored_frame']) == ('3', '2')
        assert metadata['channels'].startswith('R, G, B')
        window = torch.rand(1, 3, 3, 19, 70)
        with torch.no_grad():
            torch.testing.assert_close(run(tmp_path / 'net.onnx', window), trained(options)(window), atol=1e-5, rtol=0)

    def test_deformable_convolution_and_pad_multiple_are_exported(self, tmp_path):
        net, options = Aligned(), {'type': 'EDVR', 'center_frame_idx': 4}
        export_onnx(LoadedNetwork(net, options, Path('ours.pth'), None, 4), tmp_path / 'net.onnx')
        model = onnx.load(tmp_path / 'net.onnx')
        assert sides(model.graph.input[0]) == [1, 5, 3, '4*height', '4*width']
        assert {entry.key: entry.value for entry in model.metadata_props}['restored_frame'] == '4'
        window = torch.rand(1, 5, 3, 60, 44)
        with torch.no_grad():
            torch.testing.assert_close(run(tmp_path / 'net.onnx', window), net(window), atol=1e-5, rtol=0)


class Aligned(nn.Module):
    """Alignment of a causal EDVR in one layer, as exporting the complete network takes a minute."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.align = DCNv2Pack(3, 3, 3, padding=1)
        nn.init.normal_(self.align.conv_offset.weight, std=0.5)

    def forward(self, x):
        assert x.shape[-2] % 4 == 0 and x.shape[-1] % 4 == 0
        small = nn.functional.avg_pool2d(self.align(x[:, 1].contiguous(), x[:, 4].contiguous()), 4)
        return x[:, 4] + nn.functional.interpolate(small, scale_factor=4, mode='bilinear')


def sides(value: onnx.ValueInfoProto) -> list[int | str]:
    return [side.dim_param or side.dim_value for side in value.type.tensor_type.shape.dim]


class Noisy(nn.Module):
    """Gives another result each time."""

    def forward(self, x):
        return x[:, 2] + 0.01 * torch.rand_like(x[:, 2])


class Eighths(nn.Module):
    """Takes only frames with sides of multiples of 8, and amplifies them beyond the range of 8 bits."""

    def __init__(self, num_in_ch: int = 3) -> None:
        super().__init__()
        self.convs = nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(5)))
        for conv in self.convs:
            nn.init.normal_(conv.weight, std=3)

    def forward(self, x):
        return self.convs(nn.functional.pixel_unshuffle(x[:, 2], 8).reshape(x[:, 2].shape))


class Bessel(nn.Module):
    """Uses a function for which ONNX has no operator."""

    def forward(self, x):
        return torch.special.bessel_j0(x[:, 2])


class Halves(nn.Module):
    """Takes only frames with even sides."""

    def forward(self, x):
        assert x.shape[-2] % 2 == 0 and x.shape[-1] % 2 == 0, 'sides must be even'
        return nn.functional.avg_pool2d(x[:, 2], 2)


@pytest.mark.slow
@pytest.mark.parametrize(('net', 'message'), [
    (Noisy, r"net.onnx: not written, since the exported network's output differs \(32 x 34 pixels: at most \S+e-0[23]"),
    (Bessel, r'ours.pth: ONNX cannot hold this Bessel \(.*bessel_j0'),
    (Halves, r'ours.pth: ONNX cannot hold this Halves \(.*\); if its frames must be multiples .*val.pad_multiple'),
])  # fmt: skip
def test_network_that_onnx_cannot_hold_leaves_the_old_file(tmp_path, capfd, net, message):
    (tmp_path / 'net.onnx').write_text('older')
    loaded = LoadedNetwork(net(), {'type': 'BlurryInput'}, Path('ours.pth'), None, 1)
    with pytest.raises(DBLRError, match=message) as caught:
        export_onnx(loaded, tmp_path / 'net.onnx')
    assert '\n' not in str(caught.value) and capfd.readouterr() == ('', '')
    assert [path.name for path in tmp_path.iterdir()] == ['net.onnx']
    assert (tmp_path / 'net.onnx').read_text() == 'older'


class TestCheckpoints:
    def test_safetensors_and_back_to_pth_is_lossless(self, weights, tmp_path):
        lines = export('--weights', weights, '-o', tmp_path / 'net.safetensors')
        assert lines == [f'{tmp_path}/net.safetensors: net.pth (DBLRNet, trained on test patterns)']
        export('--weights', tmp_path / 'net.safetensors', '-o', tmp_path / 'back.pth')
        before, after = read_checkpoint(weights), read_checkpoint(tmp_path / 'back.pth')
        params = after.pop('params')
        assert after == {'network': NETWORK, 'trained_on': 'test patterns', 'format_version': 1}
        assert params.keys() == before['params'].keys()
        assert all(torch.equal(value, before['params'][key]) for key, value in params.items())
        assert all(value.dtype == before['params'][key].dtype for key, value in params.items())

    def test_ema_weights_and_data_of_option_file_and_user_are_exported(self, tmp_path):
        net = trained(NETWORK)
        torch.save(
            {'params': {k: torch.zeros_like(v) for k, v in net.state_dict().items()}, 'params_ema': net.state_dict()},
            tmp_path / 'net.pth',
        )
        (tmp_path / 'net.yml').write_text(json.dumps({'network_g': NETWORK, 'val': {'pad_multiple': 4}}))
        export(
            '--weights', tmp_path / 'net.pth', '-opt', tmp_path / 'net.yml', '-o', tmp_path / 'net.safetensors',
            '--trained-on', 'GoPro',
        )  # fmt: skip
        found = read_checkpoint(tmp_path / 'net.safetensors')
        params = found.pop('params')
        assert found == {'network': NETWORK, 'trained_on': 'GoPro', 'pad_multiple': 4, 'format_version': 1}
        assert all(torch.equal(value, params[key]) for key, value in net.state_dict().items())


@pytest.mark.parametrize(('output', 'message'), [
    ('net.pt', r"net.pt: '.pt' cannot be written; give one of .onnx .safetensors .pth"),
    ('no/net.onnx', 'no/net.onnx: is a folder, or its folder does not exist'),
    ('net.pth', 'net.pth is the input weights file'),
])  # fmt: skip
def test_invalid_output_is_refused(weights, output, message):
    before = weights.read_bytes()
    with pytest.raises(DBLRError, match=message):
        export('--weights', weights, '-o', weights.parent / output, '--overwrite')
    assert weights.read_bytes() == before


def test_calibrate_without_int8_is_refused(tmp_path):
    with pytest.raises(DBLRError, match='--calibrate is for --precision int8'):
        export('-o', tmp_path / 'net.onnx', '--calibrate', tmp_path)


@pytest.mark.slow
def test_int8_far_from_fp32_is_not_written(tmp_path):
    """The frames are smaller than the calibration crops and no multiples of 8, so they are padded."""
    for number, frame in enumerate(np.random.default_rng(0).integers(0, 256, (6, 30, 50, 3), dtype=np.uint8)):
        cv2.imwrite(str(tmp_path / f'{number}.png'), frame)
    ARCH_REGISTRY._obj_map['Eighths'] = Eighths
    try:
        torch.save({'params': trained({'type': 'Eighths'}).state_dict()}, tmp_path / 'net.pth')
        (tmp_path / 'net.yml').write_text('network_g: {type: Eighths}\nval: {pad_multiple: 8}')
        arguments = ['--weights', tmp_path / 'net.pth', '-opt', tmp_path / 'net.yml', '-o', tmp_path / 'net.onnx']
        with pytest.raises(DBLRError, match=r'PSNR of int8 against fp32 is below 48 dB .*leave out --precision int8'):
            export(*arguments, '--precision', 'int8', '--calibrate', tmp_path)
    finally:
        del ARCH_REGISTRY._obj_map['Eighths']
    assert not (tmp_path / 'net.onnx').exists()


def test_metadata_of_networks_with_flow_state_the_alignment():
    for flow in (False, True):
        loaded = LoadedNetwork(nn.Identity(), {'type': 'DBN', 'flow': flow}, Path('ours.pth'), None, 1)
        assert ('flow' in _metadata(loaded, NetworkTraits.of(loaded.options))) == flow


def test_missing_packages_are_reported_first(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    with pytest.raises(DBLRError, match=r"ONNX needs onnxruntime: pip install 'dblr_plugin\[export\]'"):
        export('--weights', tmp_path / 'none.pth', '-o', tmp_path / 'net.onnx')
