"""Blurry and sharp frames are paired by name, and all faults are found at the start and named."""

import shutil
import struct
from io import BytesIO
from pathlib import Path

import cv2
import lmdb
import numpy as np
import pytest
from PIL import Image

from dblr_plugin.data.clips import ClipPair, index_pairs
from dblr_plugin.data.lmdb_writer import write_lmdb
from dblr_plugin.data.store import open_store
from dblr_plugin.errors import DBLRError


def index(pair: tuple[Path, Path], meta_info_file: Path | None = None) -> list[ClipPair]:
    return index_pairs(open_store(pair[0]), open_store(pair[1]), meta_info_file)


def fault(pair: tuple[Path, Path], meta_info_file: Path | None = None) -> str:
    with pytest.raises(DBLRError) as caught:
        index(pair, meta_info_file)
    return str(caught.value)


def damage(path: Path, keep: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])


class TestPairing:
    def test_pairs_by_name_and_ignores_the_suffix(self, make_tree):
        clips = {'clip10': 2, 'clip9': 3}
        pairs = index((make_tree('lq', clips, suffix='.jpg'), make_tree('gt', clips)))
        assert [(p.name, len(p.frames), p.size) for p in pairs] == [('clip9', 3, (24, 32)), ('clip10', 2, (24, 32))]

    def test_ground_truth_is_optional(self, pair):
        assert index_pairs(open_store(pair[0])) == index(pair)

    def test_folder_pairs_with_lmdb(self, pair):
        database = pair[1].parent / 'gt.lmdb'
        write_lmdb(pair[1], database, progress=False)
        assert index((pair[0], database)) == index(pair)


class TestLayoutFaults:
    def test_images_directly_in_the_root_are_refused(self, pair):
        with pytest.raises(DBLRError, match='lie directly in it'):
            open_store(pair[0] / 'alpha')

    def test_clips_one_level_too_deep_are_refused_with_a_hint(self, pair):
        shutil.move(pair[0], pair[0].parent / 'outer/lq')
        with pytest.raises(DBLRError, match='one level too deep.*give .*outer/lq'):
            open_store(pair[0].parent / 'outer')

    def test_empty_folder_is_refused(self, tmp_path):
        with pytest.raises(DBLRError, match=r'has no clips; put .* as \.png, \.jpg'):
            open_store(tmp_path)

    def test_clip_without_images_is_named(self, pair):
        (pair[0] / 'gamma').mkdir()
        (pair[0] / 'gamma/0.ppm').write_bytes(b'P6 1 1 255 rgb')
        assert f"clip 'gamma' in {pair[0]} has no images (.png, .jpg," in fault(pair)

    def test_clip_one_level_too_deep(self, pair):
        shutil.move(pair[0] / 'beta', pair[0] / 'scene/beta')
        assert f"clip 'scene' in {pair[0]} has no images, but {pair[0] / 'scene/beta'} has; move" in fault(pair)

    @pytest.mark.parametrize('side', [0, 1])
    def test_missing_clip_is_named(self, pair, side):
        shutil.rmtree(pair[side] / 'beta')
        assert f"clip 'beta' of {pair[1 - side]} is missing from {pair[side]}" in fault(pair)

    def test_renamed_clip_gets_a_hint(self, pair):
        (pair[1] / 'beta').rename(pair[1] / 'betta')
        assert "did you mean 'betta'" in fault(pair)

    @pytest.mark.parametrize('side', [0, 1])
    def test_missing_frame_is_named(self, pair, side):
        (pair[side] / 'beta/00000003.png').unlink()
        assert f"frame 'beta/00000003' of {pair[1 - side]} is missing from {pair[side]}" in fault(pair)


class TestFrameFaults:
    def test_unequal_sizes_of_lq_and_gt_are_named(self, make_tree):
        message = fault((make_tree('lq', {'a': 3}), make_tree('gt', {'a': 3}, size=(24, 30))))
        assert "clip 'a'" in message and '30x24' in message and '32x24' in message

    def test_unequal_sizes_within_a_clip_are_named(self, pair):
        for root in pair:
            cv2.imwrite(str(root / 'alpha/00000004.png'), np.zeros((8, 8, 3), np.uint8))
        assert "clip 'alpha'" in fault(pair) and '00000004.png is 8x8' in fault(pair)

    @pytest.mark.parametrize('data, reason', [
        (b'', 'is empty'), (b'text' * 99, 'has no readable image header'),
        (struct.pack('<2s6i2h6i', b'BM', 54, 0, 54, 40, 20000, 20000, 1, 24, *[0] * 6), 'has more pixels than Pillow'),
    ])  # fmt: skip
    def test_file_that_is_not_an_image_is_named(self, pair, data, reason):
        (pair[1] / 'alpha/00000004.png').write_bytes(data)
        assert f'{pair[1]}/alpha/00000004.png {reason}' in fault(pair)

    def test_dangling_link_is_named(self, pair):
        (pair[0] / 'alpha/00000004.png').unlink()
        (pair[0] / 'alpha/00000004.png').symlink_to('nowhere.png')
        assert 'alpha/00000004.png cannot be read' in fault(pair)

    @pytest.mark.parametrize('suffix', ['.png', '.jpg', '.bmp', '.webp'])
    @pytest.mark.parametrize('keep', [0.6, 0.95])
    def test_truncated_frame_is_named(self, make_tree, suffix, keep):
        lq = make_tree('lq', {'a': 3}, size=(120, 160), suffix=suffix)
        gt = make_tree('gt', {'a': 3}, size=(120, 160))
        damage(lq / f'a/00000001{suffix}', keep)
        assert f'{lq}/a/00000001{suffix}' in fault((lq, gt))

    def test_opencv_accepts_a_truncated_jpeg(self, make_tree):
        """This is why truncation is checked; if OpenCV ever refuses such files, the check can be removed."""
        path = make_tree('lq', {'a': 1}, size=(120, 160), suffix='.jpg') / 'a/00000000.jpg'
        damage(path, 0.6)
        assert cv2.imread(str(path)).shape == (120, 160, 3)

    @pytest.mark.parametrize('suffix', ['.png', '.jpg'])
    def test_bytes_after_the_end_are_accepted(self, pair, make_tree, suffix):
        lq = make_tree('padded', {'alpha': 9, 'beta': 6}, suffix=suffix)
        with open(lq / f'alpha/00000002{suffix}', 'ab') as file:
            file.write(bytes(3000))
        assert len(index((lq, pair[1]))) == 2

    def test_truncated_jpeg_with_a_thumbnail_is_named(self, make_tree):
        """The end marker of the thumbnail must not be taken for that of the image."""
        tree = make_tree('lq', {'a': 1}, size=(200, 200), suffix='.jpg')
        noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8))
        thumbnail = BytesIO()
        noise.resize((40, 40)).save(thumbnail, 'JPEG')
        noise.save(tree / 'a/00000000.jpg', exif=b'Exif\0\0' + thumbnail.getvalue())
        damage(tree / 'a/00000000.jpg', 0.7)
        with pytest.raises(DBLRError, match='truncated'):
            index_pairs(open_store(tree))

    def test_truncated_value_in_lmdb_is_named(self, make_tree):
        tree = make_tree('lq', {'a': 3}, size=(120, 160), suffix='.jpg')
        write_lmdb(tree, database := tree.parent / 'lq.lmdb', progress=False)
        with lmdb.open(str(database), map_size=1 << 24) as environment, environment.begin(write=True) as transaction:
            transaction.put(b'a/00000001', transaction.get(b'a/00000001')[:-200])
        with pytest.raises(DBLRError, match="key 'a/00000001' of .*lq.lmdb is empty or truncated"):
            index_pairs(open_store(database))


class TestMetaInfoFile:
    @pytest.fixture
    def meta(self, tmp_path) -> Path:
        return tmp_path / 'meta_info.txt'

    def test_only_listed_clips_are_used_and_checked(self, pair, meta):
        (pair[0] / 'beta/00000003.png').write_bytes(b'')
        (pair[0] / 'gamma').mkdir()
        meta.write_text('\nalpha 9 (24,32,3)\n')
        assert [clip.name for clip in index(pair, meta)] == ['alpha']

    def test_clip_name_may_have_a_space(self, make_tree, meta):
        meta.write_text('my clip 2 (24, 32, 3)\n')
        assert index_pairs(open_store(make_tree('lq', {'my clip': 2})), None, meta)[0].name == 'my clip'

    @pytest.mark.parametrize(
        'line, words',
        [
            ('beta six (24,32,3)', ['is not', 'beta six']),
            ('beta 6', ['is not']),
            ('alpha 9 (24,32,3)', ["'alpha'", 'twice']),
            ('betta 6 (24,32,3)', ["'betta' is not in", "did you mean 'beta'"]),
            ('beta 7 (24,32,3)', ["'beta' should have 7 frames", 'has 6']),
            ('beta 6 (32,24,3)', ["'beta'", '32x24', '24x32']),
        ],
    )
    def test_faults_name_the_line(self, pair, meta, line, words):
        meta.write_text(f'alpha 9 (24,32,3)\n{line}\n', encoding='utf-8')
        message = fault(pair, meta)
        assert f'{meta}:2' in message
        for word in words:
            assert word in message

    def test_missing_or_empty_file_is_refused(self, pair, meta):
        assert f'{meta} cannot be read' in fault(pair, meta)
        meta.write_text('\n')
        assert f'{meta} lists no clips' in fault(pair, meta)


def test_first_ten_faults_are_listed_and_the_rest_counted(pair):
    for number in range(8):
        (pair[0] / f'alpha/0000000{number}.png').write_bytes(b'')
    for number in range(5):
        (pair[1] / f'beta/0000000{number}.png').unlink()
    lines = fault(pair).splitlines()
    assert lines[0].startswith('13 faults')
    assert len(lines) == 12 and lines[-1].strip() == 'and 3 more'
