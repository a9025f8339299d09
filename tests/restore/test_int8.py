"""int8 is close to float32 on the calibrated input, exact where the network adds nothing, and refused elsewhere."""

import logging

import cv2
import numpy as np
import pytest
import torch
from test_backends import FixesSizeOfLittle

from dblr_plugin.archs import DBLRNet, MultiScaleDBLRNet
from dblr_plugin.commands import main
from dblr_plugin.data.windows import spread
from dblr_plugin.errors import DBLRError
from dblr_plugin.restore import backends, openvino_forward
from dblr_plugin.restore.backends import FRAMES_WORTH_COMPILING, build_forward, choose
from dblr_plugin.restore.openvino_forward import (
    WINDOWS,
    cut_crops,
    nncf_installed,
    openvino_installed,
    quantise,
    to_openvino,
)
from dblr_plugin.restore.pipeline import calibrate, sample_windows
from dblr_plugin.restore.video_restorer import FIRST_FRAMES, VideoRestorer
from dblr_plugin.video import open_source

CPU = torch.device('cpu')
OPTIONS = {'type': 'MultiScaleDBLRNet', 'num_feat': (8, 16), 'num_block': (1, 1)}
needs_int8 = pytest.mark.skipif(not (openvino_installed() and nncf_installed()), reason='needs openvino and nncf')


def frames(count: int = 8, height: int = 72, width: int = 104) -> list[np.ndarray]:
    """Returns RGB frames (h, w, 3) of a moving texture."""
    coarse = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8 + count, 3), dtype=np.uint8)
    wide = cv2.resize(coarse, (width + 8 * count, height), interpolation=cv2.INTER_CUBIC)
    return [np.ascontiguousarray(wide[:, 4 * i : 4 * i + width]) for i in range(count)]


def trained(std: float = 0.05) -> MultiScaleDBLRNet:
    torch.manual_seed(0)
    net = MultiScaleDBLRNet(num_feat=(8, 16), num_block=(1, 1)).eval()
    torch.nn.init.normal_(net.last.weight, std=std)
    return net


@pytest.mark.slow
@needs_int8
def test_int8_is_close_to_float32_and_reported(caplog):
    logging.getLogger('basicsr').propagate = True
    restorers = [VideoRestorer(trained(), OPTIONS, 'cpu', precision=p, tile=48) for p in ('int8', 'fp32')]
    assert [r.needs_calibration for r in restorers] == [True, False]
    with caplog.at_level(logging.INFO):
        quantised, exact = (np.stack(list(restorer.restore(frames()))).astype(float) for restorer in restorers)
    assert not restorers[0].needs_calibration
    assert 0 < np.square(quantised - exact).mean() < 255**2 / 10**4
    assert [r.getMessage() for r in caplog.records if 'Precision int8: int8 is' in r.getMessage()]


@pytest.mark.slow
@needs_int8
@pytest.mark.parametrize(
    'net',
    [
        DBLRNet(num_feat=8, num_block=1, input_skip=True),
        MultiScaleDBLRNet(num_feat=(8, 16), num_block=(1, 1)),
    ],
)
def test_identity_is_bit_identical(net, caplog):
    logging.getLogger('basicsr').propagate = True
    window = torch.rand(1, 5, 1, 72, 104)
    with caplog.at_level(logging.INFO):
        assert torch.equal(build_forward(net.eval(), CPU, 'auto', 'int8')(window), window[:, 2])
    assert [r.getMessage() for r in caplog.records if 'Precision int8: int8 is' in r.getMessage()]


@pytest.mark.slow
@needs_int8
def test_layers_that_compare_frames_and_the_last_one_stay_float():
    window = torch.rand(1, 5, 1, 32, 32)
    model = quantise(to_openvino(trained(), window), [window])
    convolutions = [node for node in model.get_ordered_ops() if node.get_type_name() == 'Convolution']
    scaled = [node.input_value(1).get_node().get_type_name() == 'Multiply' for node in convolutions]  # int8 weights
    assert scaled == [False, False, *[True] * (len(scaled) - 3), False] and len(scaled) > 4


@pytest.mark.slow
@needs_int8
def test_auto_uses_int8_only_if_close_to_float32(monkeypatch):
    monkeypatch.setattr(backends, 'int8_is_fast', lambda: True)
    assert choose(CPU, 'auto', 'auto', FRAMES_WORTH_COMPILING) == ('openvino', 'int8')
    window = torch.rand(1, 5, 1, 64, 64)
    auto = build_forward(trained(std=5), CPU, 'auto', 'auto', FRAMES_WORTH_COMPILING)
    exact = build_forward(trained(std=5), CPU, 'auto', backends._best_precision(CPU))
    assert torch.equal(auto(window), exact(window))


@pytest.mark.slow
@needs_int8
def test_network_whose_size_openvino_keeps_is_not_quantised(caplog, monkeypatch):
    monkeypatch.setattr(backends, '_bf16_is_fast', lambda: False)  # it falls back to the best other precision
    logging.getLogger('basicsr').propagate = True
    net = FixesSizeOfLittle().eval()
    forward = build_forward(net, CPU, 'openvino', 'int8')
    for window in (torch.rand(1, 5, 1, 48, 64), torch.rand(1, 5, 1, 48, 96)):
        torch.testing.assert_close(forward(window), net(window))
    assert 'int8 cannot run this network (its result differs' in caplog.text


@needs_int8
def test_empty_input_leaves_calibration_to_the_next():
    restorer = VideoRestorer(trained(), OPTIONS, 'cpu', precision='int8')
    assert list(restorer.restore([])) == [] and restorer.needs_calibration


@pytest.mark.slow
@needs_int8
def test_each_input_is_calibrated_separately(tmp_path):
    """The result depends neither on earlier inputs nor on where a resumed run begins."""
    part = 2, 9
    clips = {'bright': frames(12), 'dark': [frame // 16 for frame in frames(12)]}
    for name, clip in clips.items():
        (tmp_path / name).mkdir()
        for number, frame in enumerate(clip):
            cv2.imwrite(str(tmp_path / f'{name}/{number:03d}.png'), frame[..., ::-1])

    def calibrated(restorer: VideoRestorer, name: str) -> np.ndarray:
        with open_source(tmp_path / name, *part) as source:
            calibrate(restorer, tmp_path / name, source, *part)
        return np.stack(list(restorer.restore(clips['dark'][4:])))

    one, other = (VideoRestorer(trained(), OPTIONS, 'cpu', precision='int8') for _ in range(2))
    alone = calibrated(one, 'dark')
    assert not np.array_equal(calibrated(other, 'bright'), alone) and np.array_equal(calibrated(other, 'dark'), alone)


def test_int8_is_refused_where_it_is_unavailable(monkeypatch):
    with pytest.raises(DBLRError, match='not for backend torch'):
        choose(CPU, 'torch', 'int8')
    with pytest.raises(DBLRError, match='not for cuda'):
        choose(torch.device('cuda'), 'auto', 'int8')
    monkeypatch.setattr(backends, 'nncf_installed', lambda: False)
    with pytest.raises(DBLRError, match=r'dblr_plugin\[int8\]'):
        choose(CPU, 'auto', 'int8')


def test_crops_have_one_size_and_different_positions():
    places = torch.arange(300 * 400.0).reshape(1, 1, 1, 300, 400)
    crops = list(cut_crops([places] * 3 + [places[..., :100, :]]))
    assert {crop.shape for crop in crops} == {(1, 1, 1, 128, 128)}
    assert len({crop[0, 0, 0, 0, 0].item() for crop in crops}) == len(crops) == 6


def test_windows_are_spread_over_a_folder(tmp_path):
    for number in range(40):
        cv2.imwrite(str(tmp_path / f'{number:03d}.png'), np.full((16, 16, 3), number, np.uint8))
    with open_source(tmp_path) as source:
        runs = list(sample_windows(tmp_path, source, 5))
    assert [[int(frame[0, 0, 0]) for frame in run] for run in runs][:: len(runs) - 1] == [
        [0, 1, 2, 3, 4],
        [30, 31, 32, 33, 34],
    ]


@pytest.mark.parametrize(('name', 'runs'), [('whole.mp4', WINDOWS), ('cut.mp4', 3)])
def test_windows_are_spread_over_a_video(tmp_path, caplog, name, runs):
    """Frame times at 30 per second are no finite decimals; one video is shorter than its header states."""
    import av

    with av.open(str(tmp_path / 'whole.mp4'), 'w', container_options={'movflags': 'faststart'}) as container:
        video = container.add_stream('libx264', 30, options={'g': '1', 'crf': '0', 'flags': '+ildct+ilme'})
        video.height = video.width = 64
        for number in range(60):
            grey = np.full((64, 64, 3), 4 * number, np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(grey, format='rgb24')))
        container.mux(video.encode(None))
    data = (tmp_path / 'whole.mp4').read_bytes()
    (tmp_path / 'cut.mp4').write_bytes(data[: len(data) * 6 // 10])
    with open_source(tmp_path / name) as source:
        assert source.count == 60
        caplog.clear()
        found = [round(run[0].mean() / 4) for run in sample_windows(tmp_path / name, source, 5)]
    assert found == spread(range(51), WINDOWS)[:runs] and caplog.text == ''


@pytest.mark.parametrize(('kind', 'frames'), [('mkv', 60), ('avi', 60), ('ts', FIRST_FRAMES)])
def test_windows_are_spread_over_videos_that_do_not_say_how_many_frames_they_have(tmp_path, kind, frames):
    """They were taken from the first frames alone, which may be black."""
    import av

    path = tmp_path / f'video.{kind}'
    with av.open(str(path), 'w') as container:
        video = container.add_stream('mpeg4', 30)
        video.height = video.width = 64
        for number in range(60):
            grey = np.full((64, 64, 3), 4 * number, np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(grey, format='rgb24')))
        container.mux(video.encode(None))
    with open_source(path) as source:
        assert source.count is None
        found = [run[0].mean() / 4 for run in sample_windows(path, source, 5)]
    assert found == pytest.approx(spread(range(frames - 9), WINDOWS), abs=1.5)


@pytest.mark.slow
def test_exported_file_is_quantised_and_keeps_its_metadata(tmp_path):
    onnx = pytest.importorskip('onnx')
    pytest.importorskip('onnxruntime')
    for number, frame in enumerate(frames(12)):
        cv2.imwrite(str(tmp_path / f'{number:03d}.png'), frame)
    output = tmp_path / 'net.onnx'
    arguments = ['export', '--weights', 'light', '-o', str(output), '--precision', 'int8', '--calibrate', str(tmp_path)]
    assert main(arguments) in (None, 0)
    model = onnx.load(output)
    dequantised = {node.output[0] for node in model.graph.node if node.op_type == 'DequantizeLinear'}
    scaled = [node.input[1] in dequantised for node in model.graph.node if node.op_type == 'Conv']  # int8 weights
    assert scaled == [False, False, *[True] * (len(scaled) - 3), False] and len(scaled) > 4
    properties = {entry.key: entry.value for entry in model.metadata_props}
    assert properties['precision'] == 'int8' and properties['num_frame'] == '5'


@pytest.mark.slow
@needs_int8
def test_frames_unlike_those_of_the_calibration_are_told_once(caplog, monkeypatch):
    """A video that fades in from black, or a bright one after a dark one."""
    monkeypatch.setattr(openvino_forward, '_CHECK_EVERY', 40)  # in place of hundreds of frames
    logging.getLogger('basicsr').propagate = True
    restorer = VideoRestorer.from_weights('light', device='cpu', precision='int8')
    bright = frames(70, 32, 48)
    list(restorer.restore([frame // 16 for frame in bright]))
    assert 'unlike' not in caplog.text
    list(restorer.restore(bright))
    assert caplog.text.count('these frames are unlike those it was calibrated on; use precision') == 1
    caplog.clear()
    restorer.calibrate([bright[:5], bright[30:35]])
    list(restorer.restore(bright))
    assert 'unlike' not in caplog.text
