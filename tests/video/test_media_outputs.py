"""Outputs are complete, or playable up to where they stopped, or absent; errors name the file and the fix."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

av = pytest.importorskip('av')

from made_videos import Made, decoded, make, packets, scene, times  # noqa: E402
from media_copying import copy, sink_of, visible  # noqa: E402
from processes import files_of_at_most  # noqa: E402

from dblr_plugin.errors import DBLRError  # noqa: E402
from dblr_plugin.video import copied_streams, open_sink, open_source, video_source  # noqa: E402


@pytest.fixture(scope='module')
def video(tmp_path_factory) -> Path:
    """A video of 30 frames with sound, in its own folder. Tests must not change it."""
    return make(tmp_path_factory.mktemp('in') / 'shaky.mp4', Made(frames=30, audio=1))


@pytest.mark.parametrize('suffix', ['.mp4', '.mov', '.mkv', '.webm'])
@pytest.mark.parametrize('written', [1, 17])
def test_abandoned_video_is_playable(tmp_path, video, suffix, written):
    folder = tmp_path / 'out'
    with open_source(video) as source:
        sink = open_sink(folder / f'sharp{suffix}', source)
        for _, picture in zip(range(written), source, strict=False):
            sink.write(picture)
        assert visible(folder) == [f'.sharp{suffix}.partial']
        assert sink.abandon()
    assert visible(folder) == [f'.sharp{suffix}.partial', f'sharp{suffix}']  # the hidden folder allows it to be resumed
    assert len(decoded(folder / f'sharp{suffix}')) == written
    heard = packets(folder / f'sharp{suffix}')[0]
    assert all(float(time) <= written / 30 + 0.1 for time, _ in heard)


def test_sink_abandoned_before_the_first_frame_leaves_no_file(tmp_path, video):
    with open_source(video) as source:
        sink = open_sink(tmp_path / 'sharp.mp4', source)
        assert not sink.abandon()
        with pytest.raises(DBLRError, match='no frame'):
            open_sink(tmp_path / 'sharp.mp4', source).finish()
    assert visible(tmp_path) == []


def test_existing_output_is_kept_until_the_new_one_is_complete(tmp_path, video):
    output = tmp_path / 'sharp.mp4'
    output.write_bytes(b'older')
    with pytest.raises(DBLRError, match='exists'), open_source(video) as source:
        open_sink(output, source, existing='refuse')
    with open_source(video) as source:
        sink = open_sink(output, source)
        sink.write(next(iter(source)))
        assert output.read_bytes() == b'older'
        sink.finish()
    assert len(decoded(output)) == 1


@pytest.mark.slow
def test_full_disk_leaves_no_broken_output(tmp_path):
    noise = [np.random.default_rng(i).integers(0, 256, (64, 96, 3), dtype=np.uint8) for i in range(60)]
    source = make(tmp_path / 'noise.mp4', Made(frames=noise, audio=1))
    # the last limit is reached at MP4's index, which follows the frames
    limits = {'sharp.mp4': 100_000, 'sharp.mkv': 100_000, 'frames': 5000, 'end.mp4': 0}
    copy(source, tmp_path / 'whole.mp4')
    limits['end.mp4'] = (tmp_path / 'whole.mp4').read_bytes().rindex(b'moov')
    for name, limit in limits.items():
        with open_source(source) as opened, files_of_at_most(limit):
            sink = open_sink(tmp_path / 'out' / name, opened)
            with pytest.raises(DBLRError, match='could not be written'):
                for picture in opened:
                    sink.write(picture)
                sink.finish()
            assert not sink.abandon()
    # the segments encoded before the disk was full are kept, so that the run can be resumed
    assert visible(tmp_path / 'out') == ['.end.mp4.partial']


def test_input_is_never_overwritten(tmp_path, video):
    with open_source(video) as source, pytest.raises(DBLRError, match='part of the path is a file, not a folder'):
        open_sink(video / 'sharp.mp4', source)
    link = tmp_path / 'link.mp4'
    link.symlink_to(video)
    for output in (video, link):
        with pytest.raises(DBLRError, match='is the input'), open_source(video) as source:
            open_sink(output, source)


BAD_OUTPUTS = [
    ('sharp.mp4', {'encoder': 'libx246'}, "no encoder 'libx246'.*did you mean 'libx26"),
    ('sharp.mp4', {'encoder': 'aac'}, 'encodes audio'),
    ('sharp.mp4', {'encoder': 'prores_ks'}, r'\.mp4 cannot hold .* prores_ks; write \.mov, or use libx264$'),
    ('sharp.mov', {'encoder': 'libvpx-vp9'}, r'\.mov cannot hold .* libvpx-vp9; write \.mp4, or use libx264$'),
    ('sharp.webm', {'encoder': 'libx264'}, r'\.webm cannot hold .* libx264; write \.mp4, or use libvpx-vp9$'),
    ('sharp.mkv', {'encoder': 'png'}, r'\.mkv cannot hold .* png; write \.mp4, or use libx264$'),
    ('sharp.mkv', {'encoder': 'bmp'}, r'\.mkv cannot hold .* bmp; use libx264$'),
    ('sharp.mkv', {'encoder': 'prores_ks', 'lossless': True}, 'not lossless'),
    ('sharp.mkv', {'quality': 10, 'lossless': True}, 'exclude each other'),
    ('sharp.mov', {'encoder': 'prores_ks', 'quality': 3}, 'prores_ks has no quality scale; remove --quality'),
    ('sharp.mkv', {'encoder': 'ffv1', 'quality': 3}, 'ffv1 is lossless; remove --quality, or use --encoder libx264'),
    ('sharp.mkv', {'encoder': 'jpeg2000', 'quality': 3}, 'jpeg2000 has no quality scale'),
    ('sharp.mkv', {'quality': 99}, 'quality is 99; give 0'),
    ('sharp.mp4', {'preset': 'slwo'}, "no preset is called 'slwo'; did you mean 'slow'?"),
    ('sharp.mkv', {'encoder': 'ffv1', 'preset': 'slow'}, 'ffv1 has no presets'),
    ('sharp.wmv', {}, r'\.wmv cannot be written.*\.mkv'),
    ('sharp.avi', {}, r'\.avi cannot be written; give one of \.mp4 .*\.mkv'),
    ('sharp.mp4', {'suffix': '_x'}, 'for folders'),
    ('sharp.mp4', {'fps': 30}, 'its own frame rate'),
    ('folder', {'lossless': True}, 'is not a video'),
    ('one.png', {'suffix': '_x'}, "one.png is a file name; --suffix '_x' is only for folders"),
    ('one.png', {}, 'is one image'),
]


@pytest.mark.parametrize(('output', 'options', 'message'), BAD_OUTPUTS)
def test_impossible_outputs_are_refused(tmp_path, video, output, options, message):
    with open_source(video) as source, pytest.raises(DBLRError, match=message):
        sink_of(tmp_path / output, source, **options)
    assert visible(tmp_path) == []


def test_standard_output_is_refused(tmp_path, video, monkeypatch):
    """As with FFmpeg's tools, - would be standard output; it was a folder of that name."""
    monkeypatch.chdir(tmp_path)
    with open_source(video) as source:
        with pytest.raises(DBLRError, match='results cannot go to standard output'):
            sink_of('-', source)
        sink_of('./-', source).abandon()


@pytest.mark.skipif(Path('/dev/dri').exists(), reason='the hardware may be there')
def test_encoder_without_its_hardware_is_refused(tmp_path, video):
    with pytest.raises(DBLRError, match='h264_qsv does not start, as its hardware or driver is missing'):
        copy(video, tmp_path / 'sharp.mp4', encoder='h264_qsv')


@pytest.mark.parametrize(
    ('encoder', 'suffix'),
    [('libx265', '.mp4'), ('libsvtav1', '.mp4'), ('mpeg4', '.mp4'), ('mpeg2video', '.mkv'), ('mjpeg', '.mov')],
)
def test_encoders_keep_times_and_obey_quality(tmp_path, video, encoder, suffix):
    sizes = []
    for quality in (None, 40 if encoder.startswith('lib') else 20):
        copy(video, tmp_path / f'sharp{suffix}', encoder=encoder, quality=quality)
        assert times(tmp_path / f'sharp{suffix}') == times(video) or suffix == '.mkv'
        sizes.append((tmp_path / f'sharp{suffix}').stat().st_size)
    assert sizes[1] < sizes[0]


@pytest.mark.parametrize('encoder', ['libx264', 'libx265'])
def test_default_preset_is_medium(tmp_path, video, encoder):
    """``ultrafast`` gives other packets, which shows that the preset is used."""
    films = {}
    for preset in (None, 'medium', 'ultrafast'):
        copy(video, tmp_path / 'sharp.mp4', encoder=encoder, preset=preset)
        films[preset] = packets(tmp_path / 'sharp.mp4', 'video')
    assert films[None] == films['medium'] != films['ultrafast']


@pytest.mark.parametrize('frames', [1, 2])
def test_x265_keeps_times_of_one_or_two_frames(tmp_path, frames):
    """x265 gives so few frames random timestamps, which MP4 refuses about half the time."""
    source = make(tmp_path / 'short.mp4', Made(frames=frames))
    for _ in range(4):
        copy(source, tmp_path / 'sharp.mp4', encoder='libx265')
        assert times(tmp_path / 'sharp.mp4') == times(source)


def test_unreadable_inputs_are_refused_by_name(tmp_path):
    (tmp_path / 'text.mp4').write_text('This is no video, whatever its name says.' * 100)
    (tmp_path / 'empty.mp4').write_bytes(b'')
    (tmp_path / 'folder').mkdir()
    whole = make(tmp_path / 'whole.mp4', Made())
    (tmp_path / 'cut.mp4').write_bytes(whole.read_bytes()[:-500])  # the index is at the end
    with av.open(str(make(tmp_path / 'both.mp4', Made(audio=1)))) as old, av.open(str(tmp_path / 'a.m4a'), 'w') as new:
        stream = new.add_stream_from_template(old.streams.audio[0])
        for packet in old.demux(audio=0):
            if packet.size:
                packet.stream = stream
                new.mux(packet)
    cases = {
        'missing.mp4': 'does not exist',
        'text.mp4': 'is not a video',
        'empty.mp4': 'is not a video',
        'cut.mp4': 'is not a video, or is incomplete',
        'a.m4a': 'has no video stream',
        'folder': 'no images',
        'missing/*.png': 'matches nothing; give',
        '*.mp4': 'matches 5 files or folders, none of them an image',
    }
    for name, message in cases.items():
        with pytest.raises(DBLRError, match=message) as raised:
            open_source(tmp_path / name)
        assert str(tmp_path) in str(raised.value)
    with pytest.raises(DBLRError, match='no frame that can be decoded from 100 s on; change start or end'):
        open_source(whole, start=100)
    with pytest.raises(DBLRError, match=r'--end 2 is not after --start 2\.5'):
        open_source(whole, '2.5', '0:02')
    for start in ('soon', '1:2:3:4', -3):
        with pytest.raises(DBLRError, match='is not a time'):
            open_source(whole, start=start)


def test_cover_image_does_not_count_as_video(tmp_path):
    with (
        av.open(str(make(tmp_path / 'both.mp4', Made(audio=1)))) as old,
        av.open(str(tmp_path / 'song.mp4'), 'w') as new,
    ):
        sound = new.add_stream_from_template(old.streams.audio[0])
        cover = new.add_stream('png', 1)
        cover.height, cover.width, cover.pix_fmt = 64, 96, 'rgb24'
        cover.disposition = av.stream.Disposition.attached_pic
        new.mux(cover.encode(av.VideoFrame.from_ndarray(scene(1)[0], format='rgb24')))
        for packet in old.demux(audio=0):
            if packet.size:
                packet.stream = sound
                new.mux(packet)
    with av.open(str(tmp_path / 'song.mp4')) as container:
        assert len(container.streams.video) == 1
    with pytest.raises(DBLRError, match='has no video stream'):
        open_source(tmp_path / 'song.mp4')


def with_damage(source: Path, target: Path, numbers: tuple[int, ...], fill: bytes | None) -> None:
    """Copies a video and overwrites the packets of these numbers with ``fill``, by default with zeros."""
    with av.open(str(source)) as old, av.open(str(target), 'w') as new:
        stream = old.streams.video[0]
        copied = new.add_stream_from_template(stream, opaque=True)
        for number, packet in enumerate(old.demux(stream)):
            if not packet.size:
                continue
            if number in numbers:
                damaged = av.Packet(bytes(packet.size) if fill is None else fill)
                for name in ('pts', 'dts', 'time_base', 'duration', 'is_keyframe'):
                    setattr(damaged, name, getattr(packet, name))
                packet = damaged
            packet.stream = copied
            new.mux(packet)


@pytest.mark.parametrize('codec', ['libx264', 'libx265', 'mpeg4', 'ffv1'])
@pytest.mark.parametrize('fill', [None, b'\x01'])
def test_damaged_frames_are_replaced(tmp_path, caplog, codec, fill):
    options = {'libx264': {'bf': '2', 'g': '10'}, 'libx265': {'x265-params': 'log-level=0:keyint=10'}}
    source = make(tmp_path / 'whole.mkv', Made(frames=40, codec=codec, options=options.get(codec, {})))
    with_damage(source, tmp_path / 'bad.mkv', (12, 13, 25), fill)
    pictures = copy(tmp_path / 'bad.mkv', tmp_path / 'sharp.mp4')
    assert len(pictures) == 40
    assert times(tmp_path / 'sharp.mp4') == times(source)
    assert 'cannot be decoded, at 0.' in caplog.text or 'damaged data' in caplog.text or codec == 'ffv1'


class Unplugged:
    """A container whose file can no longer be read after some packets; here it has become a folder."""

    def __init__(self, container: av.container.InputContainer, folder: Path, packets: int) -> None:
        self.container, self.name, self.packets = container, f'file:{folder}', packets

    def __getattr__(self, name: str) -> object:
        return getattr(self.container, name)

    def demux(self, *streams: object) -> Iterator[av.Packet]:
        yield from islice(self.container.demux(*streams), self.packets)
        raise av.error.OSError(errno.EIO, 'Input/output error')


@pytest.mark.parametrize('module', [video_source, copied_streams])
def test_disk_that_is_unplugged_does_not_pass_for_the_end_of_the_video(tmp_path, monkeypatch, module):
    source, opened = make(tmp_path / 'film.mkv', Made(frames=40, audio=1)), module.open_container
    monkeypatch.setattr(module, 'open_container', lambda path: Unplugged(opened(path), tmp_path, 20))
    with pytest.raises(DBLRError, match=r'cannot be read \(Is a directory\); check its disk or the network'):
        copy(source, tmp_path / 'sharp.mkv')


def test_only_damage_in_the_part_that_is_restored_is_reported(tmp_path, caplog):
    source = make(tmp_path / 'whole.mkv', Made(frames=40, options={'bf': '0', 'g': '60'}))
    with_damage(source, tmp_path / 'bad.mkv', (12, 30), None)
    copy(tmp_path / 'bad.mkv', tmp_path / 'sharp.mp4', {'start': 0.8})
    assert '1 frame cannot be decoded, at 1.00 s; the frame before each is repeated' in caplog.text
    caplog.clear()
    copy(tmp_path / 'bad.mkv', tmp_path / 'sharp.mp4', {'start': 1.1})
    assert 'cannot be decoded' not in caplog.text


@pytest.mark.parametrize('suffix', ['.mkv', '.ts', '.avi'])
def test_truncated_video_is_read_up_to_its_end(tmp_path, suffix):
    codec = 'mpeg4' if suffix == '.avi' else 'libx264'
    source = make(tmp_path / f'whole{suffix}', Made(frames=60, audio=1, codec=codec, options={}))
    content = source.read_bytes()
    (tmp_path / f'cut{suffix}').write_bytes(content[: len(content) * 6 // 10])
    pictures = copy(tmp_path / f'cut{suffix}', tmp_path / 'sharp.mp4')
    assert 20 < len(pictures) < 60
    assert len(decoded(tmp_path / 'sharp.mp4')) == len(pictures)


def test_truncated_mp4_is_reported(tmp_path, caplog):
    source = make(tmp_path / 'plain.mp4', Made(frames=60, audio=1))
    with av.open(str(source)) as old, av.open(str(tmp_path / 'web.mp4'), 'w', options={'movflags': 'faststart'}) as new:
        streams = {stream.index: new.add_stream_from_template(stream, opaque=True) for stream in old.streams}
        for packet in old.demux():
            if packet.size:
                packet.stream = streams[packet.stream.index]
                new.mux(packet)
    content = (tmp_path / 'web.mp4').read_bytes()
    (tmp_path / 'cut.mp4').write_bytes(content[: len(content) * 6 // 10])
    with open_source(tmp_path / 'cut.mp4') as opened:
        assert opened.count == 60
        assert 20 < len(list(opened)) < 60
    assert 'is truncated' in caplog.text and 'of 60 frames' in caplog.text


def test_file_that_changes_while_it_is_read_is_refused(tmp_path):
    """A recording that is still being written would otherwise become an output that passes for complete."""
    file = make(tmp_path / 'recording.ts', Made(frames=10, options={}))
    content = file.read_bytes()
    with open_source(file) as source, pytest.raises(DBLRError, match='changed while it was read'):
        for number, _ in enumerate(source):
            if number == 2:
                file.write_bytes(content + content)
    with open_source(file, end=0.1) as part:
        for _ in part:
            file.write_bytes(content)  # after the part


@pytest.mark.parametrize(
    ('other', 'what'),
    [(Made(frames=scene(5, (96, 64)), options={}), 'frame size'), (Made(pix_fmt='yuv420p10le'), 'bit depth')],
)
def test_change_of_frame_size_or_bit_depth_is_refused(tmp_path, other, what):
    parts = [make(tmp_path / f'{i}.ts', made) for i, made in enumerate([Made(frames=5, options={}), other])]
    (tmp_path / 'both.ts').write_bytes(b''.join(part.read_bytes() for part in parts))
    with open_source(tmp_path / 'both.ts') as source, pytest.raises(DBLRError, match=f'changes its {what} at'):
        list(source)


def test_missing_pyav_names_the_extra_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'av', None)
    (tmp_path / 'a.mp4').write_bytes(b'x')
    with pytest.raises(DBLRError, match=r"pip install 'dblr_plugin\[video\]'"):
        open_source(tmp_path / 'a.mp4')


def test_sound_is_not_buffered_in_memory(tmp_path, video, monkeypatch):
    """Sound packets are read while frames are muxed, at most 0.1 s ahead."""
    with open_source(video) as source:
        sink = open_sink(tmp_path / 'sharp.mp4', source)
        for picture in source:
            sink.write(picture)
        prefetch = []
        until = sink._copied.copy_until
        monkeypatch.setattr(
            sink._copied, 'copy_until', lambda time: (until(time), prefetch.append((time, _next(sink))))
        )
        sink.finish()
    assert len(prefetch) == 31
    assert all(read is None or read < float(time) + 0.1 for time, read in prefetch[:-1])


def _next(sink) -> float | None:
    packet = sink._copied._next
    return None if packet is None else float(packet.pts * packet.time_base)
