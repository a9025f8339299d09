"""A metric has the same name in option files, protocols and ``dblr evaluate``; see also tests/benchmark."""

import json
import re
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
import torch.distributed as dist
from basicsr.data import build_dataset
from basicsr.metrics import calculate_niqe
from basicsr.models import build_model
from basicsr.utils.registry import METRIC_REGISTRY
from processes import dblr, write_options
from torch.utils.data import DataLoader

from dblr_plugin import commands
from dblr_plugin.errors import DBLRError
from dblr_plugin.evaluation import validation
from dblr_plugin.evaluation.evaluate import evaluate
from dblr_plugin.evaluation.metrics import Metric, find_metric
from dblr_plugin.evaluation.protocols import Protocol, choose_protocols, with_metrics
from dblr_plugin.yaml_file import import_files

MINE = """
import numpy as np
from basicsr.utils.registry import METRIC_REGISTRY


@METRIC_REGISTRY.register()
def calculate_roughness(img, crop_border=0):
    return np.abs(np.diff(img[:, crop_border : img.shape[1] - crop_border].astype(float), axis=1)).mean()


@METRIC_REGISTRY.register()
def calculate_flicker(img, img_before, **kwargs):
    return np.abs(img.astype(float) - img_before).mean()


calculate_roughness.better = 'lower'
"""


@pytest.fixture(scope='module')
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp('mine') / 'mine.py'
    path.write_text(MINE)
    return path


@pytest.fixture
def clip(sharp_frames: list[np.ndarray], tmp_path: Path) -> Path:
    """A folder of one clip's frames, large enough for NIQE."""
    folder = tmp_path / 'clip'
    folder.mkdir()
    for index, frame in enumerate(sharp_frames[:3]):
        cv2.imwrite(str(folder / f'{index:08d}.png'), frame[:200, :200])
    return folder


def read(folder: Path) -> list[np.ndarray]:
    return [cv2.imread(str(path)) for path in sorted(folder.iterdir())]


def evaluated(tmp_path: Path, *arguments: object) -> dict:
    """Returns the only entry that ``dblr evaluate`` writes."""
    commands.main(['evaluate', *map(str, arguments), '--json', str(tmp_path / 'scores.json')])
    (entry,) = json.loads((tmp_path / 'scores.json').read_text())['figures']
    return entry


class TestNames:
    def test_long_and_short_names_find_the_same_metric(self) -> None:
        assert find_metric('calculate_niqe') == find_metric('niqe')
        needs = {name: (find_metric(name).needs_gt, find_metric(name).needs_before) for name in ('psnr', 'niqe')}
        assert needs == {'psnr': (True, False), 'niqe': (False, False)}
        assert find_metric('warping_error').needs_gt and find_metric('warping_error').needs_before
        assert (find_metric('niqe').better, find_metric('psnr').better) == ('lower', 'higher')

    @pytest.mark.parametrize('name', ['psnr', 'calculate_psnr'])
    def test_metric_named_like_another_is_refused(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """The other one was measured."""
        monkeypatch.setitem(METRIC_REGISTRY._obj_map, 'psnr', lambda img, img2: 1.0)
        with pytest.raises(DBLRError, match="two metrics are called 'psnr'.*; rename your own"):
            find_metric(name)

    @pytest.mark.parametrize(('function', 'reason'), [
        (lambda img: 1 / 0, 'ZeroDivisionError'), (lambda img: img, 'TypeError: only .*arrays can be converted'),
    ])  # fmt: skip
    def test_failing_metric_is_reported_in_one_line(self, function, reason) -> None:
        frame = np.zeros((100, 90, 3), np.uint8)
        with pytest.raises(DBLRError, match=rf'metric mine fails on frames of 90x100 \(w x h\): {reason}'):
            Metric('mine', function).score({'img': frame}, {})

    def test_metric_that_writes_into_its_images_leaves_the_next_ones_their_own(self) -> None:
        images = {name: np.full((20, 20, 3), value, np.uint8) for name, value in (('img', 90), ('img2', 100))}

        def spoil(img: np.ndarray, img2: np.ndarray) -> float:
            img[:], img2[:] = 0, 0
            return 0.0

        assert Metric('mine', spoil).score(images, {}) == 0
        assert find_metric('psnr').score(images, {'crop_border': 0}) == pytest.approx(28.13, abs=0.01)

    @pytest.mark.parametrize(('side', 'fix'), [(160, 'leave that metric out'), (165, 'crop less than crop_border 4')])
    def test_a_smaller_crop_is_advised_where_it_helps(self, side, fix) -> None:
        protocol = Protocol('own', '', metrics={'ms_ssim': {'type': 'ms_ssim'}}, crop=4)
        with pytest.raises(DBLRError, match=fix):
            protocol.check_sizes({'c': (side, side)})

    @pytest.mark.parametrize(('name', 'least'), [
        ('niqe', (192, 96)), ('niqe', (96, 192)), ('ms_ssim', (161, 161)), ('ssim_3d', (11, 11)),
        ('warping_error', (32, 32)),
    ])  # fmt: skip
    def test_frames_below_the_smallest_size_are_refused(self, name: str, least: tuple[int, int]) -> None:
        """The error names clip, size and smallest size, and comes before any frame is read."""
        metric = find_metric(name)
        frames = np.random.default_rng(0).integers(0, 256, (4, *least, 3), np.uint8)
        images = dict(zip(('img', 'img2', 'img_before', 'img2_before'), frames, strict=True))
        assert metric.score(images, {'crop_border': 0}) is not None
        height, width = least[0], least[1] + 7
        protocol = Protocol('mine', '', crop=4, metrics={name: {'type': name}})
        reason = rf"clip 'c' of {width}x{height}, protocol mine: {metric.title} needs .*\b{max(least)} pixels"
        with pytest.raises(DBLRError, match=reason):
            protocol.check_sizes({'c': (height, width)})
        protocol.check_sizes({'c': (least[0] + 8, least[1] + 8)})
        protocol.check_sizes({'c': (1 + 8, 1 + 8)} if metric.needs_gt else {}, with_truth=False)

    @pytest.mark.slow
    def test_small_frames_are_refused_before_training(self, train_options: dict, tmp_path: Path) -> None:
        train_options['val']['metrics'] = {'niqe': {'type': 'niqe'}}
        write_options(tmp_path / 'options.yml', train_options)
        result = dblr('train', '-opt', 'options.yml', cwd=tmp_path)
        assert result.returncode == 1 and 'Start training' not in result.stderr
        assert re.search("clip 'v' of 48x48, .*: NIQE needs sides of 96 and 192 pixels", result.stderr), result.stderr


class TestWithoutGroundTruth:
    def test_folder_is_scored(self, clip: Path, mine: Path, tmp_path: Path) -> None:
        asked = ('--metric', 'niqe', '--metric', 'roughness', '--metric', 'calculate_flicker', '--imports', mine)
        entry = evaluated(tmp_path, clip, *asked)
        frames = read(clip)
        assert entry['mean']['niqe'] == np.mean([calculate_niqe(frame, 0) for frame in frames])
        flicker = [np.abs(b.astype(float) - a).mean() for a, b in pairwise(frames)]
        assert entry['mean']['calculate_flicker'] == np.mean(flicker)
        assert list(entry['mean']) == ['niqe', 'roughness', 'calculate_flicker'] and entry['frames'] == {'clip': 3}

    def test_black_frames_have_no_niqe(self, clip: Path, tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
        scored = evaluated(tmp_path, clip, '--metric', 'niqe')['mean']
        black = np.zeros_like(read(clip)[0])
        cv2.imwrite(str(clip / '00000003.png'), black)
        entry = evaluated(tmp_path, clip, '--metric', 'niqe')
        assert entry['mean'] == scored and entry['frames'] == {'clip': 3}
        (tmp_path / 'black').mkdir()
        cv2.imwrite(str(tmp_path / 'black/0.png'), black)
        with pytest.raises(DBLRError, match='black: no metric can score any of its frames'):
            commands.main(['evaluate', str(tmp_path / 'black'), '--metric', 'niqe'])
        assert not [warning for warning in recwarn if warning.category is RuntimeWarning]

    def test_video_scores_as_its_frames(self, clip: Path, mine: Path, tmp_path: Path) -> None:
        with av.open(tmp_path / 'clip.mkv', 'w') as file:
            stream = file.add_stream('ffv1', 25, pix_fmt='bgr0')
            stream.width = stream.height = 200
            for frame in read(clip):
                file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, 'bgr24')))
            file.mux(stream.encode())
        asked = ('--metric', 'roughness', '--metric', 'flicker', '--imports', mine)
        assert evaluated(tmp_path, tmp_path / 'clip.mkv', *asked) == evaluated(tmp_path, clip, *asked)
        both = with_metrics(choose_protocols('basicsr'), {'flicker': {'type': 'flicker'}})
        compared = evaluate(tmp_path / 'clip.mkv', tmp_path / 'clip.mkv', both, progress=False)[0]
        assert compared['mean']['psnr'] == np.inf and compared['mean']['flicker'] > 0

    def test_full_reference_metrics_are_refused(self, clip: Path) -> None:
        with pytest.raises(DBLRError, match='--metric ssim_3d compares with the ground truth'):
            commands.main(['evaluate', str(clip), '--metric', 'niqe', '--metric', 'ssim_3d'])
        with pytest.raises(DBLRError, match='all metrics compare with the ground truth; .* such as niqe'):
            commands.main(['evaluate', str(clip)])


class TestValidation:
    @pytest.fixture
    def options(self, train_options: dict, tmp_path: Path, mine: Path) -> dict:
        places = {name: str(tmp_path / name) for name in ('models', 'training_states', 'visualization', 'log')}
        (tmp_path / 'log').mkdir()
        import_files([str(mine)])
        train_options |= {'dist': False, 'is_train': False, 'name': 'test'}
        train_options['path'] |= places
        train_options['val']['metrics'] |= {
            'rough': {'type': 'roughness', 'crop_border': 2},
            'warping_error': {'type': 'warping_error'},
        }
        return train_options

    def recorded(self, options: dict) -> tuple[dict, dict]:
        """Returns the entry that a test adds to metrics.json, and the best scores."""
        dataset = build_dataset(options['datasets']['val'] | {'phase': 'val', 'scale': 1})
        model = build_model(options)
        model.nondist_validation(DataLoader(dataset), 'test', None, True)
        return json.loads(Path(options['path']['log'], 'metrics.json').read_text())[0], model.record.best['V']

    def test_no_reference_metrics_score_input_and_result(self, options: dict, tmp_path: Path) -> None:
        """Without ground truth, only metrics that need none are scored."""
        del options['datasets']['val']['dataroot_gt']
        entry, best = self.recorded(options)
        assert list(entry['mean']) == list(entry['input']['mean']) == ['rough'] == list(best)
        frames = [cv2.imread(str(path)) for path in sorted((tmp_path / 'visualization/V/v').iterdir())]
        rough = [np.abs(np.diff(frame[:, 2:-2].astype(float), axis=1)).mean() for frame in frames]
        assert entry['clips']['v']['rough'] == np.mean(rough)
        assert best['rough']['better'] == 'lower'

    def test_metric_may_score_the_input_alone(self, options: dict, monkeypatch: pytest.MonkeyPatch) -> None:
        """A network trained from zero returns flat frames at first, which NIQE cannot score; the training ended."""
        del options['datasets']['val']['dataroot_gt']
        options['val'] |= {'metrics': {'rough': {'type': 'roughness'}}, 'protocol': None}
        dataset = build_dataset(options['datasets']['val'] | {'phase': 'val', 'scale': 1})
        blurry = [dataset.lq_store.read(clip.name, frame) for clip in dataset.clips for frame in clip.frames]
        unscored = [True]

        def roughness(img: np.ndarray) -> float | None:
            is_input = any(np.array_equal(img, frame) for frame in blurry)
            return None if unscored[0] and not is_input else 1.0 + is_input

        monkeypatch.setitem(METRIC_REGISTRY._obj_map, 'calculate_roughness', roughness)
        model = build_model(options)
        [*model.net_g.parameters()][-1].data.fill_(0.1)  # otherwise it returns its input
        for unscored[0] in (True, False, True):
            model.nondist_validation(DataLoader(dataset), 'test', None, False)
        (entry,) = json.loads(Path(options['path']['log'], 'metrics.json').read_text())
        assert (entry['mean'], entry['input']['mean']) == ({'rough': 1.0}, {'rough': 2.0})

    def test_extra_metrics_are_added_to_a_protocol(self, options: dict, tmp_path: Path) -> None:
        options['val']['protocol'] = 'cdvd-tsp'
        entry, best = self.recorded(options)
        assert (entry['protocol'], list(entry['mean'])) == ('cdvd-tsp', ['psnr', 'ssim', 'rough', 'warping_error'])
        assert best['warping_error']['better'] == 'lower'
        written = with_metrics(choose_protocols('cdvd-tsp'), options['val']['metrics'])
        again = evaluate(tmp_path / 'visualization/V', options['datasets']['val']['dataroot_gt'], written, False)[0]
        assert (again['mean'], again['clips']) == (entry['mean'], entry['clips'])

    @pytest.mark.parametrize(('metrics', 'name'), [
        ({'psnr': {'type': 'calculate_psnr'}, 'lpips': {'type': 'lpips'}}, 'basicsr'),
        ({'ssim': {'type': 'ssim', 'test_y_channel': True}}, 'luma'),
        ({'3-D': {'type': 'ssim_3d'}}, 'basicsr'),
        ({'ssim': {'type': 'ssim_3d'}}, 'custom: RGB crop 0, ssim is ssim_3d'),
        ({'psnr': {'type': 'psnr', 'crop_border': 4}}, 'custom: RGB crop 4'),
    ])  # fmt: skip
    def test_metrics_are_named_by_a_protocol_only_if_they_are_its_own(self, metrics: dict, name: str) -> None:
        assert [protocol.name for protocol in validation.protocols_of({'metrics': metrics})] == [name]

    @pytest.mark.parametrize('reader', ['read_blurry', 'read_truth'])
    @pytest.mark.parametrize(
        ('change', 'what'), [(lambda f: f / 255, 'an array (48, 48, 3) of float64'), (torch.from_numpy, 'a Tensor')]
    )
    def test_frames_of_another_type_are_refused(self, options: dict, reader: str, change, what: str) -> None:
        """Floats in [0, 1] were scored as nearly black frames."""
        dataset = build_dataset(options['datasets']['val'] | {'phase': 'val', 'scale': 1})
        read = getattr(dataset, reader)
        vars(dataset)[reader] = lambda clip, number: change(read(clip, number))
        restorer, protocols = build_model(options).restorer(), validation.protocols_of(options['val'])
        said = f'v/00000000: VideoDeblurTestDataset.{reader} returns {what}; it must be uint8 (h, w, 3)'
        with pytest.raises(DBLRError, match=re.escape(said)):
            validation.score_dataset(dataset, restorer, protocols, progress=False)

    def test_distributed_scores_equal_those_of_one_process(
        self, options: dict, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        dataset = build_dataset(options['datasets']['val'] | {'phase': 'val', 'scale': 1})
        restorer, protocols = build_model(options).restorer(), validation.protocols_of(options['val'])
        whole = validation.score_dataset(dataset, restorer, protocols, progress=False)
        shares: list = []
        seen: list[str] = []
        callbacks = [lambda frame: seen.append(f'{frame.clip}{frame.index}')]
        for rank in range(5):  # 12 frames: shares begin at 2, 4, 7 and 9, within clips, and need the frame before
            monkeypatch.setattr(validation, 'get_dist_info', lambda rank=rank: (rank, 5))
            monkeypatch.setattr(dist, 'all_gather_object', lambda every, own: (shares.append(own), every.__setitem__(
                slice(None), [*shares, *[([], [], False)] * (5 - len(shares))])))  # fmt: skip
            together = validation.score_dataset(dataset, restorer, protocols, callbacks, progress=False)
        assert together == whole
        assert seen == [f'{clip}{index}' for clip in 'vw' for index in range(6)]
