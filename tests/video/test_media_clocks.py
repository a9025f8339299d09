"""Unusual timestamps (restarts, jumps, long frames, gaps, late sound) are preserved, or a warning reports them."""

from __future__ import annotations

import itertools
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

av = pytest.importorskip('av')

from made_videos import Made, make, packets, times  # noqa: E402
from media_copying import copy  # noqa: E402

from dblr_plugin.video import open_sink, open_source  # noqa: E402


def joined(path: Path, *parts: Path) -> Path:
    path.write_bytes(b''.join(part.read_bytes() for part in parts))
    return path


def seconds(path: Path) -> float:
    with av.open(str(path)) as container:
        return container.duration / 1e6


@pytest.mark.parametrize('suffix', ['.ts', '.vob'])
def test_concatenated_recordings_get_continuous_timestamps(tmp_path, caplog, suffix):
    one = make(tmp_path / f'one{suffix}', Made(frames=30, audio=0 if suffix == '.vob' else 1))
    source = joined(tmp_path / f'film{suffix}', one, one)
    copy(source, tmp_path / 'sharp.mp4')
    after = times(tmp_path / 'sharp.mp4')
    steps = np.diff([float(time) for time in after])
    assert len(after) == 60
    assert np.delete(steps, 29) == pytest.approx(1 / 30, abs=0.001) and 1 / 31 < steps[29] < 0.15
    assert 'timestamps restart or jump at 1.0' in caplog.text


def test_sound_stays_in_sync_after_a_timestamp_restart(tmp_path):
    one = make(tmp_path / 'one.ts', Made(frames=30, audio=1))
    copy(joined(tmp_path / 'film.ts', one, one), tmp_path / 'sharp.mp4')
    pictures, sound = times(tmp_path / 'sharp.mp4'), [time for time, _ in packets(tmp_path / 'sharp.mp4')[0]]
    alone_picture, alone_sound = times(one), [time for time, _ in packets(one)[0]]
    second = sound[len(sound) // 2]
    apart = alone_sound[0] - alone_picture[0]
    assert float(second - pictures[30]) == pytest.approx(float(apart), abs=0.001)
    assert all(b > a for a, b in itertools.pairwise(sound))


def test_one_hour_timestamp_jump_is_closed(tmp_path, caplog):
    late = Made(frames=30, time_base=Fraction(1, 90000), pts=[3600 * 90000 + 3000 * i for i in range(30)])
    parts = make(tmp_path / 'one.ts', Made(frames=30)), make(tmp_path / 'two.ts', late)
    copy(joined(tmp_path / 'film.ts', *parts), tmp_path / 'sharp.mp4')
    after = times(tmp_path / 'sharp.mp4')
    assert len(after) == 60 and after[-1] - after[0] < 3
    assert 'timestamps restart or jump' in caplog.text


@pytest.mark.parametrize('suffix', ['.mp4', '.mov', '.mkv', '.webm'])
def test_last_frame_keeps_its_duration(tmp_path, caplog, suffix):
    pictures = [Image.fromarray(np.random.default_rng(i).integers(0, 255, (48, 64, 3), np.uint8)) for i in range(4)]
    source, output = tmp_path / 'd.gif', tmp_path / f'sharp{suffix}'
    pictures[0].save(source, save_all=True, append_images=pictures[1:], duration=[100, 50, 300, 3000], loop=0)
    copy(source, output)
    assert seconds(output) == pytest.approx(3.45, abs=0.005)
    copy(output, tmp_path / f'again{suffix}')
    assert seconds(tmp_path / f'again{suffix}') == pytest.approx(3.45, abs=0.005)
    assert 'cut off' not in caplog.text and 'missing' not in caplog.text


@pytest.mark.slow
def test_missing_frames_in_matroska_are_reported(tmp_path, caplog):
    source = make(tmp_path / 'long.mkv', Made(frames=500, audio=1, options={'g': '12', 'preset': 'ultrafast'}))
    data = bytearray(source.read_bytes())
    cluster = data.index(b'\x1f\x43\xb6\x75', len(data) // 2)  # damage to its header loses the whole cluster
    data[cluster : cluster + 200] = bytes(200)
    source.write_bytes(data)
    pictures = copy(source, tmp_path / 'sharp.mkv', preset='ultrafast')
    before = [float(time) for time in times(source)]
    widest = int(np.argmax(np.diff(before)))
    length, place = before[widest + 1] - before[widest] - 1 / 30, before[widest] + 1 / 30
    assert len(pictures) < 500
    assert f'frames are missing for {length:.2f} s at {place:.2f} s' in caplog.text


def test_ffmpeg_errors_in_a_damaged_file_are_reported(tmp_path, caplog):
    """One frame is left, or too few for a regular interval, so that the timestamps do not show the loss."""
    source = make(tmp_path / 'short.mkv', Made(frames=24, codec='mpeg4', options={'bf': '0'}))
    data = source.read_bytes()
    cluster = data.index(b'\x1f\x43\xb6\x75')
    half, middle = (len(data) - cluster) // 2, (len(data) + cluster) // 2
    zeroed = data[: middle - half // 2] + bytes(half) + data[middle - half // 2 + half :]
    for damaged in (zeroed, data[:middle] + data[middle - 500 :]):
        caplog.clear()
        source.write_bytes(damaged)
        assert len(copy(source, tmp_path / 'sharp.mkv')) < 24
        assert f'{source}: FFmpeg met an error in it and continued' in caplog.text
    source.write_bytes(data)
    caplog.clear()
    assert len(copy(source, tmp_path / 'sharp.mkv')) == 24 and not caplog.records


def test_missing_frame_in_mp4_is_reported(tmp_path, caplog):
    """A damaged ctts table moves one frame away; no stated duration explains the gap that it leaves."""
    source = make(tmp_path / 'moved.mp4', Made(frames=24))
    data = bytearray(source.read_bytes())
    table = data.index(b'ctts') + 12
    count = int.from_bytes(data[table - 4 : table], 'big')
    entry = next(e for e in range(table + 64, table + 8 * count, 8) if data[e : e + 4] == b'\0\0\0\1')
    data[entry + 4] = 0xCA
    source.write_bytes(data)
    assert len(copy(source, tmp_path / 'sharp.mp4')) == 23
    assert 'frames are missing for 0.03 s at ' in caplog.text


def test_intended_pauses_are_not_reported_as_missing_frames(tmp_path, caplog):
    uneven = [0, 33, 67, 100, 400, 900, 933, 1200, 1500, 3000, 3100, 3200]
    copy(make(tmp_path / 'phone.mkv', Made(time_base=Fraction(1, 1000), pts=uneven)), tmp_path / 'sharp.mkv')
    long = [number + 9 * (number > 30) for number in range(40)]
    copy(make(tmp_path / 'long.mp4', Made(frames=40, time_base=Fraction(1, 30), pts=long)), tmp_path / 'sharp.mp4')
    assert 'missing' not in caplog.text


@pytest.mark.parametrize('suffix', ['.mp4', '.mov', '.mkv'])
def test_late_sound_keeps_its_start(tmp_path, suffix):
    source = make(tmp_path / 'late.mp4', Made(frames=60, audio=1, audio_start=24000))
    output = tmp_path / f'sharp{suffix}'
    copy(source, output)
    late = packets(source)[0][0][0] - times(source)[0]
    with av.open(str(output)) as container:
        loud = next(
            frame.pts * frame.time_base for frame in container.decode(audio=0) if np.abs(frame.to_ndarray()).max() > 0.1
        )
    assert float(loud - times(output)[0]) == pytest.approx(float(late), abs=0.03)


def test_wrapped_timestamps_of_transport_streams_are_kept(tmp_path):
    """Timestamps of transport streams wrap at 2**33; frames before the wrap have negative times and are not dropped."""
    first = 95442 * 30
    plain = make(tmp_path / 'plain.mp4', Made(frames=60))
    source = make(tmp_path / 'over.ts', Made(frames=60, pts=[first + i for i in range(60)]))
    assert times(source)[0] < 0
    copy(source, tmp_path / 'sharp.mp4')
    assert [float(t) for t in times(tmp_path / 'sharp.mp4')] == pytest.approx(
        [float(t) for t in times(plain)], abs=1e-4
    )


def test_extents_of_source_and_output_agree(tmp_path):
    source = make(tmp_path / 'plain.mp4', Made(frames=45, audio=1))
    with open_source(source) as opened:
        sink = open_sink(tmp_path / 'sharp.mkv', opened)
        for picture in opened:
            sink.write(picture)
        sink.finish()
        assert str(opened.extent()) == str(sink.extent()) == '45 frames, 1.50 s'


@pytest.mark.parametrize('name', ['film.mp4', 'film.mov'])
@pytest.mark.parametrize('flags', ['use_metadata_tags', 'faststart', 'frag_keyframe+empty_moov'])
def test_mp4_files_put_one_after_the_other_are_reported(tmp_path, caplog, name, flags):
    """Every player shows the first only."""
    one = tmp_path / f'one_{name}'
    with av.open(str(one), 'w', container_options={'movflags': flags}) as container:
        stream = container.add_stream('mpeg4', 25)
        stream.height, stream.width = 16, 16
        for frame in (av.VideoFrame(16, 16, 'yuv420p'), None):
            container.mux(stream.encode(frame))
    with open_source(one):
        assert 'several videos' not in caplog.text
    with open_source(joined(tmp_path / name, one, one)):
        assert (f'{name} holds several videos' in caplog.text) == ('frag' not in flags)  # those are read on


def test_matroska_files_put_one_after_the_other_are_reported(tmp_path, caplog):
    """Unlike transport streams, Matroska has one clock, which FFmpeg starts again with the second file."""
    source = make(tmp_path / 'one.mkv', Made(frames=12))
    copy(source, tmp_path / 'sharp.mp4')
    assert caplog.text == ''
    (tmp_path / 'two.mkv').write_bytes(source.read_bytes() * 2)
    assert len(copy(tmp_path / 'two.mkv', tmp_path / 'sharp.mp4')) == 24
    assert 'two.mkv: its timestamps go back at 0.37 s' in caplog.text
