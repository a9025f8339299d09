"""Metadata of images (Exif, ICC profiles, PNG colour tags, resolution) is kept, or its loss is reported."""

from __future__ import annotations

import struct
import zlib
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

pytest.importorskip('av')

from made_videos import Made, decoded, make, scene
from media_copying import copy

from dblr_plugin.errors import DBLRError
from dblr_plugin.video.image_metadata import ImageMetadata, encoded

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
EXPOSURE, NORTH = 0.02, 'N'


def photograph(path: Path, pixels: np.ndarray, profile: bytes = PROFILE) -> Path:
    """Writes an image with Exif and an ICC profile, as a camera held sideways does."""
    exif = Image.Exif()
    exif.update({0x010F: 'Maker', 0x0112: 6})
    exif.get_ifd(0x8769).update({0x829A: EXPOSURE, 0xA002: pixels.shape[1]})
    exif.get_ifd(0x8825)[1] = NORTH
    Image.fromarray(pixels).save(path, icc_profile=profile, exif=exif, quality=100)
    return path


def described(path: Path) -> tuple:
    with Image.open(path) as image:
        exif = image.getexif()
        inner = dict(exif.get_ifd(0x8769))
        return image.info.get('icc_profile'), exif.get(0x010F), exif.get(0x0112), inner, dict(exif.get_ifd(0x8825))


@pytest.mark.parametrize('target', ['.jpg', '.webp', '.tif'])
def test_dots_per_inch_of_a_jpeg_without_exif_are_kept(tmp_path, target):
    Image.fromarray(scene(1)[0]).save(tmp_path / 'p.jpg', dpi=(300, 200))
    copy(tmp_path / 'p.jpg', tmp_path / f'out{target}')
    with Image.open(tmp_path / f'out{target}') as image:
        exif = image.getexif()
        assert (exif[282], exif[283], exif[296]) == (300, 200, 2)


@pytest.mark.parametrize('target', ['.png', '.jpg', '.webp', '.tif', '.bmp'])
@pytest.mark.parametrize('name', ['p.jpg', 'p.png', 'p.webp'])
def test_icc_profile_and_exif_are_kept_or_their_loss_reported(tmp_path, caplog, name, target):
    source = photograph(tmp_path / name, scene(1)[0])
    output = tmp_path / f'out/sharp{target}'
    copy(source, output)
    whole = (PROFILE, 'Maker', None, {0x829A: EXPOSURE}, {1: NORTH})
    assert described(output) == ((None, None, None, {}, {}) if target == '.bmp' else whole)
    assert ('left out' in caplog.text) == ('ICC profile, Exif' in caplog.text) == (target == '.bmp')
    before, after = cv2.imread(str(source)), cv2.imread(str(output))  # cv2 applies the Exif rotation
    assert before.shape == after.shape and np.abs(before.astype(int) - after).max() < 16
    copy(output, tmp_path / 'again.tif')  # our reader finds what was written
    assert described(tmp_path / 'again.tif')[:2] == described(output)[:2]


@pytest.mark.parametrize('source', ['.png', '.tif'])
@pytest.mark.parametrize('target', ['.png', '.tif'])
def test_icc_profile_of_sixteen_bit_images_is_kept(tmp_path, source, target):
    pixels = scene(1, high_bit_depth=True)[0]
    path = tmp_path / f'p{source}'
    path.write_bytes(encoded(np.ascontiguousarray(pixels[..., ::-1]), path, ImageMetadata(PROFILE)))
    copy(tmp_path / f'p{source}', tmp_path / f'out{target}')
    assert np.array_equal(cv2.imread(str(tmp_path / f'out{target}'), cv2.IMREAD_UNCHANGED), pixels)
    assert described(tmp_path / f'out{target}')[0] == PROFILE


@pytest.mark.parametrize(('mode', 'space'), [('L', b'GRAY'), ('CMYK', b'CMYK')])
@pytest.mark.parametrize('suffix', ['.jpg', '.tif'])
def test_dropped_grey_and_cmyk_profiles_are_reported(tmp_path, caplog, mode, space, suffix):
    foreign = PROFILE[:16] + space + PROFILE[20:]
    Image.fromarray(scene(1)[0]).convert(mode).save(tmp_path / f'p{suffix}', icc_profile=foreign)
    copy(tmp_path / f'p{suffix}', tmp_path / f'out{suffix}')
    assert f'{space.decode()} ICC profile' in caplog.text and described(tmp_path / f'out{suffix}')[0] is None


HDR = {b'cICP': bytes((9, 16, 0, 1)), b'gAMA': struct.pack('>I', 100000), b'pHYs': struct.pack('>IIB', 11811, 11811, 1)}
SRGB = {b'sRGB': b'\0', b'gAMA': struct.pack('>I', 45455), b'pHYs': HDR[b'pHYs']}


@pytest.mark.parametrize(('tags', 'told'), [(HDR, True), (SRGB, False)])
def test_png_colour_chunks_are_kept_or_their_loss_reported(tmp_path, caplog, tags, told):
    data = cv2.imencode('.png', scene(1, high_bit_depth=True)[0])[1].tobytes()
    chunks = [struct.pack('>I', len(value)) + kind + value for kind, value in tags.items()]
    chunks = [chunk + struct.pack('>I', zlib.crc32(chunk[4:])) for chunk in chunks]
    (tmp_path / 'a.png').write_bytes(data[:33] + b''.join(chunks) + data[33:])
    copy(tmp_path / 'a.png', tmp_path / 'b.png')
    again = (tmp_path / 'b.png').read_bytes()
    assert all(chunk in again for chunk in chunks) and caplog.text == ''
    assert np.array_equal(cv2.imread(str(tmp_path / 'b.png'), -1), cv2.imread(str(tmp_path / 'a.png'), -1))
    copy(tmp_path / 'a.png', tmp_path / 'b.tif')
    copy(tmp_path / 'a.png', tmp_path / 'b.mkv')
    assert caplog.text.count('PNG colour tags') == 2 * told


@pytest.mark.parametrize(('transfer', 'said'), [(18, (9, 18)), (1, (9, 1)), (2, (2, 2))])
def test_png_frames_of_an_hdr_video_have_its_colour_tags(tmp_path, caplog, transfer, said):
    tags = {'colorspace': 9, 'color_range': 1, 'color_primaries': 9, 'color_trc': transfer}
    made = Made(scene(2, high_bit_depth=True), 'ffv1', 'yuv420p10le', options={}, tags=tags)
    copy(make(tmp_path / 'hdr.mkv', made), tmp_path / 'out')
    (frame,) = decoded(tmp_path / 'out/00000001.png')  # by FFmpeg
    assert (frame.color_primaries, frame.color_trc) == said
    assert frame.format.name.startswith('rgb48') and caplog.text == ''
    wide = make(tmp_path / 'dv.mp4', Made(frames=1, tags={'sample_aspect_ratio': Fraction(16, 11)}))
    copy(wide, tmp_path / 'square')
    assert b'cICP' not in (tmp_path / 'square/00000000.png').read_bytes()
    assert 'square: the pixel aspect ratio, 16/11, is left out' in caplog.text


def test_what_a_format_cannot_hold_is_refused(tmp_path, caplog):
    exif = Image.Exif()
    exif[0x010E] = 'x' * 70000
    Image.fromarray(scene(1)[0]).save(tmp_path / 'a.png', exif=exif)
    with pytest.raises(DBLRError, match=r'b\.jpg: the Exif data of its source are too large for JPEG; give \.png'):
        copy(tmp_path / 'a.png', tmp_path / 'b.jpg')
    cv2.imwrite(str(tmp_path / 'wide.png'), np.zeros((1, 16384, 3), np.uint16))
    with pytest.raises(DBLRError, match=r'b\.webp: \.webp cannot hold 16384x1 pixels'):
        copy(tmp_path / 'wide.png', tmp_path / 'b.webp')
    assert 'b.webp holds 8 bits only, and its source has 16' in caplog.text
    assert not list(tmp_path.glob('*b.*'))


def test_dropped_text_and_damaged_exif_are_reported(tmp_path, caplog):
    (tmp_path / 'frames').mkdir()
    text = PngImagePlugin.PngInfo()
    text.add_text('Title', 'Holiday')
    Image.fromarray(scene(1)[0]).save(tmp_path / 'frames/0.png', pnginfo=text)
    Image.fromarray(scene(1)[0]).save(tmp_path / 'frames/1.png', exif=b'Exif\0\0II*\0\xff\xff\xff\xff')
    photograph(tmp_path / 'frames/2.png', np.ascontiguousarray(scene(1)[0]))
    (tmp_path / 'frames/2.png').replace(tmp_path / 'turned.png')
    copy(tmp_path / 'frames', tmp_path / 'out')
    copy(tmp_path / 'turned.png', tmp_path / 'sharp.mp4')
    assert 'text, damaged Exif' in caplog.text and 'ICC profile, Exif' in caplog.text
    assert len(list((tmp_path / 'out').glob('*.png'))) == 2
