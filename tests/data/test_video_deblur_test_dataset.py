"""The test set has whole frames and padded windows like BasicSR's, and decodes each frame once."""

import copy
import pickle
from collections import Counter
from pathlib import Path

import pytest
import torch
from basicsr.data import build_dataloader, build_dataset
from basicsr.data.video_test_dataset import VideoTestDataset

from dblr_plugin.data.lmdb_writer import write_lmdb
from dblr_plugin.data.store import FolderStore
from dblr_plugin.data.video_deblur_dataset import VideoDeblurDataset
from dblr_plugin.data.video_deblur_test_dataset import VideoDeblurTestDataset
from dblr_plugin.data.windows import window_indices
from dblr_plugin.errors import DBLRError

PADDINGS = ['replicate', 'reflection', 'reflection_circle', 'circle']


def options(lq: Path, gt: Path | None = None, **changes) -> dict:
    opt = {'name': 'clips', 'type': 'VideoDeblurTestDataset', 'dataroot_lq': str(lq), 'phase': 'val'}
    return opt | ({} if gt is None else {'dataroot_gt': str(gt)}) | changes


@pytest.mark.parametrize('padding', PADDINGS)
def test_samples_equal_basicsrs(pair, padding):
    lq, gt = pair
    opt = options(lq, gt, num_frame=5, padding=padding, name='vid4')
    theirs = VideoTestDataset({**opt, 'cache_data': False, 'io_backend': {'type': 'disk'}})
    ours = VideoDeblurTestDataset(opt)
    assert ours.data_info == theirs.data_info
    assert len(ours) == len(theirs) == 15
    for index in range(15):
        sample, expected = ours[index], theirs[index]
        assert set(sample) == set(expected)
        for key, value in expected.items():
            assert torch.equal(sample[key], value) if key in ('lq', 'gt') else sample[key] == value


@pytest.mark.parametrize('padding', PADDINGS)
@pytest.mark.parametrize('length', [1, 2, 3, 4])
def test_windows_of_short_clips_stay_in_range(make_tree, padding, length):
    lq = make_tree('lq', {'a': length})
    dataset = VideoDeblurTestDataset(options(lq, padding=padding))
    assert len(dataset) == length
    for centre, sample in enumerate(dataset):
        blue = [round(mark) for mark in (sample['lq'][:, 2, 0, 0] * 255).tolist()]
        assert blue == window_indices(centre, length, 5, padding)
        assert blue[2] == centre and set(blue) <= set(range(length))
        assert sample['border'] == 1 and sample['idx'] == f'{centre}/{length}'


def test_reflection_may_repeat_in_long_windows():
    assert window_indices(0, 3, 7, 'reflection') == [2, 2, 1, 0, 1, 2, 1]


def test_ground_truth_is_optional(pair):
    dataset = VideoDeblurTestDataset(options(pair[0]))
    assert set(dataset[0]) == {'lq', 'folder', 'idx', 'border', 'lq_path'}
    assert dataset.data_info['gt_path'] == [] and len(dataset) == 15


def test_lmdb_has_the_same_frames_as_the_folder(pair):
    databases = [root.with_suffix('.lmdb') for root in pair]
    for root, database in zip(pair, databases, strict=True):
        write_lmdb(root, database, progress=False)
    folder, lmdb = VideoDeblurTestDataset(options(*pair)), VideoDeblurTestDataset(options(*databases))
    for expected, sample in zip(folder, lmdb, strict=True):
        assert torch.equal(sample['lq'], expected['lq']) and torch.equal(sample['gt'], expected['gt'])
        assert Path(sample['lq_path']).stem == Path(expected['lq_path']).stem


def test_basicsr_builds_data_set_and_loader(pair):
    opt = options(*pair, scale=1)
    samples = list(build_dataloader(build_dataset(opt), opt))
    assert len(samples) == 15 and samples[9]['lq'].shape == (1, 5, 3, 24, 32)
    assert samples[9]['folder'] == ['beta'] and samples[9]['idx'] == ['0/6']


@pytest.mark.parametrize('padding', PADDINGS)
def test_each_frame_is_decoded_once(pair, padding, monkeypatch):
    read, decoded = FolderStore.read, Counter()

    def counted(store, clip, frame):
        decoded[clip, frame] += 1
        return read(store, clip, frame)

    monkeypatch.setattr(FolderStore, 'read', counted)
    dataset = VideoDeblurTestDataset(options(pair[0], padding=padding))
    for _ in dataset:
        assert dataset._read_lq.cache_info().currsize <= 5
    assert set(decoded.values()) == {1} and len(decoded) == 15


def test_pickle_has_no_decoded_frames(pair):
    dataset = VideoDeblurTestDataset(options(*pair))
    empty = len(pickle.dumps(dataset))
    expected = dataset[4]
    data = pickle.dumps(dataset)
    assert len(data) == empty
    assert torch.equal(pickle.loads(data)[4]['lq'], expected['lq'])


@pytest.mark.parametrize(
    'changes, words',
    [
        ({'padding': 'reflect'}, "padding 'reflect' is not one of .*did you mean 'reflection'"),
        ({'num_frame': 2}, 'num_frame is 2'),
        ({'scale': 2}, 'scale is 2'),
        ({'dataroot_lq': None}, 'dataroot_lq is missing'),
        ({'y_only': True}, 'y_only is for training alone'),
    ],
)
def test_bad_options_are_refused(pair, changes, words):
    with pytest.raises(DBLRError, match=words):
        VideoDeblurTestDataset(options(*pair) | changes)


def test_options_are_not_changed(pair):
    opt = options(*pair, io_backend={'type': 'disk'})
    before = copy.deepcopy(opt)
    VideoDeblurTestDataset(opt)[0]
    assert opt == before


def test_all_faults_of_a_window_are_reported_at_once(pair):
    """Blurry and sharp frames damaged after the start are each named once."""
    lq, gt = pair
    test = VideoDeblurTestDataset(options(lq, gt))
    train = VideoDeblurDataset(options(lq, gt) | {'type': 'VideoDeblurDataset', 'phase': 'train', 'gt_size': 16})
    clip = test.clips[0]
    damaged = [lq / clip.name / f'{clip.frames[0]}.png', lq / clip.name / f'{clip.frames[1]}.png']
    damaged.append(gt / clip.name / f'{clip.frames[2]}.png')
    for path in damaged:
        path.write_bytes(b'\x89PNG')
    for sample in (lambda: test[2], lambda: train[0]):
        with pytest.raises(DBLRError, match='3 faults in the frames of a window') as caught:
            sample()
        told = str(caught.value).splitlines()[1:]
        assert [any(str(path) in line for line in told) for path in damaged] == [True] * 3
    with pytest.raises(DBLRError, match='2 faults'):
        test[0]  # repeats the first frame
