"""Images of folders, globs and single files keep names, order, format and bit depth."""

from __future__ import annotations

import glob
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from made_videos import scene
from media_copying import copy, visible
from PIL import Image

from dblr_plugin.data.images import opened
from dblr_plugin.errors import DBLRError
from dblr_plugin.video import Frame, find_batch, fingerprint, open_sink, open_source


def written(folder: Path, names: list[str], high_bit_depth: bool = False) -> list[np.ndarray]:
    """Writes a moving scene, one frame for each name, and returns the frames."""
    folder.mkdir(parents=True, exist_ok=True)
    frames = scene(len(names), high_bit_depth=high_bit_depth)
    for name, frame in zip(names, frames, strict=True):
        assert cv2.imwrite(str(folder / name), frame[..., ::-1])
    return frames


@pytest.mark.parametrize('suffix', ['.png', '.jpg', '.JPEG', '.tif', '.tiff', '.webp', '.bmp'])
def test_names_and_format_are_kept(tmp_path, suffix):
    names = [f'frame_{i}{suffix}' for i in (1, 2, 10)]
    written(tmp_path / 'in', names)
    pictures = copy(tmp_path / 'in', tmp_path / 'out')
    assert [picture.name for picture in pictures] == names  # 10 comes after 2
    assert visible(tmp_path / 'out') == sorted(names)
    for picture in pictures:
        with Image.open(tmp_path / 'out' / picture.name) as image, Image.open(tmp_path / 'in' / picture.name) as old:
            assert image.format == old.format
            again = np.asarray(image.convert('RGB')).astype(int)
        assert np.abs(again - picture.pixels).mean() <= (0.7 if suffix.lower().startswith('.j') else 0)


def test_frames_before_zero_come_first(tmp_path):
    for sign in ('shot.-', 'shot_-'):
        order = [f'{sign}0012.png', f'{sign}0001.png', f'{sign[:-1]}0003.png', 'take-1.png', 'take-2.png']
        written(tmp_path / sign, order)
        with open_source(tmp_path / sign) as source:
            assert [frame.name for frame in source] == order


@pytest.mark.parametrize(('names', 'told'), [
    (['a.0009.png', 'a.0010.png', 'a.0011.png', 'a.0012.png', 'a.0020.png'], 'missing behind a.0012.png;'),
    ([*(f'a{number}.png' for number in (1, 2, 4, 5, 6, 7, 8, 10))], 'missing behind a2.png and 1 more;'),
    (['a1.png', 'a2.png', 'b1.png', 'b2.png'], '2 sequences, such as those from a1.png and b1.png on'),
    (['a1.jpg', 'a1.png', 'a2.jpg', 'a2.png'], '2 sequences, such as those from a1.jpg and a1.png on'),
    (['a0.png', 'a5.png', 'a10.png', 'cover.png', 'b7.png'], None),
    (['IMG_1.png', 'IMG_4.png', 'IMG_5.png', 'IMG_9.png'], None),
    (['1.png', '01.png', '2.png'], None),
])  # fmt: skip
def test_missing_frames_and_mixed_sequences_are_reported(tmp_path, caplog, names, told):
    written(tmp_path, names)
    open_source(tmp_path)
    assert caplog.text.count('WARNING') == (told is not None) and (told or '') in caplog.text


@pytest.mark.parametrize('suffix', ['.png', '.tif'])
def test_sixteen_bits_are_kept(tmp_path, suffix):
    frames = written(tmp_path / 'in', [f'{i}{suffix}' for i in range(2)], high_bit_depth=True)
    copy(tmp_path / 'in', tmp_path / 'out')
    for index, frame in enumerate(frames):
        again = cv2.imread(str(tmp_path / f'out/{index}{suffix}'), cv2.IMREAD_UNCHANGED)
        assert again.dtype == np.uint16 and (again[..., ::-1] == frame).all()


def test_glob_selects_matching_images(tmp_path):
    written(tmp_path / 'in', ['a1.png', 'a2.png', 'b1.png'])
    (tmp_path / 'in/a3.txt').write_text('no image')
    pictures = copy(str(tmp_path / 'in/a*'), tmp_path / 'out')
    assert [picture.name for picture in pictures] == ['a1.png', 'a2.png']
    written(tmp_path / 'more/x', ['1.png'])
    written(tmp_path / 'more/y', ['1.png'])
    with pytest.raises(DBLRError, match='same name'):
        open_source(tmp_path / 'more/*/*.png')


def test_existing_name_with_brackets_is_not_a_glob(tmp_path):
    written(tmp_path / 'take [1]', ['1.png'])
    assert len(copy(tmp_path / 'take [1]', tmp_path / 'out')) == 1


def test_single_image(tmp_path):
    (frame,) = written(tmp_path, ['photo.png'])
    copy(tmp_path / 'photo.png', tmp_path / 'sharp/photo.png')
    copy(tmp_path / 'photo.png', tmp_path / 'sharp.tif')
    copy(tmp_path / 'photo.png', tmp_path / 'folder')
    for path in ('sharp/photo.png', 'sharp.tif', 'folder/photo.png'):
        assert (cv2.imread(str(tmp_path / path))[..., ::-1] == frame).all()
    with open_source(tmp_path / 'photo.png') as source:
        assert str(source.extent()) == '1 frame'
    with pytest.raises(DBLRError, match='is an input'), open_source(tmp_path / 'photo.png') as source:
        open_sink(tmp_path / 'photo.png', source)


def test_start_end_and_scale_down_of_a_folder(tmp_path):
    frames = written(tmp_path / 'in', [f'{i}.png' for i in range(8)])
    pictures = copy(tmp_path / 'in', tmp_path / 'out', {'start': 2, 'end': '5', 'scale_down': 2})
    assert [picture.name for picture in pictures] == ['2.png', '3.png', '4.png']
    mean = frames[2].reshape(32, 2, 48, 2, 3).mean(axis=(1, 3))
    assert np.abs(pictures[0].pixels - mean).max() <= 0.5
    with pytest.raises(DBLRError, match=r'has 8 images, and none from 9 on \(the first is 0\)'):
        open_source(tmp_path / 'in', start=9)
    with pytest.raises(DBLRError, match='not a frame number'):
        open_source(tmp_path / 'in', start='0:01')


def test_suffix_allows_output_beside_the_input(tmp_path):
    written(tmp_path / 'in', ['1.png', '2.png'])
    (tmp_path / 'in/notes.txt').write_text('keep')
    copy(tmp_path / 'in', tmp_path / 'in', suffix='_sharp')
    assert visible(tmp_path / 'in') == ['1.png', '1_sharp.png', '2.png', '2_sharp.png', 'notes.txt']
    with open_source(tmp_path / 'in') as source, pytest.raises(DBLRError, match=r'1\.png is an input'):
        open_sink(tmp_path / 'in', source)
    copy(tmp_path / 'in', tmp_path / 'out')
    with pytest.raises(DBLRError, match=r'1\.png exists'), open_source(tmp_path / 'in') as source:
        open_sink(tmp_path / 'out', source, existing='refuse')


def test_batch_skips_results_beside_their_inputs(tmp_path):
    """This matters when a batch is resumed whose results have a suffix and are in the input folder."""
    for name in ('a.mp4', 'a_sharp.mp4', 'b.ts', 'b_sharp.mkv', 'c_sharp.mp4'):
        (tmp_path / name).touch()
    inputs = [video.name for video, _ in find_batch(tmp_path, tmp_path / '../' / tmp_path.name, '_sharp')]
    assert inputs == ['a.mp4', 'b.ts', 'c_sharp.mp4']
    (tmp_path / 'more').symlink_to('/nowhere')
    assert len(find_batch(tmp_path, tmp_path)) == 5  # inputs equal outputs, which is refused later


@pytest.mark.parametrize('others', [['b.mp4'], ['b.mp4', 'c.mkv'], ['IMG_1.MOV']])
def test_folder_of_images_and_videos_is_refused(tmp_path, others):
    folder = tmp_path / 'take [1]'
    folder.mkdir()
    for name in ['a.png', 'notes.txt', *others]:
        (folder / name).touch()
    for given in (folder, f'{tmp_path}/take*/*'):
        with pytest.raises(DBLRError, match=f'holds 1 image and {len(others)} videos?; choose one kind') as raised:
            find_batch(given, tmp_path / 'out')
        named = str(raised.value).split("'")[1]
        assert len(glob.glob(named)) == sum(name.endswith(Path(others[0]).suffix) for name in others)


def test_pipes_and_too_long_names_are_refused_by_name(tmp_path):
    os.mkfifo(tmp_path / 'pipe')
    with pytest.raises(DBLRError, match='pipe is not a file that can be read twice'):
        open_source(tmp_path / 'pipe')
    for look in (open_source, lambda path: find_batch(path, tmp_path)):
        with pytest.raises(DBLRError, match=r'xx.mp4 cannot be read \(File name too long\)'):
            look(tmp_path / f'{"x" * 300}.mp4')


@pytest.mark.skipif(not os.path.exists('/proc/self/mem'), reason='needs a file that opens and cannot be read')
def test_files_that_the_disk_fails_to_give_are_named(tmp_path):
    said = r'mem cannot be read \(Input/output error\)'
    with pytest.raises(DBLRError, match=said), opened(Path('/proc/self/mem')) as file:
        file.read()
    (tmp_path / 'a.mp4').symlink_to('/proc/self/mem')
    with pytest.raises(DBLRError, match=r'a.mp4 cannot be read \(.*\); check its disk or the network'):
        open_source(tmp_path / 'a.mp4')


def test_names_that_are_not_utf8_are_read(tmp_path):
    (frame,) = written(tmp_path, ['1.png'])
    (tmp_path / '1.png').rename(tmp_path / os.fsdecode(b'\xe4.png'))
    with open_source(tmp_path / os.fsdecode(b'\xe4.png')) as source:
        assert len(fingerprint(source)) == 64
        assert (next(iter(source)).pixels == frame).all()


def test_link_to_the_input_folder_counts_as_the_input(tmp_path):
    written(tmp_path / 'in', ['1.png'])
    (tmp_path / 'link').symlink_to(tmp_path / 'in')
    with pytest.raises(DBLRError, match='is an input'), open_source(tmp_path / 'in') as source:
        open_sink(tmp_path / 'link', source)


def test_grey_and_alpha_become_rgb(tmp_path, caplog):
    (tmp_path / 'grey').mkdir()
    (tmp_path / 'alpha').mkdir()
    grey = scene(1)[0][..., 0]
    cv2.imwrite(str(tmp_path / 'grey/1.png'), grey)
    Image.fromarray(np.dstack([scene(1)[0], grey])).save(tmp_path / 'alpha/1.png')
    pictures = copy(tmp_path / 'grey', tmp_path / 'out')
    assert (pictures[0].pixels == grey[..., None]).all() and 'alpha channel' not in caplog.text
    pictures = copy(tmp_path / 'alpha', tmp_path / 'out2')
    assert (pictures[0].pixels == scene(1)[0]).all() and 'alpha channel' in caplog.text


def test_exif_rotation_is_applied(tmp_path):
    (tmp_path / 'in').mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(scene(1)[0]).save(tmp_path / 'in/1.jpg', exif=exif, quality=95)
    with open_source(tmp_path / 'in') as source:
        assert source.size == (96, 64)
    copy(tmp_path / 'in', tmp_path / 'out')
    with Image.open(tmp_path / 'out/1.jpg') as image:
        assert image.size == (64, 96) and 0x0112 not in image.getexif()


@pytest.mark.parametrize('suffix', ['.jpg', '.png', '.tif', '.webp'])
def test_photographs_held_upright_and_sideways_are_refused_at_once(tmp_path, suffix):
    """Cameras store both with the same size; held alike, they may be stored with another one."""
    exif = Image.Exif()
    exif[0x0112] = 6
    across, upright = Image.fromarray(scene(1)[0]), Image.fromarray(scene(1)[0].swapaxes(0, 1))
    upright.save(tmp_path / f'1{suffix}')
    across.save(tmp_path / f'2{suffix}', exif=exif)
    with open_source(tmp_path) as source:
        assert [frame.pixels.shape for frame in source] == [(96, 64, 3)] * 2
    across.save(tmp_path / f'3{suffix}')
    with pytest.raises(DBLRError, match=rf'3\{suffix} has another size than 1\{suffix}; .* restore it by itself'):
        open_source(tmp_path)


def test_damaged_images_and_unequal_sizes_are_refused_by_name(tmp_path):
    written(tmp_path / 'in', ['1.png', '2.png', '3.png'])
    data = (tmp_path / 'in/2.png').read_bytes()
    (tmp_path / 'in/2.png').write_bytes(data[: len(data) // 2])
    with pytest.raises(DBLRError, match=r'2\.png is truncated'):
        open_source(tmp_path / 'in')
    (tmp_path / 'in/2.png').write_bytes(data[: len(data) // 2] + data[len(data) // 2 + 9 :])
    (tmp_path / 'in/3.png').write_bytes((tmp_path / 'in/2.png').read_bytes())
    with (
        open_source(tmp_path / 'in') as source,
        pytest.raises(DBLRError, match=r'2\.png is damaged(.|\n)*3\.png is dam'),
    ):
        list(source)
    (tmp_path / 'in/3.png').write_bytes(data)
    cv2.imwrite(str(tmp_path / 'in/2.png'), np.zeros((64, 97, 3), np.uint8))
    with pytest.raises(DBLRError, match=r'2\.png has another size than 1\.png'):
        open_source(tmp_path / 'in')
    (tmp_path / 'in/2.png').write_bytes(b'')
    with pytest.raises(DBLRError, match=r'2\.png is empty'):
        open_source(tmp_path / 'in')
    cv2.imwrite(str(tmp_path / 'in/2.png'), np.zeros((64, 96, 3), np.uint16))
    with open_source(tmp_path / 'in') as source, pytest.raises(DBLRError, match=r'2\.png has another size or depth'):
        list(source)
    cv2.imwrite(str(tmp_path / 'float.tif'), np.zeros((8, 8), np.float32))
    with pytest.raises(DBLRError, match='is a TIFF of 32-bit floating-point samples'):
        open_source(tmp_path / 'float.tif')


def test_abandoned_folder_keeps_complete_files(tmp_path):
    written(tmp_path / 'in', ['1.png', '2.png'])
    (tmp_path / 'older').mkdir()
    with open_source(tmp_path / 'in') as source:
        for folder in ('out', 'older'):
            assert not open_sink(tmp_path / folder, source).abandon()
        assert not (tmp_path / 'out').exists() and (tmp_path / 'older').exists()
        sink = open_sink(tmp_path / 'out', source)
        sink.write(Frame(np.zeros((4, 4, 3), np.uint8), '1.png', None))
        assert sink.abandon()
    assert visible(tmp_path / 'out') == ['.pictures.partial', '1.png']


def test_sixteen_bit_image_is_rounded_to_eight_bits(tmp_path):
    (frame,) = written(tmp_path, ['deep.png'], high_bit_depth=True)
    copy(tmp_path / 'deep.png', tmp_path / 'flat.bmp')
    again = cv2.imread(str(tmp_path / 'flat.bmp'), cv2.IMREAD_UNCHANGED)[..., ::-1]
    assert np.abs(again - frame / 257).max() <= 0.5


def test_images_that_cannot_be_read_are_reported(tmp_path, caplog):
    """Phones mix HEIC with JPEG."""
    written(tmp_path / 'in', ['a.png', 'b.png'])
    for name in ('c.HEIC', 'd.exr', '.e.heic', 'notes.txt'):
        (tmp_path / 'in' / name).touch()
    told = 'in: left out, as such images are not read: c.HEIC and 1 more; convert to .png or .jpg'
    with open_source(tmp_path / 'in') as source:
        assert source.count == 2 and told in caplog.text
    caplog.clear()
    with open_source(tmp_path / 'in' / '*') as source:
        assert source.count == 2 and 'c.HEIC and 1 more' in caplog.text
    caplog.clear()
    (tmp_path / 'in' / 'a.png').rename(tmp_path / 'in' / 'a.dv')
    (tmp_path / 'in' / 'b.png').unlink()
    assert [video.name for video, _ in find_batch(tmp_path / 'in', tmp_path / 'out')] == ['a.dv']
    assert told in caplog.text


@pytest.mark.parametrize(('name', 'kind'), [('photo.avif', 'AVIF'), ('photo.jfif', 'JPEG'), ('photo.mp4', 'PNG')])
def test_image_among_videos_is_refused(tmp_path, name, kind):
    """FFmpeg would read it as a video of one frame, or one tile of it, and drop what describes it."""
    Image.fromarray(scene(1)[0]).save(tmp_path / name, kind)
    with pytest.raises(DBLRError, match=rf'{name} is an image; convert it to \.png or \.jpg'):
        open_source(tmp_path / name)
