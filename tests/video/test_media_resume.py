"""Outputs of stopped or killed runs are resumed, and equal those of uninterrupted runs."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

av = pytest.importorskip('av')

from made_videos import Made, decoded, make, packets, scene, times  # noqa: E402
from media_copying import sink_of, visible  # noqa: E402

from dblr_plugin.errors import DBLRError  # noqa: E402
from dblr_plugin.video import AlreadyComplete, open_sink, open_source  # noqa: E402
from dblr_plugin.video.unfinished import Segments  # noqa: E402


@pytest.fixture(autouse=True)
def short_segments(monkeypatch):
    monkeypatch.setattr('dblr_plugin.video.video_sink.PICTURES', 10)


def write(source_path: Path, output: Path, stop: int | None = None, end: str = 'abandon', **options: object) -> int:
    """Copies frames up to ``stop``, then abandons the sink or simulates a kill; returns the number of the first one."""
    with open_source(source_path) as source:
        sink = sink_of(output, source, **{'settings': {}, **options})
        source.skip(sink.done)
        for number, picture in enumerate(source, sink.done):
            if number == stop:
                break
            sink.write(picture)
        else:
            sink.finish()
            return sink.done
        if end == 'abandon':
            sink.abandon()
        else:
            sink._unfinished.release()  # the kernel does this for a killed process
        return sink.done


def pixels(path: Path) -> list[np.ndarray]:
    return [frame.to_ndarray(format='rgb24') for frame in decoded(path)]


def held(path: Path) -> tuple:
    """Returns times, pixels, sound and duration of a video."""
    with av.open(str(path)) as container:
        duration = container.duration
    return times(path), [p.tobytes() for p in pixels(path)], packets(path), duration


UNEVEN = [0, 33, 67, 100, 133, 200, 233, 267, 300, 500, 533, 567, 600, 633, 667, 700, 733, 900, 933, 967, 1000, 1033]


@pytest.mark.parametrize('existing', ['resume', 'replace'])
def test_incomplete_video_is_never_taken_for_complete(tmp_path, existing):
    """Stopped before the first segment is complete, then resumed or replaced and stopped before the first frame."""
    source = make(tmp_path / 'shaky.mp4', Made(frames=25))
    output = tmp_path / 'out.mp4'
    assert write(source, output, 5) == 0 and len(decoded(output)) == 5
    assert write(source, output, 0, existing=existing) == 0 and len(decoded(output)) == 5
    assert write(source, output, existing='resume') == 0 and len(decoded(output)) == 25
    with pytest.raises(AlreadyComplete):
        write(source, output, existing='resume')


@pytest.mark.parametrize(
    ('suffix', 'options', 'end'),
    [
        ('.mp4', {}, 'kill'),
        ('.mp4', {}, 'abandon'),
        ('.mov', {}, 'kill'),
        ('.mkv', {}, 'abandon'),
        ('.webm', {'quality': 40}, 'kill'),
        ('.mkv', {'lossless': True}, 'abandon'),
        ('.mp4', {'encoder': 'libx265'}, 'kill'),
        ('.mkv', {'encoder': 'ffv1'}, 'abandon'),
        ('.mp4', {'encoder': 'libsvtav1'}, 'kill'),
    ],
)
def test_resumed_video_equals_uninterrupted_one(tmp_path, suffix, options, end):
    source = make(tmp_path / 'shaky.mp4', Made(frames=25, audio=1))
    whole, resumed = tmp_path / f'whole{suffix}', tmp_path / f'resumed{suffix}'
    write(source, whole, **options)
    assert write(source, resumed, 7, end, **options) == 0
    assert write(source, resumed, 23, end, existing='resume', **options) == 0
    assert write(source, resumed, 24, end, existing='resume', **options) == 20
    assert write(source, resumed, existing='resume', **options) == 20
    assert held(resumed) == held(whole)
    assert visible(tmp_path) == sorted(['shaky.mp4', whole.name, resumed.name])


def test_uneven_times_are_kept_across_segments(tmp_path):
    source = make(tmp_path / 'phone.mp4', Made(frames=22, time_base=Fraction(1, 1000), pts=UNEVEN, audio=1))
    write(source, tmp_path / 'sharp.mp4', 15, 'kill')
    assert write(source, tmp_path / 'sharp.mp4', existing='resume') == 10
    assert times(tmp_path / 'sharp.mp4') == times(source)


def test_resume_after_kill_while_joining_segments(tmp_path):
    """All frames are encoded, but the video file is incomplete."""
    source = make(tmp_path / 'shaky.mp4', Made(frames=20))
    write(source, tmp_path / 'whole.mp4')
    with open_source(source) as opened:
        sink = open_sink(tmp_path / 'sharp.mp4', opened, settings={})
        for picture in opened:
            sink.write(picture)
        sink._unfinished.release()
    assert write(source, tmp_path / 'sharp.mp4', existing='resume') == 20
    assert held(tmp_path / 'sharp.mp4') == held(tmp_path / 'whole.mp4')


def test_stopped_video_is_playable_and_resumable(tmp_path):
    source = make(tmp_path / 'shaky.mp4', Made(frames=25, audio=1))
    output = tmp_path / 'sharp.mp4'
    write(source, output, 17)
    assert len(decoded(output)) == 17
    with pytest.raises(DBLRError, match=r'sharp\.mp4 was started and is not complete; continue with --resume'):
        write(source, output, existing='refuse')
    assert write(source, output, existing='resume') == 10
    assert len(decoded(output)) == 25


def test_video_survives_power_cuts_before_its_segments_are_removed(tmp_path, monkeypatch):
    safe, fsync = set(), os.fsync
    monkeypatch.setattr(os, 'fsync', lambda number: safe.add(os.fstat(number).st_ino) or fsync(number))
    write(make(tmp_path / 'shaky.mp4', Made(frames=3)), tmp_path / 'sharp.mp4')
    assert (tmp_path / 'sharp.mp4').stat().st_ino in safe


def test_segments_are_not_dropped_for_one_that_the_disk_does_not_give(tmp_path):
    source = make(tmp_path / 'shaky.mp4', Made(frames=35))
    write(source, tmp_path / 'sharp.mp4', 33, 'kill')
    second = tmp_path / '.sharp.mp4.partial/000001.packets'
    second.rename(tmp_path / 'second')
    second.symlink_to(tmp_path)
    with pytest.raises(DBLRError, match=r'000001.packets cannot be read \(Is a directory\)'):
        write(source, tmp_path / 'sharp.mp4', existing='resume')
    (tmp_path / 'second').rename(second)
    assert write(source, tmp_path / 'sharp.mp4', existing='resume') == 30


@pytest.mark.parametrize('damage', ['cut', 'flip', 'missing', 'empty'])
def test_damaged_segments_are_restored_again(tmp_path, caplog, damage):
    source = make(tmp_path / 'shaky.mp4', Made(frames=35))
    output = tmp_path / 'sharp.mp4'
    write(source, output, 33, 'kill')
    second = tmp_path / '.sharp.mp4.partial/000001.packets'
    data = second.read_bytes()
    flipped = data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :]
    second.write_bytes({'cut': data[:-5], 'flip': flipped, 'missing': b'', 'empty': b''}[damage])
    if damage == 'missing':
        second.unlink()
    assert write(source, output, existing='resume') == 10
    assert 'from frame 10 on is damaged; it is restored again' in caplog.text
    write(source, tmp_path / 'whole.mp4')
    assert held(output) == held(tmp_path / 'whole.mp4')


def test_resume_with_other_settings_is_refused(tmp_path):
    source = make(tmp_path / 'shaky.mp4', Made(frames=25))
    output = tmp_path / 'sharp.mp4'
    write(source, output, 15, settings={'weights': 'a', 'start': None})
    with pytest.raises(DBLRError, match=r'started with other settings \(weights\); use the same'):
        write(source, output, existing='resume', settings={'weights': 'b', 'start': None})
    (tmp_path / '.sharp.mp4.partial/settings.json').write_text('[')
    with pytest.raises(DBLRError, match='settings.json is damaged'):
        write(source, output, existing='resume')
    assert write(source, output, existing='replace') == 0
    assert visible(tmp_path) == ['shaky.mp4', 'sharp.mp4']


def test_complete_outputs_are_not_overwritten(tmp_path):
    source = make(tmp_path / 'shaky.mp4', Made(frames=5))
    for output in ('sharp.mp4', 'frames', 'frames'):
        write(source, tmp_path / output)
    one = make(tmp_path / 'one.mp4', Made(frames=1))
    write(one, tmp_path / 'one.png')
    for film, output in ((source, 'sharp.mp4'), (source, 'frames'), (one, 'one.png')):
        with pytest.raises(AlreadyComplete, match='is complete'):
            write(film, tmp_path / output, existing='resume')
        with pytest.raises(DBLRError, match='exists; give another output, or --overwrite'):
            write(film, tmp_path / output, existing='refuse')


@pytest.mark.parametrize('kind', ['video', 'folder'])
def test_folder_output_is_resumed(tmp_path, kind):
    source = tmp_path / 'in'
    source.mkdir()
    for number, frame in enumerate(scene(9)):
        cv2.imwrite(str(source / f'{number}.png'), frame[..., ::-1])
    if kind == 'video':
        source = make(tmp_path / 'in.mp4', Made(frames=9))
    write(source, tmp_path / 'out', 4, 'kill')
    third = next(path for path in sorted((tmp_path / 'out').glob('*.png')) if path.stem.endswith('3'))
    third.write_bytes(third.read_bytes()[:100])  # a power cut
    with pytest.raises(DBLRError, match='was started and is not complete'):
        write(source, tmp_path / 'out', existing='refuse')
    with pytest.raises(DBLRError, match='other settings'):
        write(source, tmp_path / 'out', existing='resume', settings={'weights': 'b'})
    assert write(source, tmp_path / 'out', existing='resume') == 3
    write(source, tmp_path / 'whole')
    assert visible(tmp_path / 'out') == visible(tmp_path / 'whole')
    for path in (tmp_path / 'whole').iterdir():
        assert path.read_bytes() == (tmp_path / 'out' / path.name).read_bytes()


@pytest.fixture(params=['video', 'folder'])
def nine(request, tmp_path) -> Path:
    """Nine frames, as a video or as a folder of images."""
    if request.param == 'video':
        return make(tmp_path / 'in.mp4', Made(frames=9))
    (tmp_path / 'in').mkdir()
    for number, frame in enumerate(scene(9)):
        cv2.imwrite(str(tmp_path / f'in/{number:08d}.png'), frame[..., ::-1])
    return tmp_path / 'in'


@pytest.mark.parametrize('missing', [0, 4, 8])
def test_missing_frames_of_a_complete_output_are_added(nine, tmp_path, caplog, missing):
    """Existing frames are kept, whatever their settings, also if the run is killed and resumed."""
    write(nine, tmp_path / 'whole')
    write(nine, tmp_path / 'out')
    (tmp_path / f'out/{missing:08d}.png').unlink()
    other = tmp_path / f'out/{7 if missing == 8 else missing + 1:08d}.png'
    cv2.imwrite(str(other), np.zeros((64, 96, 3), np.uint8))
    kept = other.read_bytes()
    with pytest.raises(DBLRError, match='exists; give another output'):
        write(nine, tmp_path / 'out', existing='refuse')
    write(nine, tmp_path / 'out', missing, 'kill', existing='resume')
    assert 'out is not complete; what is missing is restored' in caplog.text
    write(nine, tmp_path / 'out', existing='resume')
    assert visible(tmp_path / 'out') == visible(tmp_path / 'whole')
    assert other.read_bytes() == kept
    for path in (tmp_path / 'whole').iterdir():
        assert path.name == other.name or path.read_bytes() == (tmp_path / 'out' / path.name).read_bytes()


def test_resumed_replacement_does_not_keep_old_frames(nine, tmp_path):
    write(nine, tmp_path / 'out', settings={'weights': 'old'})
    for path in (tmp_path / 'out').iterdir():
        cv2.imwrite(str(path), np.zeros((64, 96, 3), np.uint8))
    write(nine, tmp_path / 'out', 4, 'kill', existing='replace')
    assert write(nine, tmp_path / 'out', existing='resume') == 4
    write(nine, tmp_path / 'whole')
    for path in (tmp_path / 'whole').iterdir():
        assert path.read_bytes() == (tmp_path / 'out' / path.name).read_bytes()


def test_leftover_frames_of_a_longer_output_are_reported(tmp_path, caplog):
    """A video made from the folder would contain frames of both outputs."""
    write(make(tmp_path / 'long.mp4', Made(frames=5)), tmp_path / 'out')
    write(make(tmp_path / 'short.mp4', Made(frames=3)), tmp_path / 'out', existing='replace')
    assert 'out also has 2 frames of a longer output, such as 00000003.png' in caplog.text


def test_second_run_with_the_same_output_is_refused(tmp_path):
    source = make(tmp_path / 'shaky.mp4', Made(frames=15))
    for output in ('sharp.mp4', 'frames'):
        with open_source(source) as opened:
            first = open_sink(tmp_path / output, opened, settings={})
            first.write(next(iter(opened)))
            for existing in ('replace', 'refuse', 'resume'):
                with pytest.raises(DBLRError, match='is being written by another process'):
                    write(source, tmp_path / output, existing=existing)
            first.abandon()
        write(source, tmp_path / output, existing='resume')
    assert len(decoded(tmp_path / 'sharp.mp4')) == len(visible(tmp_path / 'frames')) == 15


def test_segments_keep_packets_unchanged(tmp_path):
    kept = Segments(tmp_path)
    kept.begin((4, 6), True)
    for pts, dts in ((7, None), (9, -3), (8, 2)):
        packet = av.Packet(bytes([pts]) * pts)
        packet.pts, packet.dts, packet.duration, packet.is_keyframe = pts, dts, 5, pts == 7
        kept.add(packet)
    kept.seal(3)
    again = Segments(tmp_path)
    assert (again.size, again.high_bit_depth, again.pictures) == ((4, 6), True, 3)
    assert (again.first, again.last, again.end) == (7, 9, 14)
    assert [(p.pts, p.dts, p.duration, p.is_key, p.data) for p in again.packets()] == [
        (7, None, 5, True, b'\7' * 7), (9, -3, 5, False, b'\11' * 9), (8, 2, 5, False, b'\10' * 8),
    ]  # fmt: skip
