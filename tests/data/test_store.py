"""Folder and LMDB stores: layouts, decoding, faults, and one LMDB environment per process."""

import os
import pickle
import shutil
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from dblr_plugin.data.images import decode, inspected_size
from dblr_plugin.data.lmdb_store import LmdbStore, shared_environment
from dblr_plugin.data.lmdb_writer import write_lmdb
from dblr_plugin.data.store import FolderStore, open_store
from dblr_plugin.errors import DBLRError


@pytest.fixture
def database(make_tree) -> Path:
    source = make_tree('clips', {'alpha': 3})
    write_lmdb(source, source.parent / 'x.lmdb', progress=False)
    return source.parent / 'x.lmdb'


class TestFolder:
    def test_natural_order_without_hidden_and_other_files(self, tmp_path):
        image = np.zeros((4, 6, 3), np.uint8)
        for clip in ('clip10', 'clip9', '.hidden'):
            (tmp_path / clip).mkdir()
            for name in ('frame_10.png', 'frame_9.JPG', 'frame_100.webp'):
                cv2.imwrite(str(tmp_path / clip / name), image)
            (tmp_path / clip / '.frame_1.png').write_bytes(b'')
            (tmp_path / clip / 'notes.txt').write_text('no image')
        frames = ('frame_9', 'frame_10', 'frame_100')
        clips = open_store(tmp_path).clips()
        assert clips == {'clip9': frames, 'clip10': frames}
        assert list(clips) == ['clip9', 'clip10']

    @pytest.mark.parametrize('suffix', ['.png', '.jpg', '.bmp', '.tif', '.webp'])
    def test_read_equals_cv2(self, make_tree, suffix):
        store = open_store(make_tree('clips', {'a': 1}, suffix=suffix))
        frame = store.read('a', '00000000')
        assert frame.dtype == np.uint8
        np.testing.assert_array_equal(frame, cv2.imread(store.where('a', '00000000')))
        assert store.inspect('a', '00000000') == frame.shape[:2] == (24, 32)

    def test_grey_16_bit_and_alpha_become_bgr(self, tmp_path):
        (tmp_path / 'a').mkdir()
        cv2.imwrite(str(tmp_path / 'a/grey.png'), np.full((4, 6), 70, np.uint8))
        cv2.imwrite(str(tmp_path / 'a/deep.png'), np.full((4, 6, 3), 70 * 257, np.uint16))
        cv2.imwrite(str(tmp_path / 'a/alpha.png'), np.full((4, 6, 4), 70, np.uint8))
        store = open_store(tmp_path)
        for frame in store.clips()['a']:
            np.testing.assert_array_equal(store.read('a', frame), np.full((4, 6, 3), 70, np.uint8))

    def test_two_files_of_one_frame_are_refused(self, make_tree):
        root = make_tree('clips', {'a': 2})
        shutil.copy(root / 'a/00000001.png', root / 'a/00000001.jpg')
        with pytest.raises(DBLRError, match='00000001.jpg and 00000001.png'):
            open_store(root)

    @pytest.mark.parametrize('data', [b'', b'this is no image', b'\x89PNG\r\n\x1a\n'])
    def test_decode_error_names_the_file(self, make_tree, data):
        root = make_tree('clips', {'a': 2})
        (root / 'a/00000001.png').write_bytes(data)
        with pytest.raises(DBLRError, match='a/00000001.png'):
            open_store(root).read('a', '00000001')

    def test_unlistable_folder_is_named(self, make_tree):
        root = make_tree('clips', {'a': 2})
        (root / 'loop').symlink_to('loop')
        with pytest.raises(DBLRError, match='loop cannot be listed'):
            open_store(root)

    def test_folders_of_archives_and_network_drives_are_no_clips(self, make_tree):
        root = make_tree('clips', {'a': 2, '__MACOSX': 1, '@eaDir': 1, '.thumbnails': 1})
        assert list(open_store(root).clips()) == ['a']

    def test_file_removed_later_is_named(self, make_tree):
        root = make_tree('clips', {'a': 2})
        store = open_store(root)
        (root / 'a/00000001.png').unlink()
        with pytest.raises(DBLRError, match='a/00000001.png cannot be read'):
            store.read('a', '00000001')


class TestOpenStore:
    def test_backend_must_agree_with_the_path(self, make_tree, database):
        folder = make_tree('folder', {'a': 1})
        assert isinstance(open_store(folder, {'type': 'disk'}), FolderStore)
        assert isinstance(open_store(database, {'type': 'lmdb'}), LmdbStore)
        with pytest.raises(DBLRError, match="'lmdb', but .*folder"):
            open_store(folder, {'type': 'lmdb'})
        with pytest.raises(DBLRError, match="'disk', but .*x.lmdb"):
            open_store(database, {'type': 'disk'})
        with pytest.raises(DBLRError, match="did you mean 'disk'"):
            open_store(folder, {'type': 'disc'})

    def test_missing_paths_and_files_are_refused(self, tmp_path):
        (tmp_path / 'file').write_text('')
        with pytest.raises(DBLRError, match='absent does not exist'):
            open_store(tmp_path / 'absent')
        with pytest.raises(DBLRError, match='file is not a folder'):
            open_store(tmp_path / 'file')
        with pytest.raises(DBLRError, match='absent.lmdb is not a folder'):
            open_store(tmp_path / 'absent.lmdb')


class TestLmdb:
    def test_same_frames_as_the_folder(self, database):
        folder, lmdb_store = open_store(database.parent / 'clips'), open_store(database)
        assert lmdb_store.clips() == folder.clips()
        for frame in folder.clips()['alpha']:
            np.testing.assert_array_equal(lmdb_store.read('alpha', frame), folder.read('alpha', frame))
            assert lmdb_store.inspect('alpha', frame) == (24, 32)
        assert os.path.basename(lmdb_store.where('alpha', '00000001')) == '00000001'

    def test_one_environment_for_two_stores_and_two_spellings(self, database):
        (database.parent / 'link.lmdb').symlink_to(database)
        first, second = open_store(database), open_store(database.parent / 'link.lmdb')
        np.testing.assert_array_equal(first.read('alpha', '00000000'), second.read('alpha', '00000000'))
        assert shared_environment(first.root) is shared_environment(second.root)

    @pytest.mark.parametrize('generations', [1, 2])
    def test_forked_child_reads_while_the_parent_holds_the_database(self, database, generations):
        store = open_store(database)
        expected = store.read('alpha', '00000001')
        held = shared_environment(database)
        pid = os.fork()
        if pid == 0:
            for _ in range(generations - 1):
                store.read('alpha', '00000001')
                if child := os.fork():
                    os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
            same = np.array_equal(store.read('alpha', '00000001'), expected)
            os._exit(0 if same and shared_environment(database) is not held else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert shared_environment(database) is held
        np.testing.assert_array_equal(store.read('alpha', '00000001'), expected)

    def test_store_can_be_pickled_after_reading(self, database):
        store = open_store(database)
        expected = store.read('alpha', '00000002')
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(store)).read('alpha', '00000002'), expected)

    def test_database_replaced_at_the_same_path_is_reopened(self, database, make_tree):
        before = open_store(database).read('alpha', '00000000')
        shutil.rmtree(database)
        write_lmdb(make_tree('others', {'alpha': 3}, first_mark=50), database, progress=False)
        after = open_store(database).read('alpha', '00000000')
        assert before[0, 0, 0] == 0 and after[0, 0, 0] == 50

    def test_missing_key_is_named(self, database):
        with open(database / 'meta_info.txt', 'a') as file:
            file.write('alpha/00000099.png (24,32,3) 1\n')
        for method in ('read', 'inspect'):
            with pytest.raises(DBLRError, match=r"key 'alpha/00000099' is not in .*x\.lmdb"):
                getattr(open_store(database), method)('alpha', '00000099')

    def test_size_that_differs_from_meta_info_is_refused(self, database):
        meta = database / 'meta_info.txt'
        meta.write_text(meta.read_text().replace('(24,32,3)', '(24,33,3)'))
        with pytest.raises(DBLRError, match=r"key 'alpha/00000000' of .*x\.lmdb is \(24, 32\).*\(24, 33\)"):
            open_store(database).read('alpha', '00000000')
        with pytest.raises(DBLRError, match=r"key 'alpha/00000000' of .*x\.lmdb is \(24, 32\).*\(24, 33\)"):
            open_store(database).read_crop('alpha', '00000000', 0, 0, 16)

    @pytest.mark.parametrize(
        'line, message',
        [
            ('alpha/00000007.png 24,32,3 1', 'is not'),
            ('00000007.png (24,32,3) 1', 'is not'),
            ('alpha/00000001.jpg (24,32,3) 1', 'listed twice'),
        ],
    )
    def test_meta_info_faults_name_the_line(self, database, line, message):
        with open(database / 'meta_info.txt', 'a') as file:
            file.write(line + '\n')
        with pytest.raises(DBLRError, match=rf'meta_info\.txt:4: .*{message}'):
            open_store(database)

    def test_missing_or_empty_meta_info_is_refused(self, database):
        (database / 'meta_info.txt').write_text('')
        with pytest.raises(DBLRError, match='no clips'):
            open_store(database)
        (database / 'meta_info.txt').unlink()
        with pytest.raises(DBLRError, match='meta_info.txt cannot be read'):
            open_store(database)

    def test_truncated_database_is_named(self, database):
        data = (database / 'data.mdb').read_bytes()
        (database / 'data.mdb').write_bytes(data[: len(data) // 2])
        with pytest.raises(DBLRError, match=r'x\.lmdb/data\.mdb is truncated'):
            open_store(database).inspect('alpha', '00000000')

    def test_damaged_pages_are_named(self, database):
        data = (database / 'data.mdb').read_bytes()
        meta_pages = 2 * 4096
        (database / 'data.mdb').write_bytes(data[:meta_pages] + bytes(len(data) - meta_pages))
        with pytest.raises(DBLRError, match=r"key 'alpha/00000000' of .*x\.lmdb is unreadable"):
            open_store(database).read('alpha', '00000000')

    @pytest.mark.parametrize('data', [None, b'junk' * 5000])
    def test_damaged_database_is_named(self, database, data):
        (database / 'data.mdb').unlink() if data is None else (database / 'data.mdb').write_bytes(data)
        with pytest.raises(DBLRError, match='x.lmdb cannot be opened'):
            open_store(database).read('alpha', '00000000')


def write_tiff(path: Path, samples: np.ndarray, sample_format: int, big: bool, colours: int = 1) -> None:
    """Writes a TIFF or BigTIFF with one strip, also with sample types that no library writes."""
    tags = [(256, samples.shape[1]), (257, samples.shape[0]), (258, 8 * samples.itemsize), (259, 1), (262, colours)]
    tags += [(273, 0), (277, 1), (278, samples.shape[0]), (279, samples.nbytes), (339, sample_format)]
    head, count, entry = ('II+\0\x08\0\0\0', 'Q', 'HHQQ') if big else ('II*\0', 'H', 'HHII')
    start = 16 if big else 8
    strip = start + struct.calcsize(f'<{count}') + len(tags) * struct.calcsize(f'<{entry}') + 8
    listed = b''.join(struct.pack(f'<{entry}', tag, 16 if big else 4, 1, strip if tag == 273 else v) for tag, v in tags)
    first = struct.pack('<Q' if big else '<I', start)
    head = head.encode() + first + struct.pack(f'<{count}', len(tags))
    path.write_bytes(head + listed + bytes(8) + samples.tobytes())


@pytest.mark.parametrize('big', [False, True], ids=['tiff', 'bigtiff'])
@pytest.mark.parametrize(('kind', 'sample_format', 'name'), [
    ('uint8', 1, None), ('uint16', 1, None), ('uint32', 1, '32-bit unsigned'), ('int8', 2, '8-bit signed'),
    ('int16', 2, '16-bit signed'), ('int32', 2, '32-bit signed'), ('float16', 3, '16-bit floating-point'),
    ('float32', 3, '32-bit floating-point'), ('float64', 3, '64-bit floating-point'),
    ('uint8', 4, '8-bit undefined'), ('uint32', 5, '32-bit complex'), ('complex64', 6, '64-bit complex'),
])  # fmt: skip
def test_tiff_of_unsupported_sample_types_is_refused(tmp_path, kind, sample_format, name, big):
    """OpenCV reads a 16-bit -1 as white, and OpenCV and Pillow report other types as damaged."""
    path = tmp_path / 'frame.tif'
    samples = (np.arange(48).reshape(6, 8) * 5).astype(kind)
    write_tiff(path, samples, sample_format, big)
    for read in (lambda: decode(path.read_bytes(), str(path)), lambda: inspected_size(path)):
        if name is None:
            read()
            continue
        with pytest.raises(DBLRError, match=rf'frame\.tif is a TIFF of {name} samples; convert it'):
            read()
    if name is None:
        expected = samples if kind == 'uint8' else samples >> 8
        assert np.array_equal(decode(path.read_bytes(), '')[..., 1], expected) and inspected_size(path) == (6, 8)


@pytest.mark.parametrize(('kind', 'colours'), [('uint8', 0), ('uint16', 0), ('uint8', 8), ('uint16', 5)])
def test_tiff_whose_colours_opencv_misreads_is_refused(tmp_path, kind, colours):
    """OpenCV gives the negative of deep grey that counts down to white (0), and L*a*b* (8) a cast."""
    path = tmp_path / 'frame.tif'
    write_tiff(path, (np.arange(48).reshape(6, 8) * 5).astype(kind), 1, False, colours)
    if (kind, colours) == ('uint8', 0):
        assert np.array_equal(decode(path.read_bytes(), '')[..., 1], 255 - np.arange(48).reshape(6, 8) * 5)
        return
    with pytest.raises(DBLRError, match='L[*]a[*]b[*], which is misread; convert it'):
        inspected_size(path)


def test_tiff_of_deep_planes_is_refused(tmp_path):
    """OpenCV returns memory that it has not written."""
    interleaved = cv2.imencode('.tif', np.zeros((6, 8, 3), np.uint16))[1].tobytes()
    planes = interleaved.replace(struct.pack('<HHIH', 284, 3, 1, 1), struct.pack('<HHIH', 284, 3, 1, 2))
    with pytest.raises(DBLRError, match='is a TIFF of 16-bit planes'):
        decode(planes, 'frame.tif')


@pytest.mark.parametrize(('name', 'mode', 'kept'), [
    ('a.tif', 'RGBA', 0), ('a.png', 'RGBA', 0), ('a.webp', 'RGBA', 0), ('p.png', 'PA', 0), ('p.tif', 'P', 0),
    ('g.png', 'LA', 0), ('c.tif', 'CMYK', 3), ('c.jpg', 'CMYK', 3),
])  # fmt: skip
def test_colours_are_read_with_alpha_palette_and_cmyk(tmp_path, name, mode, kept):
    ramp = np.arange(0, 256, 4, dtype=np.uint8)
    picture = Image.fromarray(np.dstack([np.tile(channel, (64, 1)) for channel in (ramp, ramp[::-1], ramp)]))
    picture = picture.quantize(64).convert('RGB')
    expected = np.asarray(picture.convert('L').convert('RGB') if mode == 'LA' else picture).astype(int)
    if mode == 'PA':  # alpha of the PNG's palette
        picture.quantize(64).save(tmp_path / name, transparency=bytes(range(64)))
    elif mode[-1] == 'A':
        picture = picture.convert(mode)
        picture.putalpha(Image.fromarray(np.tile(ramp // 2 + 9, (64, 1)).T))  # WebP drops colours where alpha is 0
        picture.save(tmp_path / name, lossless=True)
    else:
        converted = picture.quantize(64) if mode == 'P' else picture.convert(mode)
        converted.save(tmp_path / name, quality=100)
    decoded = decode((tmp_path / name).read_bytes(), name)[..., ::-1].astype(int)
    assert np.abs(decoded - expected).max() <= kept


def test_tiff_with_three_channels_is_read(tmp_path):
    path = tmp_path / 'frame.tif'
    for plain in (np.uint8, np.uint16):
        assert cv2.imwrite(str(path), np.full((8, 8, 3), 200, plain))
        assert inspected_size(path) == (8, 8) and decode(path.read_bytes(), str(path)).shape == (8, 8, 3)
