"""Long exposures: light is averaged, not display values, and frames pair up as stated."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from demo_clips import blur_frames, read_video, write_clip_pair

from dblr_plugin.colour import linear_to_srgb
from dblr_plugin.errors import DBLRError


def _flat(value: int, size: tuple[int, int] = (8, 12)) -> np.ndarray:
    return np.full((*size, 3), value, np.uint8)


def _read_clip(folder: Path) -> list[np.ndarray]:
    return [cv2.imread(str(path))[..., ::-1] for path in sorted(folder.iterdir())]


def _write_video(path: Path, frames: list[np.ndarray]) -> None:
    """Writes a lossless RGB video, so that frames must come back unchanged."""
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('ffv1', rate=25)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = 'bgr0'
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format='rgb24')))
        container.mux(stream.encode())


class TestBlurFrames:
    @pytest.mark.parametrize('num_average', [1, 3, 5, 7])
    def test_unchanging_frames_stay_unchanged_to_the_bit(self, num_average: int) -> None:
        frame = np.arange(256 * 3, dtype=np.uint16).reshape(16, 16, 3).astype(np.uint8)
        np.testing.assert_array_equal(blur_frames([frame] * 7, num_average), frame)

    def test_black_and_white_average_to_half_the_light(self) -> None:
        """Half the light of white is sRGB 188; the mean of the display values would be 128."""
        half = np.rint(linear_to_srgb(np.array(0.5)) * 255).astype(np.uint8)
        assert half == 188
        np.testing.assert_array_equal(blur_frames([_flat(0), _flat(half), _flat(255)], 3), _flat(half))

    def test_uses_only_the_frames_around_the_middle(self) -> None:
        frames = [_flat(255), _flat(40), _flat(40), _flat(40), _flat(255)]
        np.testing.assert_array_equal(blur_frames(frames, 3), _flat(40))

    @pytest.mark.parametrize(('count', 'num_average'), [(5, 4), (4, 3), (3, 5), (3, -1)])
    def test_refuses_what_has_no_middle(self, count: int, num_average: int) -> None:
        with pytest.raises(DBLRError, match='odd'):
            blur_frames([_flat(0)] * count, num_average)


class TestWriteClipPair:
    @pytest.mark.parametrize(
        ('count', 'num_average', 'stride', 'centres'),
        [
            (5, 5, 5, [2]),
            (16, 5, 5, [2, 7, 12]),
            (9, 3, 1, [1, 2, 3, 4, 5, 6, 7]),
            (4, 1, 2, [0, 2]),
        ],
    )
    def test_frames_pair_up(
        self, tmp_path: Path, count: int, num_average: int, stride: int, centres: list[int]
    ) -> None:
        frames = [_flat(10 * index) for index in range(count)]
        written = write_clip_pair(frames, tmp_path / 'lq', tmp_path / 'gt', 'clip', num_average, stride)
        names = [f'{index:08d}.png' for index in range(len(centres))]
        assert written == len(centres)
        assert sorted(path.name for path in (tmp_path / 'lq/clip').iterdir()) == names
        sharp, blurry = _read_clip(tmp_path / 'gt/clip'), _read_clip(tmp_path / 'lq/clip')
        for index, centre in enumerate(centres):
            reach = num_average // 2
            np.testing.assert_array_equal(sharp[index], frames[centre])
            exposure = frames[centre - reach : centre + reach + 1]
            np.testing.assert_array_equal(blurry[index], blur_frames(exposure, num_average))

    def test_exposures_share_no_source_frame(self, tmp_path: Path) -> None:
        """Each source frame lights its own pixel: a pixel lit in two blurry frames would be a frame used twice."""
        frames = [np.zeros((1, 21, 3), np.uint8) for _ in range(21)]
        for index, frame in enumerate(frames):
            frame[0, index] = 255
        assert write_clip_pair(frames, tmp_path / 'lq', tmp_path / 'gt', 'clip', 7, 7) == 3
        lit = np.stack([frame[0, :, 0] > 0 for frame in _read_clip(tmp_path / 'lq/clip')])
        np.testing.assert_array_equal(lit.sum(0), np.ones(21))

    def test_colours_keep_their_order(self, tmp_path: Path) -> None:
        frame = np.broadcast_to(np.array([250, 120, 10], np.uint8), (4, 4, 3))
        write_clip_pair([frame] * 3, tmp_path / 'lq', tmp_path / 'gt', 'clip', 3, 1)
        np.testing.assert_array_equal(_read_clip(tmp_path / 'lq/clip')[0], frame)

    @pytest.mark.parametrize(
        ('count', 'num_average', 'stride', 'message'),
        [(9, 4, 1, 'odd'), (9, 3, 0, 'stride'), (4, 5, 1, 'needs at least as many, got 4')],
    )
    def test_bad_input(self, tmp_path: Path, count: int, num_average: int, stride: int, message: str) -> None:
        with pytest.raises(DBLRError, match=message):
            write_clip_pair([_flat(0)] * count, tmp_path / 'lq', tmp_path / 'gt', 'clip', num_average, stride)
        assert not list(tmp_path.iterdir())


class TestReadVideo:
    def test_every_frame_unchanged_and_in_order(self, tmp_path: Path) -> None:
        frames = [np.random.default_rng(seed).integers(0, 256, (32, 48, 3), np.uint8) for seed in range(9)]
        _write_video(tmp_path / 'clip.mkv', frames)
        np.testing.assert_array_equal(np.stack(list(read_video(tmp_path / 'clip.mkv'))), np.stack(frames))

    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(DBLRError, match='no such video file'):
            next(read_video(tmp_path / 'none.mp4'))

    @pytest.mark.parametrize('content', [b'', b'frames go here, one day\n' * 40])
    def test_not_a_video(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / 'notes.mp4'
        path.write_bytes(content)
        with pytest.raises(DBLRError, match='notes.mp4.*(decoded as|no) video'):
            list(read_video(path))
