"""Time codes count frames from the first one: they are kept where this holds, or their loss is reported."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

av = pytest.importorskip('av')

from made_videos import Made, make, scene  # noqa: E402
from media_copying import copy  # noqa: E402


def timecodes(path: Path) -> list[str]:
    with av.open(str(path)) as container:
        tags = [item for tagged in (container, *container.streams) for item in tagged.metadata.items()]
    return [value for name, value in tags if name.lower() == 'timecode']


@pytest.mark.parametrize('suffix', ['.mp4', '.mov', '.mkv', '.webm'])
def test_time_code_of_a_video_with_a_long_frame_is_kept(tmp_path, caplog, suffix):
    """MP4 stores the number of frames up to the code, so the average rate would give another one, or none."""
    rate, code = Fraction(30000, 1001), '01:00:00;02'
    with av.open(str(tmp_path / 'camera.mov'), 'w') as container:
        video = container.add_stream('libx264', rate, options={'bf': '0'}, time_base=Fraction(1, 30000))
        video.height, video.width, video.metadata['timecode'] = 64, 96, code
        for pixels, time in zip(scene(4), (0, 1001, 2002, 9009), strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, format='rgb24')
            frame.pts, frame.time_base = time, video.time_base
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    copy(tmp_path / 'camera.mov', tmp_path / f'sharp{suffix}')
    assert {*timecodes(tmp_path / f'sharp{suffix}')} == {code} and 'code' not in caplog.text
    copy(tmp_path / f'sharp{suffix}', tmp_path / 'again.mp4')
    assert {*timecodes(tmp_path / 'again.mp4')} == {code}
    copy(tmp_path / f'sharp{suffix}', tmp_path / 'part.mp4', {'start': 0.05})
    assert timecodes(tmp_path / 'part.mp4') == [] and 'the time code is left out' in caplog.text


def test_time_code_that_mp4_cannot_hold_is_reported(tmp_path, caplog):
    source = make(tmp_path / 'film.mkv', Made(frames=2, rate=Fraction(25), metadata={'timecode': '01:00:00;00'}))
    copy(source, tmp_path / 'sharp.mp4')  # only rates near 30 and 60 drop frames
    assert 'as .mp4 cannot hold it: tag timecode' in caplog.text


@pytest.mark.parametrize('suffix', ['.mp4', '.mov', '.mkv'])
def test_dv_tape_keeps_its_frame_rate_and_time_code(tmp_path, caplog, suffix):
    """FFmpeg gives the clock of DV as its average frame rate, at which MP4 holds no time code."""
    frames = scene(3, (576, 720))
    source = make(tmp_path / 'tape.dv', Made(frames=frames, codec='dvvideo', rate=Fraction(25), options={}))
    copy(source, tmp_path / f'sharp{suffix}')
    with av.open(str(tmp_path / f'sharp{suffix}')) as container:
        assert container.streams.video[0].average_rate == 25
    assert {*timecodes(tmp_path / f'sharp{suffix}')} == {'00:00:00:00'} and 'left out' not in caplog.text
    copy(source, tmp_path / f'part{suffix}', {'start': 0.04})
    assert timecodes(tmp_path / f'part{suffix}') == [] and 'the time code is left out' in caplog.text
