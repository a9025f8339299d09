"""The measurement of inference: a tiny run prints its table and writes valid JSON. No times are checked."""

import pickle
from functools import partial

import av
import cv2
import end_to_end
import frames
import inference
import pytest
import torch
from basicsr.archs import build_network
from basicsr.archs.edvr_arch import EDVR
from tile_images import encode, picture
from torch import nn

from dblr_plugin.archs import DBLRNet
from dblr_plugin.errors import DBLRError
from dblr_plugin.restore.video_restorer import VideoRestorer

STEPS = ['eager fp32', 'folded fp32', 'torch fp32', 'torch bf16']


def small_paper(causal: bool = False) -> DBLRNet:
    torch.manual_seed(0)
    return DBLRNet(num_feat=16, num_block=1, causal=causal).eval()


def small_edvr() -> EDVR:
    torch.manual_seed(0)
    sizes = {'num_feat': 8, 'num_extract_block': 1, 'num_reconstruct_block': 1, 'deformable_groups': 1}
    return EDVR(**sizes, hr_in=True, with_predeblur=True, with_tsa=False).eval()


def small_dbn() -> nn.Module:
    return build_network({'type': 'DBN', 'num_feat': 4})


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(inference, '_paper', small_paper)
    monkeypatch.setattr(inference, '_edvr', small_edvr)
    monkeypatch.setattr(inference, '_dbn', small_dbn)
    monkeypatch.setattr(inference, 'peak_memory', lambda make, device: len(pickle.dumps(make)))
    # the backends have their own tests; OpenVINO 2026.4 crashes when several of its networks are freed in a process
    # that has had loader workers, which the command does not have
    monkeypatch.setattr(inference, '_step_names', lambda device, compiles, full: STEPS)
    monkeypatch.setattr(end_to_end, 'VideoRestorer', partial(VideoRestorer, backend='torch'))


@pytest.fixture
def folder(tmp_path):
    for number in range(7):
        suffix, content = encode(picture(140, 150, number), 'jpeg 4:2:0')
        path = tmp_path / 'frames' / f'frame_{number}{suffix}'
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    return tmp_path / 'frames'


@pytest.mark.slow
def test_own_frames_are_measured(folder, bench):
    report = bench('inference', '--input', str(folder), '--size', '64x1000')
    assert report['origin'] == str(folder) and report['size'] == [128, 64]
    video = report['video']['ways'][end_to_end.DBLR]
    assert 0 < video['latency_ms']['median'] <= video['latency_ms']['percentile_95'] < video['max_ms']
    assert list(report['networks']) == [inference.PAPER, inference.EDVR_M, inference.DBN]
    for network in report['networks'].values():
        assert list(network['ways']) == STEPS and network['gflop'] > 0
        base = network['ways']['eager fp32']
        assert base['ratio'] == 1 and base['decibels'] is None
        for name, step in network['ways'].items():
            assert 0 < step['min_ms'] <= step['median_ms'] <= step['max_ms'] and len(step['rounds_ms']) == 1
            assert step['ratio'] == pytest.approx(base['median_ms'] / step['median_ms'])
            assert step['gflops'] == pytest.approx(network['gflop'] / step['median_ms'] * 1000)
            kinds = ('matrix', 'convolution')
            limit = max(report['limits'][f'{kind} {name.split()[1]}']['speed'] for kind in kinds)
            assert step['share'] == pytest.approx(step['gflops'] / limit)
            assert step['decibels'] is None or step['decibels'] > (80 if name.endswith('fp32') else 45)


def test_window_of_generated_frames(monkeypatch):
    monkeypatch.setattr(frames, 'FRAMES', 5)
    monkeypatch.setattr(frames, 'SIZE', (160, 144))
    origin, window = inference.make_window(None, (64, 48))
    assert 'png' in origin and window.shape == (1, 5, 3, 48, 64) and window.std() > 0.01


@pytest.mark.slow
def test_plain_loop_and_dblr_restore_the_same_video(tmp_path):
    """They have the same number of frames, which differ only by folding and conversion to RGB."""
    net = DBLRNet(num_feat=16, num_block=1, input_skip=True, causal=True).eval()
    nn.init.normal_(net.reconstruction[-1].weight, std=0.02)
    video = tmp_path / 'source.mp4'
    end_to_end._encode(video, (64, 96), [cv2.resize(picture(20, 24, 1 + i), (96, 64)) for i in range(6)])
    end_to_end._plain_loop(net, torch.device('cpu'), video, tmp_path / 'loop.mp4')
    restorer = VideoRestorer(net, {'type': 'DBLRNet', 'causal': True}, device='cpu', backend='torch')
    assert len(end_to_end._dblr(restorer, video)) == 6
    found = []
    for name in ('loop.mp4', 'dblr.mp4'):
        with av.open(str(tmp_path / name)) as container:
            found.append([frame.to_ndarray(format='gray') for frame in container.decode(video=0)])
    assert len(found[0]) == len(found[1]) == 6
    assert all(cv2.PSNR(one, other) > 35 for one, other in zip(*found, strict=True))


def test_operations_are_counted_for_the_whole_frame():
    net = DBLRNet(num_feat=16, num_block=1, tail_conv=False).eval()
    # multiplications per pixel: L1 (3 banded steps), L2, a block, reconstruction
    weights = 9 * (48 * 5 + 16 * 48 + 2 * 16 * 16 + 16 * 64 + 64 * 64 + 64)
    assert inference.operations(net, torch.rand(1, 5, 1, 96, 80)) == 2 * weights * 96 * 80


def test_fitted_network_reproduces_the_frame():
    coarse = torch.rand(5, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    window = nn.functional.interpolate(coarse, size=(96, 96), mode='bicubic').clamp(0, 1).unsqueeze(0)
    y = inference.to_network_colour(window, 1)
    with torch.no_grad():
        out = inference._fitted(small_paper(), window)(y)
    assert (out - y[:, 2]).square().mean() < 0.05 * y[:, 2].var()


def test_bad_folders_and_sizes_are_refused(folder, tmp_path, bench, capsys):
    with pytest.raises(DBLRError, match='absent'):
        bench('inference', '--input', str(tmp_path / 'absent'))
    with pytest.raises(DBLRError, match='at least 16x16'):
        bench('inference', '--input', str(folder), '--size', '100x15')
    with pytest.raises(SystemExit):
        bench('inference', '--size', 'large')
    assert 'no size such as 1280x720' in capsys.readouterr().err
    for path in list(folder.iterdir())[4:]:
        path.unlink()
    with pytest.raises(DBLRError, match='4 frames; 5 are needed'):
        bench('inference', '--input', str(folder))
