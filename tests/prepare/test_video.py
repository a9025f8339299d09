"""Clips made from sharp footage: cuts, splits, exposures, flow, shake, and complete runs on encoded files."""

from __future__ import annotations

import signal
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from demo_clips import find_footage as find_demo_footage
from demo_clips import read_video
from processes import Run

from dblr_plugin.colour import linear_to_srgb, to_linear_light
from dblr_plugin.data import open_store
from dblr_plugin.data.cuts import find_shots, thumbnail
from dblr_plugin.data.video_deblur_dataset import VideoDeblurDataset
from dblr_plugin.data.video_deblur_test_dataset import VideoDeblurTestDataset
from dblr_plugin.errors import DBLRError
from dblr_plugin.prepare.exposures import (
    BlurSettings,
    Exposure,
    HandHeld,
    Span,
    average_exposure,
    blurry_frame,
    in_betweens,
    moved,
    split,
)
from dblr_plugin.prepare.tree import LMDB
from dblr_plugin.prepare.video import find_footage, prepare_video


def texture(seed: int, size: tuple[int, int] = (96, 300)) -> np.ndarray:
    noise = np.random.default_rng(seed).random((*size, 3))
    smooth = cv2.GaussianBlur(noise, (0, 0), 4)
    return np.rint(255 * (smooth - smooth.min()) / np.ptp(smooth)).astype(np.uint8)


def panning(count: int, seed: int = 0, step: int = 2, width: int = 128) -> list[np.ndarray]:
    """Returns frames, 96 high and 128 wide by default, of a texture that moves by ``step`` pixels per frame."""
    picture = texture(seed)
    return [np.ascontiguousarray(picture[:, step * i : step * i + width]) for i in range(count)]


def write_video(path: Path, frames: list[np.ndarray], codec: str = 'ffv1', pixels: str = 'bgr0') -> Path:
    with av.open(str(path), 'w') as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format='rgb24')))
        container.mux(stream.encode())
    return path


def exposure(frames: list[np.ndarray]) -> Exposure:
    reach = len(frames) // 2
    span = Span('train', 'clip', len(frames), range(len(frames)), range(reach, reach + 1))
    return Exposure(span, 0, tuple(frames))


def averaged(frames: list[np.ndarray]) -> np.ndarray:
    """Returns the mean in linear light, computed in float64."""
    light = np.mean([np.where((v := f / 255) <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4) for f in frames], 0)
    return np.rint(255 * linear_to_srgb(light)).astype(np.uint8)


class TestAverage:
    def test_average_of_equal_frames_is_bit_identical(self) -> None:
        light = to_linear_light(np.arange(256, dtype=np.uint8).reshape(8, 32, 1).repeat(3, 2))
        for count in (1, 3, 5, 7):
            assert average_exposure([light] * count)[..., 0].ravel().tolist() == list(range(256))

    def test_black_and_white_average_in_linear_light(self) -> None:
        """Half the light of white is sRGB 188; the mean of the display values would be 128."""
        assert average_exposure(np.full((2, 2, 3), v, np.float32) for v in (0, 1))[0, 0].tolist() == [188] * 3


class TestCuts:
    def test_cut_is_found_in_moving_footage(self) -> None:
        frames = panning(20, seed=1) + panning(30, seed=2)
        assert find_shots(list(map(thumbnail, frames))) == [range(0, 20), range(20, 50)]

    def test_fast_motion_noise_and_fading_are_no_cuts(self) -> None:
        rng = np.random.default_rng(0)
        noisy = [np.clip(f + rng.normal(0, 20, f.shape), 0, 255).astype(np.uint8) for f in panning(20, step=8)]
        fading = [np.full((96, 128, 3), 12 * i, np.uint8) for i in range(20)]
        for frames in (noisy, fading):
            assert find_shots(list(map(thumbnail, frames))) == [range(20)]

    @pytest.mark.slow
    def test_demo_footage_has_one_cut(self) -> None:
        shots = find_shots(list(map(thumbnail, read_video(find_demo_footage()))))
        assert shots == [range(0, 116), range(116, 190)]


class TestSplit:
    def test_default_stride_leaves_no_gap_between_exposures(self) -> None:
        spans, _ = split('v', [range(0, 28)], BlurSettings(average=(5,), test_share=0))
        assert [list(span.centres) for span in spans] == [[2, 7, 12, 17, 22]]

    def test_shot_too_short_for_both_parts_goes_to_training(self) -> None:
        spans, _ = split('v', [range(0, 9)], BlurSettings(average=(5,)))
        assert [(span.part, list(span.centres)) for span in spans] == [('train', [2, 3, 4, 5, 6])]

    @pytest.mark.parametrize(
        'options',
        [
            {'average': (4,)},
            {'average': (7, 7)},
            {'stride': 0},
            {'in_between': -1},
            {'shake': -1.0},
            {'test_share': 1.0},
            {'seed': -1},
        ],
    )
    def test_settings_out_of_range_are_refused(self, options: dict) -> None:
        with pytest.raises(DBLRError):
            BlurSettings(**options)


class TestInBetweens:
    def test_without_in_betweens_frames_are_averaged(self) -> None:
        frames = panning(5)
        np.testing.assert_array_equal(blurry_frame(exposure(frames), BlurSettings()), averaged(frames))

    def test_still_frames_stay_unchanged(self) -> None:
        frame = panning(1)[0]
        np.testing.assert_array_equal(blurry_frame(exposure([frame] * 3), BlurSettings(in_between=3)), frame)

    def test_in_betweens_keep_the_mean_brightness(self) -> None:
        frames = panning(5)
        plain, smooth = (
            to_linear_light(blurry_frame(exposure(frames), BlurSettings(in_between=k))).mean() for k in (0, 3)
        )
        assert abs(smooth / plain - 1) < 0.01

    def test_in_between_shows_the_motion_half_way(self) -> None:
        """The frame between two frames of a pan by 8 pixels approximates the true frame, unlike the mean of both."""
        frames = panning(3, step=4)
        (middle,) = in_betweens(frames[0], frames[2], 1)
        inside = np.s_[16:-16, 16:-16]
        ghost = (to_linear_light(frames[0]) + to_linear_light(frames[2])) / 2
        truth = to_linear_light(frames[1])
        assert np.abs(middle - truth)[inside].mean() < 0.1 * np.abs(ghost - truth)[inside].mean()

    def test_in_betweens_approach_the_average_of_many_frames(self) -> None:
        many = panning(17, step=2)
        truth = averaged(many).astype(float)[:, 24:-24]
        few = exposure(many[::4])
        error = [np.abs(blurry_frame(few, BlurSettings(in_between=k))[:, 24:-24] - truth).mean() for k in (0, 3)]
        assert error[1] < 0.5 * error[0]

    def test_frames_too_small_for_flow_are_refused(self) -> None:
        with pytest.raises(DBLRError, match='12x8 are too small'):
            list(in_betweens(*np.zeros((2, 8, 12, 3), np.uint8), 1))


class TestShake:
    def test_zero_pose_changes_nothing(self) -> None:
        light = to_linear_light(panning(1)[0])
        np.testing.assert_array_equal(moved(light, np.zeros(3)), light)

    def test_still_scene_is_blurred_and_its_sharp_frame_unchanged(self) -> None:
        frame = panning(1)[0]
        shaken = exposure([frame] * 7)
        blurry = blurry_frame(shaken, BlurSettings(shake=3.0))
        assert np.abs(blurry.astype(float) - frame).mean() > 2
        np.testing.assert_array_equal(shaken.sharp, frame)

    def test_seed_determines_the_shake(self) -> None:
        shaken = exposure(panning(7))
        first, again, other = (blurry_frame(shaken, BlurSettings(shake=2.0, seed=seed)) for seed in (1, 1, 2))
        np.testing.assert_array_equal(first, again)
        assert not np.array_equal(first, other)

    def test_shake_is_smooth_and_has_the_given_amplitude(self) -> None:
        poses = np.stack(
            [HandHeld(3.0, 7, (96, 128), seed).pose(t / 10) for seed in range(40) for t in range(0, 700, 5)]
        )
        poses = poses.reshape(40, 140, 3)
        np.testing.assert_allclose(np.sqrt((poses[..., :2] ** 2).mean((0, 1))), 3.0, rtol=0.15)
        corner = np.abs(poses[..., 2]) * np.hypot(96, 128) / 2
        assert corner.max() < 6
        steps = np.abs(np.diff(poses[..., :2], axis=1)).max()
        assert steps < 0.5 * 2 * 3.0, 'half a frame moves the camera by a small part of the amplitude'

    def test_pose_shifts_and_rotates_the_frame(self) -> None:
        light = to_linear_light(panning(1)[0])
        np.testing.assert_allclose(moved(light, np.array([2, 3, 0]))[3:, 2:], light[:-3, :-2], atol=1e-6)
        turned = moved(light[:, :96].copy(), np.array([0, 0, np.pi / 2]))
        np.testing.assert_allclose(turned, np.rot90(light[:, :96]), atol=1e-4)


class TestPrepareVideo:
    @pytest.fixture
    def video(self, tmp_path: Path) -> Path:
        """A lossless video of 48 frames with a cut before frame 28."""
        return write_video(tmp_path / 'walk.mkv', panning(28, seed=1) + panning(20, seed=2))

    def test_video_becomes_samples_of_both_data_sets(self, video: Path, tmp_path: Path) -> None:
        tree, recipe = tmp_path / 'tree', BlurSettings(average=(3, 5), stride=2, test_share=0.3)
        content = prepare_video(video, tree, recipe, [LMDB]).manifest
        assert content['shots'] == {'walk': [[0, 27], [28, 47]]}
        assert set(content['parts']['train']['blurry_psnr']) == {
            f'walk_shot{shot}_average{average}' for shot in (1, 2) for average in (3, 5)
        }
        psnr = content['parts']['test']['blurry_psnr']
        assert psnr['walk_shot1_average5'] < psnr['walk_shot1_average3'] < 45
        frames = panning(28, seed=1)
        store = open_store(tree / 'train/lq')
        np.testing.assert_array_equal(store.read('walk_shot1_average5', '00000001')[..., ::-1], averaged(frames[2:7]))
        sharp = open_store(tree / 'train/gt').read('walk_shot1_average5', '00000001')
        np.testing.assert_array_equal(sharp[..., ::-1], frames[4])
        for ending in ('/{}', '_{}.lmdb'):
            roots = {f'dataroot_{side}': str(tree) + '/{}' + ending.format(side) for side in ('lq', 'gt')}
            train = {key: root.format('train') for key, root in roots.items()}
            meta = str(tree / 'meta_info_train.txt')
            sample = VideoDeblurDataset({**train, 'gt_size': 64, 'meta_info_file': meta})[0]
            assert sample['lq'].shape == (5, 3, 64, 64)
            test = VideoDeblurTestDataset({key: root.format('test') for key, root in roots.items()})
            assert len(test) == content['parts']['test']['frames']
        assert prepare_video(video, tree, recipe).was_complete
        with pytest.raises(DBLRError, match="holds 'video of walk.mkv .*average 3 5.*not .*average 3,"):
            prepare_video(video, tree, BlurSettings(average=(3,)))

    @pytest.mark.slow
    def test_killed_preparation_is_resumed_with_the_same_result(self, video: Path, tmp_path: Path) -> None:
        options = ['--average', '3', '--stride', '1', '--in-between', '3', '--shake', '2']
        run = Run('prepare', 'video', video, tmp_path / 'stopped', *options, cwd=tmp_path)
        assert run.until(lambda: len(list((tmp_path / 'stopped').rglob('0*.png'))) >= 6), run.stderr
        assert run.kill() == -signal.SIGKILL
        assert not (tmp_path / 'stopped/dataset.json').exists()
        recipe = BlurSettings(average=(3,), stride=1, in_between=3, shake=2.0)
        for name in ('stopped', 'whole'):
            prepare_video(video, tmp_path / name, recipe)
        files = {path.relative_to(tmp_path / 'whole') for path in (tmp_path / 'whole').rglob('*') if path.is_file()}
        for path in files:
            assert (tmp_path / 'stopped' / path).read_bytes() == (tmp_path / 'whole' / path).read_bytes(), path

    def test_lossy_videos_and_folders_of_frames_are_read(self, tmp_path: Path) -> None:
        folder = tmp_path / 'footage'
        (folder / 'stills').mkdir(parents=True)
        write_video(folder / 'lossy.mp4', panning(24, seed=3), 'libx264', 'yuv420p')
        for index, frame in enumerate(panning(24, seed=4)):
            cv2.imwrite(str(folder / f'stills/img_{index}.png'), frame[..., ::-1])
        assert [footage.name for footage in find_footage(folder)] == ['lossy', 'stills']
        content = prepare_video(folder, tmp_path / 'tree', BlurSettings(average=(3,), test_share=0)).manifest
        assert content['shots'] == {'lossy': [[0, 23]], 'stills': [[0, 23]]}
        assert content['parts']['train']['clips'] == 2 and 'test' not in content['parts']
        first = open_store(tmp_path / 'tree/train/gt').read('stills_shot1_average3', '00000000')
        np.testing.assert_array_equal(first[..., ::-1], panning(24, seed=4)[1])

    def test_footage_is_read_as_by_deblur(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """Frames are upright, names may contain a colon, images beside videos are left out, and damage is an error."""
        with av.open(str(tmp_path / 'plain.mp4'), 'w') as container:
            stream = container.add_stream('libx264', rate=25)
            stream.height, stream.width, stream.pix_fmt = 96, 128, 'yuv420p'
            stream.set_display_rotation(90, False, False)
            for frame in panning(12):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format='rgb24')))
            container.mux(stream.encode())
        folder = tmp_path / 'footage'
        folder.mkdir()
        (tmp_path / 'plain.mp4').rename(folder / 'at 12:30.mp4')
        cv2.imwrite(str(folder / 'thumbnail.jpg'), np.zeros((9, 16, 3), np.uint8))
        (footage,) = find_footage(folder)
        assert [frame.shape for frame in footage.frames()] == [(128, 96, 3)] * 12
        assert 'left out 1 image beside 1 video' in caplog.text
        deep = write_video(tmp_path / 'deep.mkv', panning(3), 'ffv1', 'yuv444p10le')
        assert all(frame.dtype == np.uint8 for frame in find_footage(deep)[0].frames())
        data = bytearray((folder / 'at 12:30.mp4').read_bytes())
        middle = (data.index(b'mdat') + data.index(b'moov')) // 2
        data[middle : middle + 500] = bytes(500)
        (tmp_path / 'bad.mp4').write_bytes(data)
        with pytest.raises(DBLRError, match='damaged'):
            list(find_footage(tmp_path / 'bad.mp4')[0].frames())

    def test_videos_in_folders_are_left_out_with_a_warning(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Also beside thumbnails, which are no frames."""
        write_video(tmp_path / 'one.mkv', panning(3))
        (tmp_path / 'card').mkdir()
        write_video(tmp_path / 'card/two.mkv', panning(3))
        cv2.imwrite(str(tmp_path / 'card/two.jpg'), panning(1)[0])
        assert [footage.name for footage in find_footage(tmp_path)] == ['one']
        assert 'left out the videos in card; give these folders by themselves' in caplog.text

    def test_a_file_managers_file_among_frames_changes_nothing(self, tmp_path: Path) -> None:
        (tmp_path / 'frames').mkdir()
        for index, frame in enumerate(panning(12)):
            cv2.imwrite(str(tmp_path / f'frames/{index}.png'), frame)
        for was_complete in (False, True):
            assert prepare_video(tmp_path / 'frames', tmp_path / 'tree', BlurSettings()).was_complete == was_complete
            (tmp_path / 'frames/.DS_Store').write_bytes(b'x')

    def test_unusable_footage_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(DBLRError, match='nothing does not exist'):
            prepare_video(tmp_path / 'nothing', tmp_path / 'tree', BlurSettings())
        (tmp_path / 'empty').mkdir()
        with pytest.raises(DBLRError, match='neither images, nor folders of images, nor videos .*; folders further'):
            prepare_video(tmp_path / 'empty', tmp_path / 'tree', BlurSettings())
        short = write_video(tmp_path / 'short.mkv', panning(4))
        with pytest.raises(DBLRError, match='no shot of 11 frames, .* 5 exposures of 7 .*; average fewer'):
            prepare_video(short, tmp_path / 'tree', BlurSettings())
        with pytest.raises(DBLRError, match=r'short.mkv is \d+x\d+ \(w x h\), too small for in-betweens'):
            prepare_video(
                write_video(short, [frame[:8, :8] for frame in panning(12)]),
                tmp_path / 'tree',
                BlurSettings(in_between=1),
            )
        cv2.imwrite(str(tmp_path / 'empty/0.png'), panning(1)[0])
        cv2.imwrite(str(tmp_path / 'empty/1.png'), panning(1)[0][:-2])
        with pytest.raises(DBLRError, match='1.png has another size than 0.png'):
            prepare_video(tmp_path / 'empty', tmp_path / 'tree', BlurSettings())
        assert not (tmp_path / 'tree').exists()
