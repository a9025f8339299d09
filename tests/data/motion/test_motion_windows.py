"""Windows of synthetic motion, their store, data set and command."""

import pickle
import shutil

import numpy as np
import pytest
import torch
from basicsr.data import build_dataset

from dblr_plugin.colour import luma_of_bgr
from dblr_plugin.commands import main
from dblr_plugin.data.motion import MotionWindows, SharpPictures, WindowStore, read_pictures, scene
from dblr_plugin.data.motion import windows as windows_module
from dblr_plugin.data.motion.windows import picture_side
from dblr_plugin.data.train_sampler import SampleIndex
from dblr_plugin.errors import DBLRError
from dblr_plugin.prepare import motion as prepare_module
from dblr_plugin.prepare.motion import MotionSettings, prepare_motion

SIZE = 16


@pytest.fixture(scope='module')
def makers(pictures):
    return {grey: MotionWindows(read_pictures(pictures, grey, picture_side(SIZE)), SIZE) for grey in (True, False)}


def dataset(root, **options):
    options = {'name': 'motion', 'type': 'SyntheticMotionDataset', 'dataroot_gt': str(root), 'gt_size': SIZE, **options}
    return build_dataset(options)


def test_images_are_found_and_small_ones_left_out(pictures):
    found = read_pictures(pictures, grey=False, least=64)
    assert found.names == ['a.png', 'b.jpg', 'more/c.png']
    with pytest.raises(DBLRError, match='none of its 4 images has 900 pixels'):
        read_pictures(pictures, grey=False, least=900)
    with pytest.raises(DBLRError, match='no such folder'):
        read_pictures(pictures / 'nowhere', grey=False, least=64)


def test_crop_comes_from_its_image(pictures):
    found = read_pictures(pictures, grey=False, least=64)
    crop = found.crops(1, 64, torch.Generator().manual_seed(0), picture=2)[0].permute(1, 2, 0).numpy()
    whole = found.pictures[2]
    places = [(y, x) for y in range(37) for x in range(37) if np.array_equal(whole[y : y + 64, x : x + 64], crop)]
    assert len(places) == 1


def test_crops_are_taken_where_there_is_detail():
    half_empty = np.full((128, 512, 1), 128, np.uint8)
    half_empty[:, 256:] = np.random.default_rng(0).integers(0, 256, (128, 256, 1))
    crops = SharpPictures(['half empty'], [half_empty]).crops(50, 128, torch.Generator().manual_seed(0))
    assert (crops.float().flatten(1).std(1) > 20).float().mean() > 0.9


@pytest.mark.parametrize('grey', [True, False])
def test_windows_have_shapes_and_depend_on_the_seed(makers, grey):
    blurry, sharp = makers[grey].draw(3, 7)
    channels = 1 if grey else 3
    assert blurry.shape == (3, 5, channels, SIZE, SIZE) and sharp.shape == (3, channels, SIZE, SIZE)
    assert blurry.dtype == sharp.dtype == torch.uint8
    again, other = makers[grey].draw(3, 7), makers[grey].draw(3, 8)
    assert torch.equal(again[0], blurry) and torch.equal(again[1], sharp) and not torch.equal(other[0], blurry)


@pytest.mark.slow
def test_a_fifth_of_the_windows_has_its_input_as_ground_truth(makers):
    drawn = (makers[True].draw(1, seed) for seed in range(120))
    assert 0.12 < np.mean([torch.equal(frames[0, 2], sharp[0]) for frames, sharp in drawn]) < 0.28


def test_frame_that_is_its_own_ground_truth_blurs_by_a_pixel_at_most(makers, monkeypatch):
    """Tremor that was back where it had been a frame interval before counted as slow: up to three pixels of blur."""
    seen = []
    monkeypatch.setattr(windows_module, 'render', lambda *args: seen.append(args[:2]) or scene.render(*args))
    blurs = []
    for seed in range(100):
        makers[True].draw(4, seed)
        layers, times = seen[2]  # of the frame to restore
        if len(seen) == 5 and len(times) == 2:  # no ground truth is rendered; there is motion
            ends = (times[1] - times[0]) * torch.tensor([[-1.0], [1.0]])
            depth = layers[0].depth.amax((1, 2, 3))  # of the background
            shifts = [layer.path.pose(ends).diff(dim=0)[0, :, :2].norm(dim=1) for layer in layers]
            blurs += [shifts[0] * depth, *shifts[1:]]
        seen.clear()
    assert 0.5 < torch.cat(blurs).mean() < torch.cat(blurs).max() < 1.05


@pytest.mark.slow
def test_ground_truth_is_sharper_than_the_blurry_frame(makers):
    def detail(image):
        return (image.float().diff(dim=-1).abs().mean() + image.float().diff(dim=-2).abs().mean()).item()

    drawn = [makers[True].draw(1, seed) for seed in range(40)]
    pairs = [(frames[0, 2], sharp[0]) for frames, sharp in drawn if not torch.equal(frames[0, 2], sharp[0])]
    assert np.mean([detail(sharp) > detail(blurry) for blurry, sharp in pairs]) > 0.7


def test_causal_windows_end_with_the_frame_of_the_ground_truth(pictures):
    maker = MotionWindows(read_pictures(pictures, True, picture_side(SIZE)), SIZE, causal=True)
    for seed in range(100):
        frames, sharp = maker.draw(1, seed)
        if torch.equal(frames[0, 4], sharp[0]):
            return
    raise AssertionError('no sharp window in a hundred')


@pytest.mark.slow
def test_store_does_not_depend_on_the_number_of_processes(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(prepare_module, 'PART', 8)
    recipe = {'windows': 20, 'size': SIZE, 'y_only': True, 'seed': 3}
    prepare_motion(pictures, tmp_path / 'one', MotionSettings(**recipe, processes=1))
    prepare_motion(pictures, tmp_path / 'two', MotionSettings(**recipe, processes=2))
    one, two = WindowStore(tmp_path / 'one'), WindowStore(tmp_path / 'two')
    assert len(one) == 20 and one[19].shape == (6, 1, SIZE, SIZE)
    assert all(np.array_equal(one[i], two[i]) for i in range(20))
    maker = MotionWindows(read_pictures(pictures, True, picture_side(SIZE)), SIZE)
    frames, sharp = maker.draw(4, (3 * 1_000_003 + 1) * 8)
    assert np.array_equal(one[8][:-1], frames[0].numpy()) and np.array_equal(one[8][-1], sharp[0].numpy())


def test_store_is_resumed_and_enlarged(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(prepare_module, 'PART', 8)
    recipe = {'size': SIZE, 'y_only': True, 'processes': 1}
    prepare_motion(pictures, tmp_path / 'whole', MotionSettings(windows=20, **recipe))
    prepare_motion(pictures, tmp_path / 'store', MotionSettings(windows=12, **recipe))
    first = tmp_path / 'store' / 'windows_00000.npy'
    kept = first.stat().st_mtime_ns
    prepare_motion(pictures, tmp_path / 'store', MotionSettings(windows=20, **recipe))
    (tmp_path / 'store' / 'windows_00001.npy').unlink()
    with pytest.raises(DBLRError, match='windows_00001.npy is missing or incomplete'):
        WindowStore(tmp_path / 'store')
    prepare_motion(pictures, tmp_path / 'store', MotionSettings(windows=20, **recipe))
    assert first.stat().st_mtime_ns == kept
    whole, store = WindowStore(tmp_path / 'whole'), WindowStore(tmp_path / 'store')
    assert all(np.array_equal(whole[i], store[i]) for i in range(20))


def test_files_other_than_images_do_not_tell_images_apart(pictures, tmp_path, monkeypatch):
    """A store may lie in the folder of its images, and file managers leave files of their own there."""
    monkeypatch.setattr(prepare_module, 'PART', 8)
    images = tmp_path / 'images'
    shutil.copytree(pictures, images)
    for windows in (4, 12):
        prepare_motion(images, images / 'store', MotionSettings(windows=windows, size=SIZE, processes=1))
        (images / '.DS_Store').write_bytes(bytes(windows))
    assert len(WindowStore(images / 'store')) == 12


def test_other_settings_other_files_and_damage_are_refused(pictures, tmp_path):
    recipe = {'windows': 4, 'size': SIZE, 'processes': 1}
    prepare_motion(pictures, tmp_path / 'store', MotionSettings(**recipe))
    with pytest.raises(DBLRError, match='holds windows made with other settings'):
        prepare_motion(pictures, tmp_path / 'store', MotionSettings(**recipe, seed=1))
    with pytest.raises(DBLRError, match='holds other files'):
        prepare_motion(pictures, pictures, MotionSettings(**recipe))
    with pytest.raises(DBLRError, match='a.png'):
        prepare_motion(pictures, pictures / 'a.png', MotionSettings(**recipe))
    (tmp_path / 'store' / 'motion.json').write_text('{"windows": 4')
    with pytest.raises(DBLRError, match='motion.json cannot be read'):
        WindowStore(tmp_path / 'store')


@pytest.mark.parametrize(
    ('setting', 'message'),
    [
        ({'size': 12}, 'multiple of 8'),
        ({'windows': 0}, 'at least 1'),
        ({'num_frame': 4}, 'odd'),
        ({'seed': -1}, 'negative'),
    ],
)
def test_settings_out_of_range_are_refused(setting, message):
    with pytest.raises(DBLRError, match=message):
        MotionSettings(**setting)


def test_store_can_be_pickled(pictures, tmp_path):
    prepare_motion(pictures, tmp_path / 'store', MotionSettings(windows=4, size=SIZE, processes=1))
    store = WindowStore(tmp_path / 'store')
    held = store[3].copy()
    assert np.array_equal(pickle.loads(pickle.dumps(store))[3], held)


@pytest.mark.parametrize('source', ['pictures', 'store', 'grey store'])
@pytest.mark.parametrize('y_only', [True, False])
def test_samples_have_the_format_of_other_data_sets(pictures, tmp_path, source, y_only):
    if source == 'grey store' and not y_only:
        pytest.skip('there is no colour in it')
    root = pictures
    if source != 'pictures':
        root = tmp_path / 'store'
        prepare_motion(pictures, root, MotionSettings(windows=6, size=24, y_only='grey' in source, processes=1))
    data = dataset(root, y_only=y_only, use_hflip=True, use_rot=True, random_reverse=True)
    assert len(data) == (3 if source == 'pictures' else 6)
    sample = data[SampleIndex(1, 5)]
    channels = 1 if y_only else 3
    assert sample['lq'].shape == (5, channels, SIZE, SIZE) and sample['gt'].shape == (channels, SIZE, SIZE)
    assert sample['lq'].dtype == torch.float32 and sample['lq'].is_contiguous()
    low, high = (16 / 255, 235 / 255) if y_only else (0, 1)
    assert low - 1e-6 <= sample['lq'].min() and sample['lq'].max() <= high + 1e-6
    again = data[SampleIndex(1, 5)]
    assert torch.equal(sample['lq'], again['lq']) and torch.equal(sample['gt'], again['gt'])
    assert not torch.equal(sample['lq'], data[SampleIndex(1, 6)]['lq'])


def test_y_of_a_grey_store_equals_basicsrs(pictures, tmp_path):
    prepare_motion(pictures, tmp_path / 'store', MotionSettings(windows=2, size=SIZE, y_only=True, processes=1))
    data = dataset(tmp_path / 'store', y_only=True)
    grey = WindowStore(tmp_path / 'store')[1][-1, 0]
    expected = luma_of_bgr(np.repeat(grey[..., None], 3, 2))[..., 0]
    np.testing.assert_allclose(data[SampleIndex(1, 0)]['gt'][0].numpy(), expected, atol=1e-6)


def test_reversed_windows_keep_middle_frame_and_ground_truth(pictures, tmp_path):
    prepare_motion(pictures, tmp_path / 'store', MotionSettings(windows=3, size=SIZE, y_only=True, processes=1))
    plain, turned = (dataset(tmp_path / 'store', y_only=True, random_reverse=flag) for flag in (False, True))
    orders = set()
    for seed in range(12):
        a, b = plain[SampleIndex(2, seed)], turned[SampleIndex(2, seed)]
        assert torch.equal(a['gt'], b['gt']) and torch.equal(a['lq'][2], b['lq'][2])
        orders.add(torch.equal(a['lq'], b['lq']))
        assert torch.equal(a['lq'], b['lq']) or torch.equal(a['lq'].flip(0), b['lq'])
    assert orders == {True, False}


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'gt_size': 40}, 'gt_size is 40, and windows'),
        ({'num_frame': 3}, 'num_frame is 3, and'),
        ({'causal': True}, 'causal is True, and'),
        ({'y_only': False}, 'holds only the Y channel'),
        ({'scale': 4}, 'scale is 4'),
    ],
)
def test_options_that_do_not_fit_the_store_are_refused(pictures, tmp_path, options, message):
    prepare_motion(pictures, tmp_path / 'store', MotionSettings(windows=2, size=24, y_only=True, processes=1))
    with pytest.raises(DBLRError, match=message):
        dataset(tmp_path / 'store', **{'y_only': True, **options})


def test_gt_size_must_be_a_multiple_of_8(pictures):
    with pytest.raises(DBLRError, match='multiple of 8'):
        dataset(pictures, gt_size=12)


def test_command_writes_a_store_and_reports_its_size(pictures, tmp_path, capsys):
    arguments = ['--windows', '5', '--size', '16', '--processes', '1']
    main(['prepare', 'motion', str(pictures), str(tmp_path / 'store'), *arguments])
    assert '5 windows of 5 frames, 23,040 bytes, of 3 pictures' in capsys.readouterr().out
    assert len(WindowStore(tmp_path / 'store')) == 5
