"""Every layout is read, with the published counts and names, and faulty sources are refused."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
from source_trees import Picture, link_frames, numbered

from dblr_plugin import commands
from dblr_plugin.data.video_deblur_dataset import VideoDeblurDataset
from dblr_plugin.data.video_deblur_test_dataset import VideoDeblurTestDataset
from dblr_plugin.errors import DBLRError
from dblr_plugin.prepare.data_sets import (
    BSD_EXPOSURES,
    GOPRO_BLURS,
    GOPRO_TEST,
    GOPRO_TRAIN,
    REDS_BLURS,
    plan_bsd,
    plan_dvd,
    plan_dvd_qualitative,
    plan_gopro,
    plan_kitti,
    plan_reds,
)
from dblr_plugin.prepare.layout import check, prepare_layout


def stems(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.iterdir())


@pytest.fixture
def dvd_tree(dvd_run: tuple[Path, object]) -> Path:
    return dvd_run[0]


class TestDVD:
    @pytest.mark.slow
    def test_complete_source(self, dvd: Path, dvd_tree: Path) -> None:
        content = json.loads((dvd_tree / 'dataset.json').read_text())
        parts = content['parts']
        assert (parts['train']['clips'], parts['train']['frames']) == (61, 5708)
        assert (parts['test']['clips'], parts['test']['frames']) == (10, 1000)
        assert parts['train']['sizes'] == {'16x12': 57, '32x18': 2, '12x16': 2}
        assert content['files'] == 2 * 6708 and 'left_out' not in content
        assert stems(dvd_tree / 'train/lq/IMG_0009') == [f'{number:05d}' for number in range(30, 71)]
        # the JPEG files are linked, not encoded again
        for side, theirs in (('lq', 'input'), ('gt', 'GT')):
            frame = dvd_tree / f'test/{side}/IMG_0030/00099.jpg'
            assert os.path.samefile(frame, dvd / f'quantitative_datasets/IMG_0030/{theirs}/00099.jpg')
        train = (dvd_tree / 'meta_info_train.txt').read_text().splitlines()
        assert len(train) == 61 and 'C0036 63 (18,32,3)' in train and 'IMG_0051 100 (16,12,3)' in train
        assert len((dvd_tree / 'meta_info_test.txt').read_text().splitlines()) == 10
        lines = sorted(f'{path.relative_to(dvd_tree)} {path.stat().st_size}\n' for path in dvd_tree.glob('*/*/*/*.jpg'))
        assert content['sha256'] == hashlib.sha256(''.join(lines).encode()).hexdigest()

    @pytest.mark.slow
    def test_tree_is_read_by_training_and_test_sets(self, dvd_tree: Path) -> None:
        train = VideoDeblurDataset(
            {
                'dataroot_lq': str(dvd_tree / 'train/lq'),
                'dataroot_gt': str(dvd_tree / 'train/gt'),
                'meta_info_file': str(dvd_tree / 'meta_info_train.txt'),
                'gt_size': 8,
            }
        )
        assert len(train) == 5708 - 4 * 61
        assert train[0]['lq'].shape == (5, 3, 8, 8)
        test = VideoDeblurTestDataset(
            {
                'dataroot_lq': str(dvd_tree / 'test/lq'),
                'dataroot_gt': str(dvd_tree / 'test/gt'),
                'meta_info_file': str(dvd_tree / 'meta_info_test.txt'),
            }
        )
        assert len(test) == 1000
        assert test[0]['gt'].shape == (3, 12, 16)

    def test_missing_frame_and_unknown_video_are_named(self, tmp_path: Path, picture: Picture) -> None:
        names = numbered(41, digits=5, first=30, suffix='.jpg')
        names.remove('00047.jpg')
        for side in ('input', 'GT'):
            link_frames(picture(suffix='.jpg'), tmp_path / 'IMG_0009' / side, names)
        (tmp_path / 'IMG_9999').mkdir()
        faults = [fault.text for fault in check(plan_dvd(tmp_path))[1]]
        assert faults[0].endswith('IMG_9999 is not a clip of dvd; move it away')
        found = [text for text in faults if 'train/IMG_0009' in text]
        assert len(found) == 2 and all(text.endswith('has 40 of 41 frames: 00047 missing') for text in found)

    def test_qualitative_subset_has_no_ground_truth(self, tmp_path: Path, picture: Picture) -> None:
        for number in range(22):
            folder = tmp_path / f'source/qualitative_datasets/scene{number}/input'
            link_frames(picture(suffix='.jpg'), folder, numbered(3 + number, digits=5, suffix='.jpg'))
        plan = plan_dvd_qualitative(tmp_path / 'source')
        content = prepare_layout(plan, tmp_path / 'tree').manifest
        assert content['parts']['test']['clips'] == 22 and not content['parts']['test']['ground_truth']
        assert sorted(os.listdir(tmp_path / 'tree')) == ['.lock', 'dataset.json', 'meta_info_test.txt', 'test']
        assert os.listdir(tmp_path / 'tree/test') == ['lq']
        test = VideoDeblurTestDataset({'dataroot_lq': str(tmp_path / 'tree/test/lq')})
        assert len(test) == sum(range(3, 25)) and 'gt' not in test[0]
        shutil.rmtree(tmp_path / 'source/qualitative_datasets/scene7')
        with pytest.raises(DBLRError, match='test has 21 of 22 clips'):
            prepare_layout(plan_dvd_qualitative(tmp_path / 'source'), tmp_path / 'tree2')


class TestGoPro:
    @pytest.fixture
    def source(self, tmp_path: Path, picture: Picture) -> Path:
        for part, sequences in (('train', GOPRO_TRAIN), ('test', GOPRO_TEST)):
            for name, count in sequences.items():
                for value, side in ((60, 'blur'), (70, 'blur_gamma'), (120, 'sharp')):
                    folder = tmp_path / 'GOPRO_Large' / part / name / side
                    link_frames(picture(value=value), folder, numbered(count, digits=6, first=47))
        return tmp_path

    @pytest.mark.slow
    def test_complete_source(self, source: Path, tmp_path: Path) -> None:
        tree = tmp_path / 'tree'
        content = prepare_layout(plan_gopro(source, 'blur_gamma'), tree).manifest
        assert content['variant'] == 'blur_gamma'
        assert [content['parts'][part]['frames'] for part in ('train', 'test')] == [2103, 1111]
        for side, theirs in (('lq', 'blur_gamma'), ('gt', 'sharp')):
            frame = source / f'GOPRO_Large/test/GOPR0384_11_00/{theirs}/000047.png'
            assert os.path.samefile(tree / f'test/{side}/GOPR0384_11_00/000047.png', frame)
        with pytest.raises(DBLRError, match="holds 'gopro blur_gamma', not 'gopro blur'"):
            prepare_layout(plan_gopro(source, 'blur'), tree)

    @pytest.mark.parametrize('blur', GOPRO_BLURS)
    def test_chosen_blur_is_used(self, tmp_path: Path, blur: str) -> None:
        assert {clip.lq.name for clip in plan_gopro(tmp_path, blur).clips} == {blur}


class TestREDS:
    @pytest.mark.slow
    def test_validation_clips_alone_need_allow_partial(self, tmp_path: Path, picture: Picture) -> None:
        for number in range(3):
            for side in ('blur_comp', 'sharp'):
                folder = tmp_path / f'source/val/val_{side}/{number:03d}'
                link_frames(picture(value=120 if side == 'sharp' else 60), folder, numbered(100))
        plan = plan_reds(tmp_path / 'source', 'blur_comp')
        assert [sum(clip.part == part for clip in plan.clips) for part in ('train', 'test')] == [240, 30]
        assert {clip.frames for clip in plan.clips} == {100}
        with pytest.raises(DBLRError, match=r"267 faults(.|\n)*'train/000' is missing(.|\n)*and 257 more(.|\n)*allow-"):
            prepare_layout(plan, tmp_path / 'tree')
        content = prepare_layout(plan, tmp_path / 'tree', allow_partial=True).manifest
        assert list(content['parts']) == ['test'] and content['parts']['test']['frames'] == 300
        assert len(content['left_out']) == 267

    @pytest.mark.parametrize('blur', REDS_BLURS)
    def test_chosen_blur_is_used(self, tmp_path: Path, blur: str) -> None:
        folders = {clip.lq.parent.name for clip in plan_reds(tmp_path, blur).clips}
        assert folders == {f'train_{blur}', f'val_{blur}'}


class TestBSD:
    @pytest.mark.parametrize('exposure', BSD_EXPOSURES)
    def test_each_exposure_has_its_counts(self, tmp_path: Path, picture: Picture, exposure: str) -> None:
        for part, count in (('train', 100), ('test', 150)):
            for value, side in ((60, 'Blur'), (120, 'Sharp')):
                folder = tmp_path / f'BSD_{exposure}' / part / '007' / side / 'RGB'
                link_frames(picture((48, 64), value=value), folder, numbered(count))
        plan = plan_bsd(tmp_path, exposure)
        with pytest.raises(DBLRError, match=r'train has 1 of 60 clips\s+test has 1 of 20 clips'):
            prepare_layout(plan, tmp_path / 'tree')
        content = prepare_layout(plan, tmp_path / 'tree', allow_partial=True).manifest
        assert [content['parts'][part]['frames'] for part in ('train', 'test')] == [100, 150]
        assert content['parts']['test']['sizes'] == {'64x48': 1}

    def test_folder_of_another_exposure_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / 'BSD_1ms8ms').mkdir()
        with pytest.raises(DBLRError, match='BSD_1ms8ms is the folder of another exposure; give --exposure 1ms8ms'):
            plan_bsd(tmp_path / 'BSD_1ms8ms', '3ms24ms')
        assert plan_bsd(tmp_path / 'BSD_1ms8ms', '1ms8ms').source == tmp_path / 'BSD_1ms8ms'


class TestKITTI:
    @pytest.fixture
    def source(self, tmp_path: Path, picture: Picture) -> Path:
        """199 scenes of varying size, with more sharp frames than blurry ones, as in KITTI."""
        for value, side in ((60, 'blur'), (120, 'sharp')):
            for camera in ('image_2', 'image_3'):
                folder = tmp_path / 'source' / side / camera
                folder.mkdir(parents=True)
                for scene in range(199):
                    for frame in (9, 10, 11) if side == 'blur' else range(8, 13):
                        os.link(picture((12, 40 + scene % 3), value=value), folder / f'{scene:06d}_{frame:02d}.png')
        return tmp_path / 'source'

    @pytest.mark.slow
    def test_complete_source(self, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        commands.main(['prepare', 'kitti', str(source), str(tmp_path / 'tree')])
        printed = capsys.readouterr().out
        assert 'kitti, prepared' in printed
        assert 'test_DBLRNet_KITTI.yml fills it by padding: replicate' in printed
        content = json.loads((tmp_path / 'tree/dataset.json').read_text())
        assert content['parts'] == {'test': content['parts']['test']}
        assert (content['parts']['test']['clips'], content['parts']['test']['frames']) == (398, 1194)
        assert len(content['parts']['test']['sizes']) == 3
        assert stems(tmp_path / 'tree/test/gt/000005_right') == ['09', '10', '11']
        assert os.path.samefile(tmp_path / 'tree/test/lq/000005_left/09.png', source / 'blur/image_2/000005_09.png')
        roots = {f'dataroot_{side}': str(tmp_path / 'tree/test' / side) for side in ('lq', 'gt')}
        assert VideoDeblurTestDataset(roots)[0]['lq'].shape == (5, 3, 12, 40)
        (source / 'sharp/image_3/000005_10.png').unlink()
        with pytest.raises(DBLRError, match="'test/000005_right'.*image_3/000005_10.png has no counterpart"):
            prepare_layout(plan_kitti(source), tmp_path / 'other')


@pytest.mark.parametrize('plan', [plan_dvd, plan_dvd_qualitative, plan_kitti])
def test_missing_source_is_refused(plan, tmp_path: Path) -> None:
    with pytest.raises(DBLRError, match='nowhere does not exist'):
        plan(tmp_path / 'nowhere')


def test_source_of_another_layout_is_refused(tmp_path: Path) -> None:
    """Such as the folder that a download was unpacked into, with one more around the data set's."""
    (tmp_path / 'DeepVideoDeblurring_Dataset/quantitative_datasets/IMG_0001/input').mkdir(parents=True)
    with pytest.raises(DBLRError, match=r'has no clip of dvd.*the layout is quantitative_datasets/<video>') as error:
        prepare_layout(plan_dvd(tmp_path), tmp_path / 'tree', allow_partial=True)
    assert '--allow-partial' not in str(error.value) and 'download' not in str(error.value)
