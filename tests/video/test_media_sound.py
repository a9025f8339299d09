"""Sound is copied if the container can hold it; otherwise it is re-encoded in sync, with a warning."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

av = pytest.importorskip('av')

from made_videos import Made, make, packets, times  # noqa: E402
from media_copying import copy  # noqa: E402

from dblr_plugin.video import copied_streams  # noqa: E402


def heard(path: Path) -> tuple[str, float, float]:
    """Returns the codec, and when sound begins and ends, in seconds after the first frame."""
    first = times(path)[0]
    loud, next_pts = [], 0
    with av.open(str(path)) as container:
        codec = container.streams.audio[0].codec_context.name
        for frame in container.decode(audio=0):
            start = next_pts if frame.pts is None else frame.pts * frame.time_base  # only some frames of WMA have a pts
            next_pts = start + Fraction(frame.samples, frame.sample_rate)
            samples = frame.to_ndarray().astype(float)
            if np.abs(samples).max() > (
                0.1 if 'flt' in frame.format.name else 0.1 * np.iinfo(frame.to_ndarray().dtype).max
            ):
                loud += [start - first, next_pts - first]
    return codec, float(loud[0]), float(loud[-1])


REFUSED = [
    ('old.avi', 'mjpeg', 'adpcm_ima_wav', 0, '.mkv', 'flac'),
    ('old.avi', 'mjpeg', 'adpcm_ima_wav', 0, '.mp4', 'aac'),
    ('old.wmv', 'mpeg4', 'wmav2', 0, '.mkv', 'flac'),
    ('old.wmv', 'mpeg4', 'wmav2', 0, '.mov', 'aac'),
    ('phone.mp4', 'libx264', 'aac', 24000, '.webm', 'opus'),
    ('film.mkv', 'libx264', 'ac3', 24000, '.webm', 'opus'),
    ('camera.mov', 'libx264', 'pcm_s24le', 24000, '.webm', 'opus'),
]


@pytest.mark.parametrize(('name', 'video', 'sound', 'start', 'suffix', 'codec'), REFUSED)
def test_reencoded_sound_stays_in_sync(tmp_path, caplog, name, video, sound, start, suffix, codec):
    pixels = 'yuvj420p' if video == 'mjpeg' else 'yuv420p'
    made = Made(frames=60, codec=video, pix_fmt=pixels, options={}, audio=1, sound=sound, audio_start=start)
    source = make(tmp_path / name, made)
    copy(source, tmp_path / f'sharp{suffix}')
    assert caplog.text.count('is re-encoded with') == 1 and f'({sound}' in caplog.text
    assert ('write .mkv to keep it' in caplog.text) == (suffix != '.mkv' and sound in ('aac', 'ac3', 'pcm_s24le'))
    _, first, last = heard(source)
    written, *span = heard(tmp_path / f'sharp{suffix}')
    assert written == codec and span == pytest.approx([first, last], abs=0.05)


@pytest.mark.parametrize('sound', ['ac3', 'aac'])
def test_damaged_sound_that_is_reencoded_is_reported(tmp_path, caplog, sound):
    whole = make(tmp_path / 'whole.mkv', Made(frames=30, audio=1, sound=sound))
    with av.open(str(whole)) as old, av.open(str(tmp_path / 'bad.mkv'), 'w') as new:
        copies = [new.add_stream_from_template(stream, opaque=True) for stream in old.streams]
        for packet in old.demux():
            if packet.stream.type == 'audio' and 0.4 < float((packet.pts or 0) * packet.time_base) < 0.5:
                packet.update(bytes(packet.size))
            if packet.size:
                packet.stream = copies[packet.stream.index]
                new.mux(packet)
    for name in ('whole', 'bad'):
        copy(tmp_path / f'{name}.mkv', tmp_path / f'{name}.webm')
        assert ('packets of sound of stream 1 cannot be decoded' in caplog.text) == (name == 'bad')


def test_sound_of_an_excerpt_stays_in_sync(tmp_path):
    source = make(tmp_path / 'phone.mp4', Made(frames=60, audio=1, audio_start=24000))
    copy(source, tmp_path / 'sharp.webm', {'start': 0.2, 'end': 1.5})
    _, first, last = heard(tmp_path / 'sharp.webm')
    assert (first, last) == pytest.approx((heard(source)[1] - 0.2, 1.3), abs=0.05)


def test_a_long_film_is_not_read_to_its_end_for_a_short_part(tmp_path, monkeypatch):
    source = make(tmp_path / 'film.mkv', Made(frames=35, rate=Fraction(1), audio=1))
    read, time = [], copied_streams._time
    monkeypatch.setattr(copied_streams, '_time', lambda packet: read.append(time(packet)) or read[-1])
    copy(source, tmp_path / 'sharp.mkv', {'end': 2})
    assert 32 <= max(read) < 33


@pytest.mark.parametrize('suffix', ['.mp4', '.mov', '.mkv'])
@pytest.mark.parametrize('name', ['camera.avi', 'camera.mkv'])
def test_pcm_is_copied(tmp_path, caplog, name, suffix):
    """AVI and Matroska state no channel layout for PCM; without one, MP4 fails when the file is closed."""
    made = Made(codec='mjpeg', pix_fmt='yuvj420p', options={}, audio=1, sound='pcm_s16le')
    source = make(tmp_path / name, made)
    copy(source, tmp_path / f'sharp{suffix}')
    before, after = (b''.join(data for _, data in packets(path)[0]) for path in (source, tmp_path / f'sharp{suffix}'))
    assert before == after and caplog.text == ''


@pytest.mark.parametrize('suffix', ['.mp4', '.mov', '.mkv'])
def test_gaps_in_pcm_are_kept(tmp_path, caplog, suffix):
    """MP4 writes PCM packets one after another and ignores their times."""
    source = make(tmp_path / 'whole.mkv', Made(frames=60, audio=1, sound='pcm_s16le'))
    with av.open(str(source)) as old, av.open(str(tmp_path / 'hole.mkv'), 'w') as new:
        streams = {stream.index: new.add_stream_from_template(stream, opaque=True) for stream in old.streams}
        for packet in old.demux():
            if packet.size and not (packet.stream.type == 'audio' and 0.5 < packet.pts * packet.time_base < 1):
                packet.stream = streams[packet.stream.index]
                new.mux(packet)
    copy(tmp_path / 'hole.mkv', tmp_path / f'sharp{suffix}')
    assert 'sound of stream 1 is missing for 0.' in caplog.text
    assert heard(tmp_path / f'sharp{suffix}')[2] == pytest.approx(heard(source)[2], abs=0.03)


@pytest.mark.parametrize('suffix', ['.mp4', '.mkv'])
def test_sound_that_an_edit_list_hides_stays_hidden(tmp_path, suffix):
    """Phones trim with such lists; a decoder needs the sound just before, and FFmpeg reads up to 1 s of it."""
    made = Made(frames=30, audio=1, audio_start=-24000)
    source = make(tmp_path / 'trimmed.mp4', made)
    copy(source, tmp_path / f'sharp{suffix}')
    assert packets(source)[0][0][0] < -0.5
    first = packets(tmp_path / f'sharp{suffix}')[0][0][0] - times(tmp_path / f'sharp{suffix}')[0]
    assert -0.1 <= first <= -0.02  # at least the frame of AAC that overlaps the first one


def test_sound_between_the_parts_of_an_edit_list_is_left_out(tmp_path):
    source = make(tmp_path / 'phone.mov', Made(frames=30, audio=1))
    data = source.read_bytes()
    at = data.rindex(b'elst')  # of the sound: one entry of duration, start and rate, which becomes two
    rate = b'\0\1\0\0'
    parts = [(200, 1024), (300, 1024 + 24000)]
    entries = b''.join(duration.to_bytes(4, 'big') + start.to_bytes(4, 'big') + rate for duration, start in parts)
    data = bytearray(data[: at + 8] + (2).to_bytes(4, 'big') + entries + data[at + 24 :])
    data[at + 4 : at + 12] = bytes(4) + (2).to_bytes(4, 'big')
    for name in (b'elst', b'edts', b'trak', b'moov'):
        size = data.rindex(name, 0, at + 4) - 4
        data[size : size + 4] = (int.from_bytes(data[size : size + 4], 'big') + 12).to_bytes(4, 'big')
    source.write_bytes(data)
    copy(source, tmp_path / 'sharp.mkv')
    with av.open(str(source)) as container:
        heard = [bytes(packet) for packet in container.demux(audio=0) if packet.size and not packet.is_discard]
    assert 20 < len(heard) < 30
    assert [data for _, data in packets(tmp_path / 'sharp.mkv')[0]][1:] == heard
