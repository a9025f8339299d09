"""Training samples: windows, crops, flips, randomness, loaders and options."""

import copy
import random
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from basicsr.data import build_dataloader, build_dataset, worker_init_fn
from basicsr.data.reds_dataset import REDSDataset
from basicsr.data.transforms import augment
from processes import warm
from torch.utils.data import DataLoader

from dblr_plugin.data.frames import flip
from dblr_plugin.data.lmdb_writer import write_lmdb
from dblr_plugin.data.video_deblur_dataset import VideoDeblurDataset
from dblr_plugin.errors import DBLRError


def options(pair: tuple[Path, Path], **changes) -> dict:
    lq, gt = pair
    opt = {'name': 'clips', 'type': 'VideoDeblurDataset', 'dataroot_lq': str(lq), 'dataroot_gt': str(gt)}
    return {**opt, 'gt_size': 16, **changes}


def in_lmdb(pair: tuple[Path, Path]) -> tuple[Path, Path]:
    databases = tuple(root.with_suffix('.lmdb') for root in pair)
    for root, database in zip(pair, databases, strict=True):
        write_lmdb(root, database, progress=False)
    return databases


def marks(frames: torch.Tensor) -> list[int]:
    """Returns the frames' marks, from the blue channel of their first pixels."""
    return [round(mark) for mark in (frames[..., 2, 0, 0] * 255).flatten().tolist()]


class TestSample:
    def test_samples_have_shapes_range_and_centres(self, pair):
        dataset = VideoDeblurDataset(options(pair))
        assert len(dataset) == (9 - 4) + (6 - 4)
        sample = dataset[0]
        assert set(sample) == {'lq', 'gt', 'key'}
        assert sample['lq'].shape == (5, 3, 16, 16) and sample['gt'].shape == (3, 16, 16)
        assert sample['lq'].dtype == sample['gt'].dtype == torch.float32
        assert sample['lq'].is_contiguous() and sample['gt'].is_contiguous()
        assert sample['lq'].min() >= 0 and sample['lq'].max() <= 1
        keys = [dataset[i]['key'] for i in range(len(dataset))]
        assert keys == [f'alpha/{i:08d}' for i in range(2, 7)] + [f'beta/{i:08d}' for i in range(2, 4)]

    def test_window_is_centred_on_the_ground_truth(self, pair):
        for sample in VideoDeblurDataset(options(pair)):
            (centre,) = marks(sample['gt'][None])
            assert marks(sample['lq']) == [centre - 100 + offset for offset in (-2, -1, 0, 1, 2)]

    def test_lq_and_gt_have_the_same_random_crop(self, pair):
        dataset, places = VideoDeblurDataset(options(pair)), set()
        for _ in range(40):
            sample = dataset[0]
            columns, rows = sample['gt'][0] * 255, sample['gt'][1] * 255
            for frame in sample['lq']:
                assert torch.equal(frame[:2], sample['gt'][:2])
            assert torch.equal(columns - columns[0, 0], torch.arange(16.0).expand(16, 16))
            assert torch.equal(rows - rows[0, 0], torch.arange(16.0)[:, None].expand(16, 16))
            places.add((round(rows[0, 0].item()), round(columns[0, 0].item())))
        assert len(places) > 10
        assert all(0 <= top <= 24 - 16 and 0 <= left <= 32 - 16 for top, left in places)

    def test_crop_reaches_every_edge(self, make_tree):
        tree = make_tree('lq', {'a': 5}, size=(17, 16))
        dataset = VideoDeblurDataset(options((tree, tree)))
        assert {round(dataset[0]['gt'][1, 0, 0].item() * 255) for _ in range(30)} == {0, 1}

    @pytest.mark.parametrize('clips, intervals, expected', [({'a': 9}, [1, 2], {1, 2}), ({'a': 8}, [1, 2], {1})])
    def test_interval_is_drawn_among_those_that_fit(self, make_tree, clips, intervals, expected):
        tree = make_tree('lq', clips)
        dataset = VideoDeblurDataset(options((tree, tree), interval_list=intervals))
        assert len(dataset) == clips['a'] - 4
        seen = {}
        for index in range(len(dataset)):
            for _ in range(30):
                window = marks(dataset[index]['lq'])
                assert len(set(np.diff(window))) == 1
                seen.setdefault(window[2], set()).add(int(window[1] - window[0]))
        assert seen.pop(4) == expected
        assert all(intervals == {1} for intervals in seen.values())

    def test_random_reverse_reverses_some_windows(self, pair):
        dataset = VideoDeblurDataset(options(pair, random_reverse=True))
        assert {tuple(marks(dataset[0]['lq'])) for _ in range(30)} == {(0, 1, 2, 3, 4), (4, 3, 2, 1, 0)}

    def test_all_frames_of_a_sample_have_the_same_flip(self, pair):
        dataset = VideoDeblurDataset(options(pair, use_hflip=True, use_rot=True))
        seen = set()
        for _ in range(80):
            sample = dataset[0]
            columns, rows = sample['gt'][0] * 255, sample['gt'][1] * 255
            for frame in sample['lq']:
                assert torch.equal(frame[:2], sample['gt'][:2])
            transposed = columns[0, 0] == columns[0, 1]
            if transposed:
                columns, rows = columns.T, rows.T
            seen.add((bool(columns[0, 1] < columns[0, 0]), bool(rows[1, 0] < rows[0, 0]), bool(transposed)))
        assert len(seen) == 8

    def test_flip_equals_basicsrs(self):
        stack = np.random.default_rng(0).integers(0, 256, (6, 5, 7, 3), np.uint8)
        seen = set()
        random.seed(0)
        for _ in range(60):
            expected, status = augment([frame.copy() for frame in stack], return_status=True)
            np.testing.assert_array_equal(flip(stack, *status), np.stack(expected))
            seen.add(status)
        assert len(seen) == 8


@pytest.mark.parametrize('interval', [1, 3])
def test_samples_equal_basicsrs_reds_data_set(make_tree, tmp_path, interval):
    lq = make_tree('lq', {'001': 100}, size=(16, 16))
    gt = make_tree('gt', {'001': 100}, size=(16, 16), first_mark=100)
    meta = tmp_path / 'meta.txt'
    meta.write_text('001 100 (16,16,3)\n')
    opt = options(
        (lq, gt), meta_info_file=str(meta), num_frame=5, interval_list=[interval], random_reverse=False, scale=1
    )
    opt |= {'use_hflip': False, 'use_rot': False, 'dataroot_flow': None, 'val_partition': 'REDS4'}
    ours = {sample['key']: sample for sample in VideoDeblurDataset(opt)}
    reds = REDSDataset({**opt, 'io_backend': {'type': 'disk'}})
    assert len(ours) == 100 - 4 * interval
    for index in range(2 * interval, 100 - 2 * interval):  # REDSDataset replaces the other centres by random ones
        expected = reds[index]
        sample = ours['001/' + expected['key'][-8:]]
        assert torch.equal(sample['lq'], expected['lq']) and torch.equal(sample['gt'], expected['gt'])


class TestLoading:
    AUGMENTED = {'use_hflip': True, 'use_rot': True, 'random_reverse': True, 'interval_list': [1, 2]}

    def epochs(self, pair, workers: int, method: object = None, count: int = 1) -> list[torch.Tensor]:
        """Returns the stacked samples of each epoch; workers are seeded as by BasicSR."""
        dataset = VideoDeblurDataset(options(pair, **self.AUGMENTED))
        seeding = partial(worker_init_fn, num_workers=workers, rank=0, seed=3)
        loader = DataLoader(
            dataset, 2, num_workers=workers, multiprocessing_context=method, worker_init_fn=seeding if workers else None
        )
        torch.manual_seed(5)
        return [torch.cat([batch['lq'] for batch in loader]) for _ in range(count)]

    def test_lmdb_and_folder_have_the_same_samples(self, pair):
        assert torch.equal(self.epochs(pair, 0)[0], self.epochs(in_lmdb(pair), 0)[0])

    def test_forked_workers_read_lmdb(self, pair):
        """The workers are forked while the parent process has the databases open."""
        folder, again = self.epochs(pair, 2, 'fork', count=2), self.epochs(in_lmdb(pair), 2, 'fork', count=2)
        assert torch.equal(folder[0], again[0]) and torch.equal(folder[1], again[1])
        assert not torch.equal(folder[0], folder[1]), 'an epoch repeats the one before'

    @pytest.mark.slow
    def test_workers_read_a_pickled_data_set(self, pair):
        databases = in_lmdb(pair)
        assert torch.equal(self.epochs(databases, 2, warm())[0], self.epochs(databases, 2, 'fork')[0])

    def test_two_data_sets_share_a_database(self, pair):
        databases = in_lmdb(pair)
        first, second = VideoDeblurDataset(options(databases)), VideoDeblurDataset(options(databases, gt_size=20))
        assert first[0]['lq'].shape[-1] == 16 and second[0]['lq'].shape[-1] == 20

    def test_seed_determines_samples_and_epochs_differ(self, pair):
        first = self.epochs(pair, 0, count=2)
        assert torch.equal(first[0], self.epochs(pair, 0)[0]) and not torch.equal(first[0], first[1])

    def test_basicsr_builds_data_set_and_loader(self, pair):
        opt = options(pair, phase='train', batch_size_per_gpu=3, num_worker_per_gpu=0, scale=1)
        batches = list(build_dataloader(build_dataset(opt), opt, num_gpu=0, seed=0))
        assert [tuple(batch['lq'].shape) for batch in batches] == [(3, 5, 3, 16, 16)] * 2


class TestRefusals:
    @pytest.mark.parametrize(
        'changes, words',
        [
            ({'num_frame': 4}, 'num_frame is 4'),
            ({'num_frame': '5'}, "num_frame is '5'"),
            ({'gt_size': 0}, 'gt_size is 0'),
            ({'gt_size': None}, 'gt_size is missing'),
            ({'dataroot_gt': None}, 'dataroot_gt is missing'),
            ({'scale': 4}, 'scale is 4'),
            ({'causal': True, 'random_reverse': True}, 'random_reverse would put another frame at the end'),
            ({'interval_list': []}, 'interval_list'),
            ({'interval_list': [0]}, 'interval_list is 0'),
            ({'io_backend': {'type': 'lmdb'}}, "io_backend type is 'lmdb'"),
        ],
    )
    def test_bad_options_are_refused(self, pair, changes, words):
        with pytest.raises(DBLRError, match=words):
            VideoDeblurDataset(options(pair, **changes))

    def test_too_few_frames_are_refused(self, make_tree):
        tree = make_tree('lq', {'long': 9, 'short': 4})
        with pytest.raises(DBLRError, match="'short' has too few frames: 4, .* needs 5"):
            VideoDeblurDataset(options((tree, tree)))
        with pytest.raises(DBLRError, match="'short' has too few frames: 4, .* needs 9"):
            VideoDeblurDataset(options((tree, tree), interval_list=[2, 3]))

    def test_clip_smaller_than_the_crop_is_refused(self, pair):
        with pytest.raises(DBLRError, match="'alpha' is 32x24 .*smaller than gt_size 25"):
            VideoDeblurDataset(options(pair, gt_size=25))

    @pytest.mark.parametrize('batch, ratio, needed', [(8, 1, 2), (15, 2, 3)])
    def test_epoch_without_a_full_batch_is_refused(self, pair, batch, ratio, needed):
        opt = options(pair, batch_size_per_gpu=batch, dataset_enlarge_ratio=ratio)
        with pytest.raises(DBLRError, match=f'7 samples .* set dataset_enlarge_ratio to {needed} or more'):
            VideoDeblurDataset(opt)
        VideoDeblurDataset({**opt, 'dataset_enlarge_ratio': needed})

    def test_options_are_not_changed(self, pair):
        opt = options(in_lmdb(pair), io_backend={'type': 'lmdb'}, interval_list=[1])
        before = copy.deepcopy(opt)
        VideoDeblurDataset(opt)[0]
        assert opt == before
