"""What describes pictures: the shape of pixels, HDR10, fonts, titles, further pictures, and names of outputs."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from PIL import Image, ImageCms

av = pytest.importorskip('av')

from made_videos import Made, decoded, make, scene  # noqa: E402
from media_copying import copy  # noqa: E402

from dblr_plugin.errors import DBLRError  # noqa: E402

HDR10 = (
    'log-level=0:hdr10=1:colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc:max-cll=1000,400:'
    'master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1)'
)


@pytest.mark.parametrize(
    ('name', 'encoder'),
    [('a.webm', None), ('a.mkv', 'libvpx-vp9'), ('a.mkv', 'ffv1'), ('a.mkv', None), ('a.mp4', None)],
)
@pytest.mark.parametrize('audio', [0, 1])
def test_pixels_keep_their_shape(tmp_path, name, encoder, audio):
    wide = Made(tags={'sample_aspect_ratio': Fraction(16, 11)}, audio=audio)
    output = tmp_path / name
    copy(make(tmp_path / 'wide.mp4', wide), output, encoder=encoder)
    with av.open(str(output)) as container:
        assert float(container.streams.video[0].sample_aspect_ratio) == pytest.approx(16 / 11, rel=0.005)
        container.seek(200000)
        assert next(container.decode(video=0)).key_frame
    assert len(decoded(output)) == 12


def test_hdr10_stays_or_is_told(tmp_path, caplog):
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


def test_fonts_stay_or_are_told(tmp_path, caplog):
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


@pytest.mark.parametrize('name', ['stack.tif', 'anim.png', 'anim.webp'])
def test_further_pictures_are_told(tmp_path, caplog, name):
    pictures = [Image.fromarray(np.full((48, 64, 3), 40 * i + 20, np.uint8)) for i in range(5)]
    pictures[0].save(tmp_path / name, save_all=True, append_images=pictures[1:])
    copy(tmp_path / name, tmp_path / 'out.png')
    assert f'{name} (5)' in caplog.text


@pytest.mark.parametrize('name', ['clip.mpv', 'photo.avif', 'out.xyz'])
def test_unknown_suffixes_are_refused(tmp_path, name):
    source = make(tmp_path / 'a.mp4', Made(frames=2))
    with pytest.raises(DBLRError, match=r'no format that is written; give \.mp4 .* or a folder'):
        copy(source, tmp_path / name)
    assert not (tmp_path / name).exists()
    copy(source, f'{tmp_path / name}/')
    assert (tmp_path / name / '00000000.png').is_file()


@pytest.mark.parametrize('name', ['p.jpg', 'p.png', 'p.webp'])
def test_colour_profiles_stay_or_are_told(tmp_path, caplog, name):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
    Image.fromarray(scene(1)[0]).save(tmp_path / name, icc_profile=profile)
    copy(tmp_path / name, tmp_path / f'out/{name}')
    with Image.open(tmp_path / f'out/{name}') as image:
        image.load()
        assert image.info.get('icc_profile') == (None if name == 'p.webp' else profile)
    assert ('ICC profile is left out' in caplog.text) == (name == 'p.webp')
