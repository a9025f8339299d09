"""Frames keep their colours, bit depth, size and orientation."""

from __future__ import annotations

import logging
from fractions import Fraction

import numpy as np
import pytest

av = pytest.importorskip('av')

from made_videos import FULL, LIMITED, Made, decoded, make, scene  # noqa: E402
from media_copying import copy  # noqa: E402

from dblr_plugin.errors import DBLRError  # noqa: E402
from dblr_plugin.video import open_sink, open_source  # noqa: E402
from dblr_plugin.video.colour_tags import ColourTags, FrameMaker, to_rgb  # noqa: E402

BT709, SMPTE170M, BT2020 = 1, 6, 9
WEIGHTS = {BT709: (0.2126, 0.0722), SMPTE170M: (0.299, 0.114), BT2020: (0.2627, 0.0593)}


def by_formula(y, u, v, matrix, code_range, bits):
    """Converts YUV codes to RGB in [0, 1] with the formula of the standards, in float64."""
    red, blue = WEIGHTS[matrix]
    step, top = 2 ** (bits - 8), 2**bits - 1
    reach, offset = ((219 * step, 224 * step), 16 * step) if code_range == LIMITED else ((top, top), 0)
    y, u, v = (y - offset) / reach[0], (u - 128 * step) / reach[1], (v - 128 * step) / reach[1]
    r, b = y + 2 * (1 - red) * v, y + 2 * (1 - blue) * u
    return np.clip(np.stack((r, (y - red * r - blue * b) / (1 - red - blue), b), axis=-1), 0, 1)


@pytest.mark.parametrize('matrix', WEIGHTS)
@pytest.mark.parametrize('code_range', [LIMITED, FULL])
@pytest.mark.parametrize('bits', [8, 10, 12])
def test_colours_follow_the_standards_formula(matrix, code_range, bits):
    """Both directions are compared with float64; errors are in levels of 255."""
    rng = np.random.default_rng(0)
    pixel_format = 'yuv444p' if bits == 8 else f'yuv444p{bits}le'
    frame = av.VideoFrame(64, 48, pixel_format)
    codes = []
    for index, plane in enumerate(frame.planes):
        low, high = (100, 156) if index else (60, 180)
        code = rng.integers(low, high, (plane.height, plane.line_size // (1 if bits == 8 else 2))) * 2 ** (bits - 8)
        code = code.astype(np.uint8 if bits == 8 else np.uint16)
        plane.update(code.tobytes())
        codes.append(code[:, :64].astype(np.float64))
    frame.colorspace, frame.color_range = matrix, code_range
    tags = ColourTags.of(frame, ColourTags())
    rgb = to_rgb(frame, tags)
    expected = by_formula(*codes, matrix, code_range, bits)
    assert rgb.dtype == (np.uint8 if bits == 8 else np.uint16)
    error = np.abs(rgb / (255 if bits == 8 else 65535) - expected).max() * 255
    assert error <= (0.75 if bits == 8 else 0.005)
    back = FrameMaker(pixel_format, tags).make(rgb)
    assert (back.colorspace, back.color_range) == (matrix, code_range)
    inside = ((expected > 0) & (expected < 1)).all(axis=-1)
    for plane, code in zip(back.planes, codes, strict=True):
        dtype = np.uint8 if bits == 8 else np.uint16
        again = np.frombuffer(plane, dtype).reshape(plane.height, -1)[:, :64]
        assert np.abs(again - code)[inside].max() <= (1 if bits == 8 else 0)


@pytest.mark.parametrize(('bits', 'white'), [(8, 255), (10, 65535)])
def test_white_stays_white_in_yuv(bits, white):
    pixels = np.full((16, 16, 3), white, np.uint8 if bits == 8 else np.uint16)
    tags = ColourTags(matrix=BT709, range=LIMITED)
    pixel_format = 'yuv420p' if bits == 8 else 'yuv420p10le'
    assert (to_rgb(FrameMaker(pixel_format, tags).make(pixels), tags) == white).all()


# Largest allowed mean and maximum error in levels of 255; subsampled chroma blurs hard edges.
ROUND_TRIPS = {
    'yuv444p': (0.45, 2),
    'yuv422p': (0.7, None),
    'yuv420p': (0.9, None),
    'yuv444p10le': (0.15, 0.6),
    'yuv420p10le': (0.7, None),
}


@pytest.mark.parametrize('pixel_format', ROUND_TRIPS)
@pytest.mark.parametrize('code_range', [LIMITED, FULL])
def test_yuv_round_trip_error_is_bounded(pixel_format, code_range):
    high_bit_depth = '10' in pixel_format
    pixels = scene(1, (240, 320), high_bit_depth)[0]
    tags = ColourTags(matrix=BT709, range=code_range, full=code_range == FULL)
    again = to_rgb(FrameMaker(pixel_format, tags).make(pixels), tags).astype(float)
    error = np.abs(again - pixels) / (257 if high_bit_depth else 1)
    mean, most = ROUND_TRIPS[pixel_format]
    assert error.mean() <= mean and (most is None or error.max() <= most)


LOSSLESS = [
    ('.mp4', None, False, 0),
    ('.mkv', None, False, 0),
    ('.mkv', 'libx264', False, 2),
    ('.mkv', 'libx265', False, 0),
    ('.mkv', 'ffv1', False, 0),
    ('.mov', 'qtrle', False, 0),
    ('.webm', None, False, 0),
    ('.mkv', None, True, 0),
    ('.mp4', None, True, 16),  # 12 bits
    ('.mp4', 'libx264', True, 120),  # 10 bits of luma and chroma
]


@pytest.mark.parametrize(('suffix', 'encoder', 'high_bit_depth', 'most'), LOSSLESS)
def test_lossless_outputs_keep_pixels(tmp_path, suffix, encoder, high_bit_depth, most):
    """``most``, the largest allowed error, is in levels of 255, or of 65535 for high bit depth."""
    frames = scene(4, high_bit_depth=high_bit_depth)
    made = Made(frames=frames, codec='ffv1', options={}, pix_fmt='gbrp16le' if high_bit_depth else 'bgr0')
    source = make(tmp_path / 'source.mkv', made)
    output = tmp_path / f'out{suffix}'
    copy(source, output, lossless=True, encoder=encoder)
    with open_source(output) as again:
        assert again.high_bit_depth == high_bit_depth
        for frame, picture in zip(frames, again, strict=True):
            assert np.abs(picture.pixels.astype(int) - frame).max() <= most


TAGS = {
    'silent': {},
    'hd': {'colorspace': 1, 'color_range': LIMITED, 'color_primaries': 1, 'color_trc': 1},
    'phone': {'colorspace': 5, 'color_range': FULL, 'color_primaries': 1, 'color_trc': 6},
    'wide': {'colorspace': 9, 'color_range': LIMITED, 'color_primaries': 9, 'color_trc': 14},
}


@pytest.mark.parametrize(
    ('encoder', 'suffix'), [(None, '.mp4'), ('libx265', '.mp4'), ('ffv1', '.mkv'), (None, '.webm')]
)
@pytest.mark.parametrize('pixel_format', ['yuv420p', 'yuv422p'])
def test_chroma_location_is_kept(tmp_path, encoder, suffix, pixel_format):
    """A shift by half a pixel would give four times this difference."""
    source = make(tmp_path / 'source.mp4', Made(frames=2, pix_fmt=pixel_format, options={'crf': '0'}))
    quality = None if encoder == 'ffv1' else 1
    copy(source, tmp_path / f'out{suffix}', encoder=encoder, quality=quality)
    for before, after in zip(decoded(source), decoded(tmp_path / f'out{suffix}'), strict=True):
        for old, new in zip(before.planes[1:], after.planes[1:], strict=True):
            old, new = (np.frombuffer(p, np.uint8).reshape(p.height, -1)[:, : p.width].astype(int) for p in (old, new))
            assert np.abs(old - new).mean() < 0.9


@pytest.mark.parametrize('tags', TAGS)
@pytest.mark.parametrize('suffix', ['.mp4', '.mkv', '.mov'])
def test_colour_tags_and_luma_are_kept(tmp_path, tags, suffix):
    source = make(tmp_path / 'source.mp4', Made(frames=3, tags=TAGS[tags], options={'crf': '1'}))
    copy(source, tmp_path / f'out{suffix}', quality=1)
    before, after = decoded(source)[0], decoded(tmp_path / f'out{suffix}')[0]
    for name in ('colorspace', 'color_range', 'color_primaries', 'color_trc'):
        assert getattr(after, name) == getattr(before, name), name
    # compares YUV codes, so that the result does not depend on a matrix
    luma = [np.frombuffer(f.planes[0], np.uint8).astype(int) for f in (before, after)]
    assert np.abs(luma[0] - luma[1]).mean() < 0.6


def test_each_part_of_joined_videos_has_its_own_colour_tags(tmp_path):
    parts = []
    for matrix, code_range in ((BT709, LIMITED), (SMPTE170M, FULL)):
        made = Made(frames=2, tags={'colorspace': matrix, 'color_range': code_range})
        parts.append(make(tmp_path / f'{matrix}.ts', made))
    (tmp_path / 'joined.ts').write_bytes(b''.join(part.read_bytes() for part in parts))
    alone = [picture.pixels for part in parts for picture in copy(part, tmp_path / 'out.mkv')]
    assert np.array_equal([p.pixels for p in copy(tmp_path / 'joined.ts', tmp_path / 'out.mkv')], alone)


@pytest.mark.parametrize('tags', TAGS)
def test_motion_jpeg_is_full_range_bt601_as_players_assume(tmp_path, tags):
    source = make(tmp_path / 'source.mp4', Made(frames=1, tags=TAGS[tags], options={'crf': '1'}))
    (before,) = copy(source, tmp_path / 'out.mov', encoder='mjpeg')
    with open_source(tmp_path / 'out.mov') as after:
        assert np.abs(next(iter(after)).pixels.astype(int) - before.pixels).mean() < 2.5


def test_assumed_matrix_is_tagged_when_resizing_would_change_it():
    silent = ColourTags(height=1080)
    assert (silent.used, silent.at_height(1080).matrix) == (BT709, 2)
    assert silent.at_height(270).matrix == BT709
    assert ColourTags(height=480).at_height(480).matrix == 2
    assert ColourTags(matrix=0, height=480).at_height(480).matrix == SMPTE170M
    assert ColourTags(matrix=9, height=2160).at_height(240).matrix == BT2020


@pytest.mark.parametrize('encoder', ['libx264', 'libx265', 'ffv1'])
def test_ten_bits_are_kept(tmp_path, encoder):
    frames = scene(3, high_bit_depth=True)
    tags = {'colorspace': 9, 'color_range': LIMITED, 'color_primaries': 9, 'color_trc': 16}
    source = make(tmp_path / 'hdr.mkv', Made(frames=frames, pix_fmt='yuv420p10le', tags=tags, options={'crf': '0'}))
    copy(source, tmp_path / 'out.mkv', encoder=encoder, quality=None if encoder == 'ffv1' else 1)
    frame = decoded(tmp_path / 'out.mkv')[0]
    assert frame.format.name == 'yuv420p10le' and (frame.colorspace, frame.color_trc) == (9, 16)
    with open_source(source) as first, open_source(tmp_path / 'out.mkv') as second:
        pairs = [(a.pixels, b.pixels) for a, b in zip(first, second, strict=True)]
    assert all(len(np.unique(a)) > 1000 for a, _ in pairs)
    assert np.mean([np.abs(a.astype(int) - b).mean() for a, b in pairs]) < 257


def test_prores_chroma_format_and_depth_are_kept(tmp_path):
    made = Made(frames=scene(3, high_bit_depth=True), codec='prores_ks', pix_fmt='yuv422p10le', options={})
    source = make(tmp_path / 'edit.mov', made)
    copy(source, tmp_path / 'out.mov', encoder='prores_ks')
    copy(source, tmp_path / 'out.mp4')
    assert {decoded(tmp_path / f'out{s}')[0].format.name for s in ('.mov', '.mp4')} == {'yuv422p10le'}


@pytest.mark.parametrize(
    ('pixels', 'output', 'lossless', 'kept'),
    [
        ('yuv420p10le', 'out.webm', False, '8 of 10'),
        ('yuv420p10le', 'out.mp4', False, None),
        ('yuv444p12le', 'out.mp4', False, '10 of 12'),
        ('gbrp16le', 'out.mp4', True, '12 of 16'),
        ('gbrp16le', 'out.mkv', True, None),
    ],
)
def test_reduced_bit_depth_is_reported(tmp_path, caplog, capfd, pixels, output, lossless, kept):
    made = Made(frames=scene(3, high_bit_depth=True), codec='ffv1', options={}, pix_fmt=pixels)
    copy(make(tmp_path / 'deep.mkv', made), tmp_path / output, lossless=lossless)
    assert (f'keeps {kept} bits; --lossless in .mkv keeps all' in caplog.text) if kept else caplog.text == ''
    assert 'x265' not in capfd.readouterr().err  # x265 would log for every segment


@pytest.mark.parametrize('suffix', ['.mp4', '.mkv', '.webm'])
def test_odd_sizes_are_kept(tmp_path, suffix, caplog):
    frames = scene(3, (61, 95))
    source = make(tmp_path / 'odd.mkv', Made(frames=frames, codec='ffv1', options={}, pix_fmt='yuv420p'))
    copy(source, tmp_path / f'out{suffix}')
    after = decoded(tmp_path / f'out{suffix}')
    assert {(frame.height, frame.width) for frame in after} == {(61, 95)}
    assert ('4:4:4' in caplog.text) == (suffix in ('.mp4', '.mkv'))


@pytest.mark.parametrize('turn', [(d, h, v) for d in (0, 90, 180, 270) for h in (False, True) for v in (False, True)])
def test_display_rotation_is_applied_to_pixels(tmp_path, turn):
    """Each corner is where the display matrix moves it, and the output has no display matrix."""
    source = make(tmp_path / 'phone.mov', Made(frames=2, turn=turn, options={'crf': '1'}))
    frame = decoded(source)[0]
    matrix = frame.side_data.get('DISPLAYMATRIX')
    turned = np.eye(2) if matrix is None else np.frombuffer(matrix, np.int32).reshape(3, 3)[:2, :2]
    height, width = frame.height, frame.width
    plain = frame.reformat(format='rgb24').to_ndarray()
    corners = {(x, y): plain[y, x].astype(int) for x in (4, width - 5) for y in (4, height - 5)}
    with open_source(source) as opened:
        pixels = next(iter(opened)).pixels.astype(int)
        assert opened.size == ((width, height) if turn[0] % 180 else (height, width))
        size = opened.size
    for (x, y), colour in corners.items():
        right, down = np.array([x - (width - 1) / 2, y - (height - 1) / 2]) @ np.sign(turned)
        moved = pixels[round(down + (size[0] - 1) / 2), round(right + (size[1] - 1) / 2)]
        assert np.abs(moved - colour).max() < 40
    copy(source, tmp_path / 'out.mp4')
    after = decoded(tmp_path / 'out.mp4')[0]
    assert (after.height, after.width) == size and after.side_data.get('DISPLAYMATRIX') is None


def test_pixel_aspect_ratio_is_kept_and_rotated(tmp_path):
    tags = {'sample_aspect_ratio': Fraction(16, 11)}
    for turn, aspect in ((None, Fraction(16, 11)), ((90, False, False), Fraction(11, 16))):
        source = make(tmp_path / 'dv.mp4', Made(frames=2, tags=tags, turn=turn))
        copy(source, tmp_path / 'out.mp4')
        with av.open(str(tmp_path / 'out.mp4')) as container:
            assert container.streams.video[0].sample_aspect_ratio == aspect


def test_scale_down_averages_areas(tmp_path):
    frames = scene(2, (120, 160))
    source = make(tmp_path / 'big.mkv', Made(frames=frames, codec='ffv1', options={}, pix_fmt='bgr0'))
    with open_source(source, scale_down=2) as opened:
        assert opened.size == (60, 80)
        mean = frames[0].reshape(60, 2, 80, 2, 3).mean(axis=(1, 3))
        assert np.abs(next(iter(opened)).pixels - mean).max() <= 0.5
    with open_source(source, scale_down=2.3) as opened:
        assert opened.size == (52, 70)
    with pytest.raises(DBLRError, match=r'--scale-down is 0\.5; give 1 or more'):
        open_source(source, scale_down=0.5)


def test_output_size_may_differ_from_source_size(tmp_path):
    """Comparison videos are wider than their source."""
    source = make(tmp_path / 'plain.mp4', Made(audio=1))
    with open_source(source) as opened:
        sink = open_sink(tmp_path / 'wide.mp4', opened)
        for picture in opened:
            wide = np.concatenate((picture.pixels, picture.pixels), axis=1)
            sink.write(type(picture)(np.ascontiguousarray(wide), picture.name, picture.pts))
        sink.finish()
    assert {(f.height, f.width) for f in decoded(tmp_path / 'wide.mp4')} == {(64, 192)}


@pytest.mark.parametrize('pixel_format', ['gray', 'bgr0', 'yuv411p', 'yuv410p', 'yuva420p', 'gray10le', 'gbrp12le'])
def test_rare_formats_are_read(tmp_path, pixel_format, caplog):
    caplog.set_level(logging.WARNING)
    high_bit_depth = pixel_format.endswith('le')
    frames = scene(2, high_bit_depth=high_bit_depth)
    source = make(tmp_path / 'rare.mkv', Made(frames=frames, codec='ffv1', options={}, pix_fmt=pixel_format))
    pictures = copy(source, tmp_path / 'out.mp4')
    assert decoded(tmp_path / 'out.mp4')[0].format.name in (
        ['yuv420p10le'] if high_bit_depth else ['yuv420p', 'yuvj420p']
    )
    level = 257 if high_bit_depth else 1
    difference = pictures[0].pixels.astype(float).mean() / level - frames[0].astype(float).mean() / level
    assert abs(difference) < 6  # grey formats hold luma, which differs from the mean of R, G and B
    assert ('transparency' in caplog.text) == (pixel_format == 'yuva420p')


@pytest.mark.parametrize('pixel_format', ['gray', 'gray10le', 'gray16le'])
def test_grey_is_full_range_from_black_to_white(tmp_path, pixel_format):
    top = 65535 if pixel_format.endswith('le') else 255
    ramp = np.tile(np.linspace(0, top, 64), (64, 1)).astype(np.uint16 if top > 255 else np.uint8)
    frames = [np.dstack([ramp] * 3)]
    source = make(tmp_path / 'film.mkv', Made(frames=frames, codec='ffv1', options={}, pix_fmt=pixel_format))
    with open_source(source) as opened:
        assert np.abs(next(iter(opened)).pixels / top - frames[0] / top).max() < 0.01


@pytest.mark.parametrize('pixel_format', ['monow', 'monob'])
def test_one_bit_video_is_black_and_white(tmp_path, pixel_format):
    bars = np.repeat(np.array([0, 255], np.uint8), 32)[None, :, None] * np.ones((64, 1, 3), np.uint8)
    made = Made(frames=[bars], codec='rawvideo', options={}, pix_fmt=pixel_format)
    with open_source(make(tmp_path / 'bars.nut', made)) as opened:
        assert np.array_equal(next(iter(opened)).pixels, bars)


@pytest.mark.parametrize('height', [64, 720])
def test_digital_cinema_keeps_its_colours_at_any_height(height):
    flat = np.full((height, 64, 3), (200, 60, 30), np.uint8)
    frame = av.VideoFrame.from_ndarray(flat).reformat(format='xyz12le')
    assert np.abs(to_rgb(frame, ColourTags.of(frame, ColourTags())) / 257 - flat).max() < 1


def test_fifteen_bit_colours_of_old_video_are_read(tmp_path):
    source = make(tmp_path / 'old.avi', Made(codec='msvideo1', options={}, pix_fmt='rgb555le'))
    expected = [frame.to_ndarray(format='rgb24') for frame in decoded(source)]
    assert np.array_equal([picture.pixels for picture in copy(source, tmp_path / 'out.mp4')], expected)
