"""Metadata (pixel aspect ratio, HDR10, fonts, titles, chapters) is kept, or its loss is reported."""

from __future__ import annotations

import io
import struct
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

av = pytest.importorskip('av')

from made_videos import Made, decoded, make, scene  # noqa: E402
from media_copying import copy  # noqa: E402

from dblr_plugin.errors import DBLRError  # noqa: E402
from dblr_plugin.video import open_source  # noqa: E402

HDR10 = (
    'log-level=0:hdr10=1:colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc:max-cll=1000,400:'
    'master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1)'
)


@pytest.mark.parametrize(
    ('name', 'encoder'),
    [('a.webm', None), ('a.mkv', 'libvpx-vp9'), ('a.mkv', 'ffv1'), ('a.mkv', None), ('a.mp4', None)],
)
@pytest.mark.parametrize('audio', [0, 1])
def test_pixel_aspect_ratio_is_kept_in_every_container(tmp_path, name, encoder, audio):
    wide = Made(tags={'sample_aspect_ratio': Fraction(16, 11)}, audio=audio)
    output = tmp_path / name
    copy(make(tmp_path / 'wide.mp4', wide), output, encoder=encoder)
    with av.open(str(output)) as container:
        assert float(container.streams.video[0].sample_aspect_ratio) == pytest.approx(16 / 11, rel=0.005)
        container.seek(200000)
        assert next(container.decode(video=0)).key_frame
    assert len(decoded(output)) == 12


def test_hdr10_metadata_is_kept_or_its_loss_reported(tmp_path, caplog):
    made = Made(scene(3, high_bit_depth=True), 'libx265', 'yuv420p10le', options={'x265-params': HDR10})
    source = make(tmp_path / 'hdr.mkv', made)
    kinds = ('MASTERING_DISPLAY_METADATA', 'CONTENT_LIGHT_LEVEL')
    before = [bytes(decoded(source)[0].side_data[kind]) for kind in kinds]
    for encoder in ('libx264', 'libx265'):
        copy(source, tmp_path / 'sharp.mkv', encoder=encoder)
        after = decoded(tmp_path / 'sharp.mkv')[0].side_data
        assert [bytes(after[kind]) for kind in kinds] == before
    assert 'HDR10' not in caplog.text
    copy(source, tmp_path / 'sharp.webm')
    assert 'HDR10 mastering display and light level are left out' in caplog.text


def with_message(source: Path, target: Path, message: bytes) -> None:
    """Copies a video and puts a NAL unit before those of each frame."""
    with av.open(str(source)) as old, av.open(str(target), 'w') as new:
        video = new.add_stream_from_template(old.streams.video[0], opaque=True)
        for packet in old.demux(video=0):
            if packet.size:
                longer = av.Packet(struct.pack('>I', len(message)) + message + bytes(packet))
                for name in ('pts', 'dts', 'time_base', 'duration', 'is_keyframe'):
                    setattr(longer, name, getattr(packet, name))
                longer.stream = video
                new.mux(longer)


def test_lost_captions_and_spherical_metadata_are_reported(tmp_path, caplog):
    """Encoders receive only pixels, so closed captions and spherical projection are lost."""
    plain = make(tmp_path / 'plain.mp4', Made(frames=2))
    captions = b'\xb5\x001GA94\x03A\xff\xfc\x94 \xff'
    with_message(plain, tmp_path / 'film.mp4', bytes((6, 4, len(captions))) + captions + b'\x80')
    copy(plain, tmp_path / 'sharp.mp4')
    assert caplog.text == ''
    copy(tmp_path / 'film.mp4', tmp_path / 'sharp.mp4')
    assert 'film.mp4: left out of the output: closed captions' in caplog.text
    words = ''.join(
        f'<GSpherical:{name}>{value}</GSpherical:{name}>'
        for name, value in {
            'Spherical': 'true', 'Stitched': 'true', 'StitchingSoftware': 'x', 'ProjectionType': 'equirectangular',
        }.items()
    )  # fmt: skip
    box = b'uuid' + bytes.fromhex('ffcc8263f8554a938814587a02521fdd') + words.encode()
    data = bytearray(plain.read_bytes())
    track = data.index(b'trak') - 4
    for start in (track, data.index(b'moov') - 4):
        struct.pack_into('>I', data, start, int.from_bytes(data[start : start + 4], 'big') + len(box) + 4)
    data[track + 8 : track + 8] = struct.pack('>I', len(box) + 4) + box
    (tmp_path / 'round.mp4').write_bytes(data)
    copy(tmp_path / 'round.mp4', tmp_path / 'sharp.mp4')
    assert 'round.mp4: left out of the output: 360 degree projection' in caplog.text


def test_fonts_are_kept_or_their_loss_reported(tmp_path, caplog):
    source, font = tmp_path / 'anime.mkv', b'\0\1\0\0' + b'x' * 300
    plain = make(tmp_path / 'plain.mp4', Made())
    with av.open(str(plain)) as old, av.open(str(source), 'w') as new:
        video = new.add_stream_from_template(old.streams.video[0], opaque=True)
        video.metadata.update({'title': 'Main', 'language': 'jpn'})
        new.add_attachment('MyFont.ttf', 'font/ttf', font)
        for packet in old.demux(video=0):
            if packet.size:
                packet.stream = video
                new.mux(packet)
    copy(source, tmp_path / 'sharp.mkv')
    with av.open(str(tmp_path / 'sharp.mkv')) as container:
        assert [s.data for s in container.streams if s.type == 'attachment'] == [font]
        assert container.streams.video[0].metadata['title'] == 'Main'
        assert container.streams.video[0].language == 'jpn'
    assert caplog.text == ''
    copy(source, tmp_path / 'sharp.mp4')
    assert 'MyFont.ttf' in caplog.text


@pytest.mark.parametrize('suffix', ['.mkv', '.mp4'])
def test_tags_that_are_not_utf8_are_kept(tmp_path, suffix):
    source, plain, latin1 = tmp_path / 'old.mkv', make(tmp_path / 'plain.mp4', Made()), 'Größe'.encode('latin-1')
    with av.open(str(plain)) as old, av.open(str(source), 'w') as new:
        new.metadata['title'] = 'Gr__e'
        video = new.add_stream_from_template(old.streams.video[0])
        new.add_attachment('Gr__e.ttf', 'font/ttf', b'font')
        for packet in old.demux(video=0):
            if packet.size:
                packet.stream = video
                new.mux(packet)
    source.write_bytes(source.read_bytes().replace(b'Gr__e', latin1))
    copy(source, tmp_path / f'sharp{suffix}')
    assert latin1 in (tmp_path / f'sharp{suffix}').read_bytes()


@pytest.mark.parametrize('name', ['stack.tif', 'anim.png', 'anim.webp'])
def test_ignored_further_images_of_a_file_are_reported(tmp_path, caplog, name):
    pictures = [Image.fromarray(np.full((48, 64, 3), 40 * i + 20, np.uint8)) for i in range(5)]
    pictures[0].save(tmp_path / name, save_all=True, append_images=pictures[1:])
    copy(tmp_path / name, tmp_path / 'out.png')
    assert f'{name} (5)' in caplog.text


@pytest.mark.parametrize('name', ['clip.mpv', 'photo.avif', 'out.xyz'])
def test_unknown_suffixes_are_refused(tmp_path, name):
    source = make(tmp_path / 'a.mp4', Made(frames=2))
    with pytest.raises(DBLRError, match=r'no suffix of a format that can be written; give \.mp4 .* or a folder'):
        copy(source, tmp_path / name)
    assert not (tmp_path / name).exists()
    copy(source, f'{tmp_path / name}/')
    assert (tmp_path / name / '00000000.png').is_file()


def test_a_decoder_that_does_not_start_is_reported(tmp_path):
    """It returns the same error for each packet, and without end when asked for the last frames."""
    source = make(tmp_path / 'a.mkv', Made(frames=3, codec='ffv1', options={'level': '3'}))
    with av.open(str(source)) as container:
        description = container.streams.video[0].codec_context.extradata
    source.write_bytes(source.read_bytes().replace(description, bytes(len(description))))
    with pytest.raises(DBLRError, match=r'a\.mkv: the ffv1 decoder does not start \(Invalid data .*intact copy'):
        open_source(source)


@pytest.mark.parametrize('suffix', ['.mkv', '.mp4', '.mov', '.webm'])
def test_matroska_cover_is_kept_or_its_loss_reported(tmp_path, caplog, suffix):
    cover = cv2.imencode('.jpg', scene(1)[0])[1].tobytes()
    plain = make(tmp_path / 'plain.mkv', Made(frames=3))
    with av.open(str(plain)) as old, av.open(str(tmp_path / 'film.mkv'), 'w') as new:
        video = new.add_stream_from_template(old.streams.video[0], opaque=True)
        new.add_attachment('cover.jpg', 'image/jpeg', cover)
        for packet in old.demux(video=0):
            if packet.size:
                packet.stream = video
                new.mux(packet)
    copy(tmp_path / 'film.mkv', tmp_path / f'sharp{suffix}')
    kept = suffix in ('.mkv', '.mp4')
    with av.open(str(tmp_path / f'sharp{suffix}')) as container:
        others = container.streams.video[1:]
        found = [bytes(packet) for packet in container.demux(others) if packet.size] if others else []
    assert found == ([cover] if kept else [])
    assert ('cover cover.jpg' in caplog.text) != kept


APPLE = {'com.apple.quicktime.make': 'Apple', 'com.apple.quicktime.creationdate': '2024-05-01T10:00:00+0200'}


@pytest.mark.parametrize('suffix', ['.mkv', '.mp4', '.mov', '.webm'])
@pytest.mark.parametrize('source', ['.mkv', '.mp4'])
def test_tags_and_track_titles_are_kept(tmp_path, caplog, source, suffix):
    """FFmpeg reads and writes track titles of MP4 under different names, and MP4 has its own tag names."""
    metadata = {'title': 'Holiday', 'DIRECTOR': 'Me'} if source == '.mkv' else APPLE
    made = make(
        tmp_path / f'film{source}', Made(audio=1, titles=('Main', 'Comment'), metadata=metadata, apple=source != '.mkv')
    )
    copy(made, tmp_path / f'sharp{suffix}')
    with av.open(str(tmp_path / f'sharp{suffix}')) as container:
        titles = [s.metadata.get('title', s.metadata.get('name')) for s in container.streams]
        tags = {name.lower(): value for name, value in container.metadata.items()}
    assert titles == ['Main', 'Comment']
    lost = {'director'} if source == '.mkv' and suffix in ('.mp4', '.mov') else set()
    assert {name: tags.get(name.lower()) for name in metadata if name.lower() not in lost} == {
        name: value for name, value in metadata.items() if name.lower() not in lost
    }
    assert ('tag DIRECTOR' in caplog.text) == bool(lost)


@pytest.mark.parametrize(
    ('language', 'kept'), [('deu', {'ger'}), ('fra', {'fra'}), ('fre', {'fra'}), ('gle', {None, 'und'})]
)
def test_language_unknown_to_quicktime_is_reported(tmp_path, caplog, language, kept):
    """QuickTime has a fixed list of languages; MP4 and Matroska hold any language."""
    plain = make(tmp_path / 'plain.mp4', Made(frames=2, audio=1))
    with av.open(str(plain)) as old, av.open(str(tmp_path / 'film.mkv'), 'w') as new:
        streams = {stream.index: new.add_stream_from_template(stream, opaque=True) for stream in old.streams}
        streams[1].metadata['language'] = language
        for packet in old.demux():
            if packet.size:
                packet.stream = streams[packet.stream.index]
                new.mux(packet)
    for suffix, held in (('.mkv', {language}), ('.mp4', {language}), ('.mov', kept)):
        copy(tmp_path / 'film.mkv', tmp_path / f'sharp{suffix}')
        with av.open(str(tmp_path / f'sharp{suffix}')) as container:
            assert container.streams.audio[0].language in held
    assert ('left out, as .mov cannot hold it: tag language of stream 1 (gle)' in caplog.text) == (language == 'gle')


@pytest.mark.parametrize('suffix', ['.mkv', '.mp4'])
def test_chapters_of_an_excerpt_are_shifted_and_cut(tmp_path, caplog, suffix):
    made = make(tmp_path / 'film.mp4', Made(frames=60, chapters=((0, 500), (500, 1500), (1500, 2000))))
    copy(made, tmp_path / f'sharp{suffix}', {'start': 0.2, 'end': 1.2})
    with av.open(str(tmp_path / f'sharp{suffix}')) as container:
        found = [(float(c['start'] * c['time_base']), float(c['end'] * c['time_base'])) for c in container.chapters()]
    assert found == [pytest.approx((0, 0.3)), pytest.approx((0.3, 1.0))]
    assert 'data stream' not in caplog.text


def test_chapters_are_shifted_with_a_film_that_begins_late(tmp_path):
    made = make(tmp_path / 'film.mkv', Made(pts=list(range(60, 72)), chapters=((2100, 2300),)))
    copy(made, tmp_path / 'sharp.mkv')
    with av.open(str(tmp_path / 'sharp.mkv')) as container:
        assert container.streams.video[0].start_time == 0
        assert [float(c['start'] * c['time_base']) for c in container.chapters()] == [pytest.approx(0.1)]


@pytest.mark.parametrize('opacity', [255, 0])
def test_gif_transparency_is_reported_only_if_present(tmp_path, caplog, opacity):
    pictures = [Image.fromarray(np.dstack((p, np.full(p.shape[:2], opacity, np.uint8)))) for p in scene(3)]
    pictures[0].save(tmp_path / 'a.gif', save_all=True, append_images=pictures[1:], duration=[100, 300, 50])
    copy(tmp_path / 'a.gif', tmp_path / 'sharp.mp4')
    assert ('has transparency' in caplog.text) == (opacity == 0)


def test_webm_alpha_is_reported_and_its_tag_removed(tmp_path, caplog):
    source = make(tmp_path / 'logo.webm', Made(frames=2, codec='libvpx-vp9', options={}, pix_fmt='yuva420p'))
    copy(source, tmp_path / 'sharp.webm')
    assert 'has transparency' in caplog.text
    with av.open(str(tmp_path / 'sharp.webm')) as container:
        assert 'alpha_mode' not in {name.lower() for name in container.streams.video[0].metadata}


@pytest.mark.parametrize(
    ('name', 'codec', 'pixels'), [('a.mov', 'prores_ks', 'yuv422p10le'), ('a.mkv', 'mpeg4', 'yuv420p')]
)
def test_colour_tags_of_the_container_are_kept(tmp_path, name, codec, pixels):
    with av.open(str(tmp_path / name), 'w') as container:
        stream = container.add_stream(codec, 25)
        stream.height, stream.width, stream.pix_fmt = 64, 96, pixels
        context = stream.codec_context
        context.color_primaries, context.color_trc, context.colorspace, context.color_range = 9, 16, 9, 1
        for number, picture in enumerate(scene(2)):
            frame = av.VideoFrame.from_ndarray(picture).reformat(format=pixels)
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    copy(tmp_path / name, tmp_path / 'sharp.mkv')
    frame = decoded(tmp_path / 'sharp.mkv')[0]
    assert (frame.color_primaries, frame.color_trc, frame.colorspace, frame.color_range) == (9, 16, 9, 1)


def test_exif_of_motion_jpeg_is_reported(tmp_path, caplog):
    """FFmpeg 8 attaches it to frames, and PyAV 18 has no name for it."""
    image = io.BytesIO()
    exif = Image.Exif()
    exif[0x010F] = 'Maker'
    Image.fromarray(scene(1)[0]).save(image, 'JPEG', exif=exif)
    (tmp_path / 'camera.mjpeg').write_bytes(image.getvalue() * 3)
    assert len(copy(tmp_path / 'camera.mjpeg', tmp_path / 'sharp.mp4')) == 3
    assert 'camera.mjpeg: left out of the output: Exif' in caplog.text


def test_lost_data_streams_are_reported(tmp_path, caplog):
    plain, source = make(tmp_path / 'plain.mp4', Made(frames=2)), tmp_path / 'drone.ts'
    with av.open(str(plain)) as old, av.open(str(source), 'w') as new:
        video, positions = new.add_stream_from_template(old.streams.video[0]), new.add_data_stream('klv')
        for packet in [p for p in old.demux(video=0) if p.size]:
            packet.stream = video
            new.mux(packet)
        position = av.Packet(b'\x06\x0e\x2b\x34' + bytes(30))
        position.pts, position.dts, position.time_base, position.stream = 0, 0, Fraction(1, 1000), positions
        new.mux_one(position)
    copy(source, tmp_path / 'sharp.mp4')
    assert caplog.messages == [f'{tmp_path / "sharp.mp4"}: left out, as .mp4 cannot hold it: data stream 1']
