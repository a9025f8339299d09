import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from basicsr.data import build_dataset
from basicsr.models import build_model
from torch.utils.data import DataLoader

from dblr_plugin import commands
from dblr_plugin.data import write_lmdb
from dblr_plugin.errors import DBLRError
from dblr_plugin.evaluation.evaluate import evaluate
from dblr_plugin.evaluation.protocols import PROTOCOLS, choose_protocols, with_metrics

BASICSR = choose_protocols('basicsr')
ALL = choose_protocols('all')


def figures(results: Path, truth: Path, protocols=BASICSR) -> list[dict]:
    return evaluate(results, truth, protocols, progress=False)


def renamed(source: Path, target: Path, suffix: str) -> Path:
    for path in source.glob('*/*.png'):
        copy = target / path.parent.name / f'{path.stem}{suffix}.png'
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    return target


def write_video(path: Path, frames: list[np.ndarray]) -> Path:
    """Writes BGR frames without loss."""
    import av

    with av.open(str(path), 'w') as container:
        stream = container.add_stream('ffv1', rate=25)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = 'bgr0'
        for frame in [*(av.VideoFrame.from_ndarray(frame, format='bgr24') for frame in frames), None]:
            for packet in stream.encode(frame):
                container.mux(packet)
    return path


@pytest.fixture
def lq(footage: Path) -> Path:
    return footage / 'val/lq'


@pytest.fixture
def gt(footage: Path) -> Path:
    return footage / 'val/gt'


class TestScores:
    def test_scores_equal_those_of_single_frames(self, lq, gt):
        clips = {}
        for clip in 'vw':
            pairs = [(cv2.imread(str(p)), cv2.imread(str(gt / clip / p.name))) for p in sorted((lq / clip).iterdir())]
            assert len(pairs) == 6
            clips[clip] = float(np.mean([PROTOCOLS['luma'].score(*pair)['psnr'] for pair in pairs]))
        entry = figures(lq, gt, choose_protocols('luma'))[0]
        assert {clip: means['psnr'] for clip, means in entry['clips'].items()} == clips
        assert entry['mean']['psnr'] == np.mean(list(clips.values())) and entry['frames'] == {'v': 6, 'w': 6}

    def test_all_protocols_together_equal_each_alone(self, lq, gt):
        together = figures(lq, gt, ALL)
        assert [entry['protocol'] for entry in together] == list(PROTOCOLS)
        assert together == [figures(lq, gt, [protocol])[0] for protocol in ALL]
        assert len({(entry['mean']['psnr'], entry['mean']['ssim']) for entry in together}) == len(ALL)

    def test_grey_results_are_told(self, tmp_path, lq, gt, caplog):
        grey = tmp_path / 'grey'
        for path in lq.glob('*/*.png'):
            (grey / path.parent.name).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(grey / path.parent.name / path.name), cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))
        figures(lq, gt)
        assert not caplog.records
        figures(grey, gt)
        assert 'v, w: restored frames are grey, and the ground truth has colour' in caplog.text

    def test_written_images_score_as_in_validation(self, train_options, tmp_path, lq, gt):
        """Scores of a test, and of its input, can be reproduced from the images that it saves."""
        places = {name: str(tmp_path / name) for name in ('models', 'training_states', 'visualization', 'log')}
        (tmp_path / 'log').mkdir()
        train_options |= {'dist': False, 'is_train': False, 'name': 'test_my_net'}
        train_options['path'] |= places
        train_options['val']['protocol'] = 'all'
        dataset = build_dataset(train_options['datasets']['val'] | {'phase': 'val', 'scale': 1})
        build_model(train_options).nondist_validation(DataLoader(dataset), 'test_my_net', None, True)
        assert (tmp_path / 'visualization/V/v/00000000_test_my_net.png').is_file()
        recorded = json.loads((tmp_path / 'log/metrics.json').read_text())
        for entry in recorded:
            assert (entry.pop('dataset'), entry.pop('iter')) == ('V', 'test_my_net')
        inputs = [entry.pop('input') for entry in recorded]
        assert inputs == [{key: entry[key] for key in ('mean', 'clips')} for entry in figures(lq, gt, ALL)]
        assert figures(tmp_path / 'visualization/V', gt, ALL) == recorded


class TestPairing:
    @pytest.mark.parametrize('suffix', ['_net', '_test_DBLRNet', '_10'])
    def test_suffix_of_results_is_ignored(self, lq, gt, tmp_path, suffix):
        assert figures(renamed(lq, tmp_path / 'results', suffix), gt) == figures(lq, gt)

    def test_lmdb_scores_as_folders(self, lq, gt, tmp_path):
        for name, source in (('lq', lq), ('gt', gt)):
            write_lmdb(source, tmp_path / f'{name}.lmdb', progress=False)
        assert figures(tmp_path / 'lq.lmdb', tmp_path / 'gt.lmdb') == figures(lq, gt)
        assert figures(tmp_path / 'lq.lmdb', gt) == figures(lq, gt)

    def test_folders_of_one_clip_are_compared_directly(self, lq, gt):
        entry = figures(lq / 'v', gt / 'w')[0]  # names of clips do not matter
        assert list(entry['clips']) == ['w'] and entry['mean'] != figures(lq / 'w', gt / 'w')[0]['mean']
        assert figures(lq / 'v', gt / 'v')[0]['mean'] == figures(lq, gt)[0]['clips']['v']

    def test_unscored_frames_may_be_missing(self, lq, gt, tmp_path):
        """Frames are counted in the ground truth, so that the restored frames may be a subset."""
        results = renamed(lq, tmp_path / 'results', '')
        for name in ('00000000', '00000005'):
            (results / f'v/{name}.png').unlink()
        inner = choose_protocols('cdvd-tsp')
        assert figures(results, gt, inner) == figures(lq, gt, inner)
        with pytest.raises(DBLRError, match="frame 'v/00000000' of .* is missing from .*results"):
            figures(results, gt)

    def test_previous_frame_is_required_by_temporal_metrics(self, lq, gt, tmp_path):
        results = renamed(lq, tmp_path / 'results', '')
        for name in ('00000000', '00000005'):
            (results / f'v/{name}.png').unlink()
        inner = with_metrics(choose_protocols('cdvd-tsp'), {'warping_error': {'type': 'warping_error'}})
        assert figures(results, gt, inner) == figures(lq, gt, inner)
        (results / 'v/00000001.png').unlink()
        with pytest.raises(DBLRError, match="frame 'v/00000001' of .* is missing from .*results"):
            figures(results, gt, inner)

    @pytest.mark.parametrize('size', [(48, 40), (48, 56)])
    def test_videos_of_unequal_size_are_refused(self, gt, tmp_path, size):
        """A smaller video must not be compared with the top left corner of the larger one."""
        pytest.importorskip('av')
        truth = write_video(tmp_path / 'truth.mkv', [cv2.imread(str(path)) for path in sorted((gt / 'v').iterdir())])
        results = write_video(tmp_path / 'results.mkv', [np.zeros((*size, 3), np.uint8)] * 6)
        message = rf'results.mkv is {size[1]}x48 \(w x h\), and .*truth.mkv 48x48; both must have one size'
        with pytest.raises(DBLRError, match=message):
            figures(results, truth)
        assert figures(gt / 'v', truth)[0]['mean']['psnr'] == np.inf

    def test_all_faults_are_reported_at_once(self, lq, gt, tmp_path):
        results = renamed(lq, tmp_path / 'results', '_net')
        (results / 'v/00000002_net.png').unlink()
        (results / 'v/00000009_net.png').write_bytes(b'')
        (results / 'w').rename(results / 'x')
        cv2.imwrite(str(results / 'v/00000003_net.png'), np.zeros((8, 8, 3), np.uint8))
        with pytest.raises(DBLRError) as error:
            figures(results, gt)
        message = str(error.value)
        for part in ("frame 'v/00000002'", "frame 'v/00000009'", "clip 'x'", "clip 'w'", '8x8'):
            assert part in message

    def test_mixed_suffixes_are_not_guessed(self, lq, gt, tmp_path):
        results = renamed(lq, renamed(lq, tmp_path / 'results', '_5'), '_10')
        with pytest.raises(DBLRError, match="frame 'v/00000000_5'"):
            figures(results, gt)

    def test_missing_folder_is_refused(self, gt, tmp_path):
        with pytest.raises(DBLRError, match='nowhere does not exist'):
            figures(tmp_path / 'nowhere', gt)


class TestCommand:
    def test_scores_are_printed_and_written_to_json(self, lq, gt, tmp_path, monkeypatch, capsys):
        results = renamed(lq, tmp_path / 'results', '_net')
        shutil.copytree(gt / 'v', tmp_path / 'same/v')
        (results / 'w').rename(tmp_path / 'same/w')
        for path in (tmp_path / 'same/v').iterdir():
            path.rename(path.with_stem(f'{path.stem}_net'))
        monkeypatch.chdir(tmp_path)
        commands.main(['evaluate', 'same', str(gt), '--protocol', 'all', '--json', 'figures.json'])
        printed = capsys.readouterr().out
        record = json.loads((tmp_path / 'figures.json').read_text())
        assert (record['results'], record['truth']) == ('same', str(gt)) and 'basicsr' in record['versions']
        assert [entry['protocol'] for entry in record['figures']] == list(PROTOCOLS)
        for entry in record['figures']:
            assert entry['clips']['v']['psnr'] == 'inf' and 0 < entry['clips']['w']['psnr'] < 60
            assert f'protocol {entry["protocol"]}: {entry["meaning"]}' in printed
            assert f'{entry["clips"]["w"]["psnr"]:.4f}' in printed

    def test_all_kinds_of_ssim(self, frame_pair, tmp_path):
        for name, frame in zip(('results', 'truth'), frame_pair, strict=True):
            (tmp_path / name).mkdir()
            cv2.imwrite(str(tmp_path / name / '0.png'), frame.round())
        kinds = [part for name in ('ssim_2d', 'ssim_3d', 'ms_ssim') for part in ('--metric', name)]
        commands.main(['evaluate', *(str(tmp_path / n) for n in ('results', 'truth')), *kinds, '--protocol',
                       'vrt-matlab', '--json', str(tmp_path / 'figures.json')])  # fmt: skip
        (entry,) = json.loads((tmp_path / 'figures.json').read_text())['figures']
        assert list(entry['mean']) == ['psnr', 'ssim', 'ssim_2d', 'ssim_3d', 'ms_ssim']
        assert entry['mean']['ssim'] == entry['mean']['ssim_3d'] != entry['mean']['ssim_2d']

    def test_all_undecodable_frames_are_named(self, lq, gt, tmp_path):
        results = shutil.copytree(lq, tmp_path / 'results')
        damaged = sorted(results.glob('*/*.png'))[1::4]
        for path in damaged:
            data = path.read_bytes()
            middle = data.index(b'IDAT') + 4
            path.write_bytes(data[:middle] + bytes(len(data) - middle - 12) + data[-12:])
        with pytest.raises(DBLRError, match=f'{len(damaged)} faults in the frames:') as found:
            figures(results, gt, ALL)
        assert len(damaged) == 3 and all(str(path) in str(found.value) for path in damaged)

    @pytest.mark.parametrize(('arguments', 'message'), [
        (['--protocol', 'vrt-matalb'], "no protocol is called 'vrt-matalb'; did you mean 'vrt-matlab'?"),
        (['--metric', 'nique'], "no metric is called 'nique'; did you mean 'niqe'?"),
        (['--imports', 'no.py'], 'imports: no.py is not a Python file'),
        (['--json', 'no/such/figures.json'], 'no/such is not a folder'),
    ])  # fmt: skip
    def test_wrong_arguments_are_refused_before_scoring(self, lq, gt, arguments, message):
        with pytest.raises(DBLRError, match=re.escape(message)):
            commands.main(['evaluate', str(lq), str(gt), *arguments])
