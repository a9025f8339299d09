"""The warping error of clips with known motion and noise."""

from itertools import pairwise
from statistics import fmean

import cv2
import numpy as np
import pytest

from dblr_plugin.errors import DBLRError
from dblr_plugin.evaluation.consistency import flow_and_visible, warped_difference, warping_error

HEIGHT, WIDTH = 96, 128
SIGMA = 8.0


def texture(seed: int, height: int, width: int) -> np.ndarray:
    noise = cv2.GaussianBlur(np.random.default_rng(seed).random((height, width, 3)), (0, 0), 1.5)
    return ((noise - noise.min()) / np.ptp(noise) * 255).round()


def moving(columns: int, rows: int = 0, frames: int = 6) -> list[np.ndarray]:
    """Frames of a window that moves over a texture by whole pixels."""
    whole = texture(0, HEIGHT + 40, WIDTH + 40)
    corners = [(rows * i, columns * i) for i in range(frames)]
    return [whole[y : y + HEIGHT, x : x + WIDTH] for y, x in corners]


def noisy(frames: list[np.ndarray], sigma: float = SIGMA, seed: int = 1) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [frame + rng.normal(0, sigma, frame.shape) for frame in frames]


def figures(restored: list[np.ndarray], truth: list[np.ndarray]) -> dict[str, float]:
    """Returns the means over all pairs of consecutive frames, for the restored clip and for the ground truth itself."""
    pairs = list(pairwise(zip(restored, truth, strict=True)))
    return {
        'warping_error': fmean(warping_error(*after, *before) for before, after in pairs),
        'warping_error_truth': fmean(warping_error(t, t, b, b) for (_, b), (_, t) in pairs),
    }


def test_static_clip_is_consistent():
    still = moving(0)
    assert figures(still, still) == {'warping_error': 0, 'warping_error_truth': 0}
    # also if all pixels are wrong
    assert figures([255 - frame for frame in still], still)['warping_error'] == 0


@pytest.mark.parametrize('motion', [(0, 0), (4, 0), (3, -2), (-5, 3)])
def test_independent_noise_adds_twice_its_variance(motion):
    columns, rows = motion
    truth = moving(abs(columns), abs(rows))
    truth = truth if columns >= 0 else truth[::-1]
    found = figures(noisy(truth), truth)
    assert found['warping_error_truth'] < 1e-5
    assert found['warping_error'] == pytest.approx(2 * (SIGMA / 255) ** 2, rel=0.06)


def test_errors_that_move_with_the_scene_are_consistent():
    """The restored clip shows another texture, which moves like the ground truth."""
    whole = texture(5, HEIGHT + 40, WIDTH + 40)
    restored = [whole[:HEIGHT, 4 * i : 4 * i + WIDTH] for i in range(6)]
    assert figures(restored, moving(4))['warping_error'] < 1e-4


def test_flicker_adds_the_square_of_its_step():
    truth = moving(4)
    calm = figures(truth, truth)['warping_error']
    for step in (2.55, 5.1):
        flickering = [frame + step * (i % 2) for i, frame in enumerate(truth)]
        assert figures(flickering, truth)['warping_error'] == pytest.approx(calm + (step / 255) ** 2, rel=0.02)


def test_uint8_and_float_frames_score_alike():
    truth = moving(4)
    restored = [frame.round().clip(0, 255) for frame in noisy(truth)]
    as_bytes = [frame.astype(np.uint8) for frame in restored], [frame.astype(np.uint8) for frame in truth]
    assert figures(*as_bytes) == figures(restored, truth)


class TestOcclusion:
    """A patch moves over a still texture, 6 pixels to the right."""

    @pytest.fixture
    def pair(self):
        frames = []
        for i in range(2):
            frame = texture(2, HEIGHT, WIDTH)
            frame[30:66, 40 + 6 * i : 80 + 6 * i] = texture(3, 36, 40)
            frames.append(frame)
        return frames

    def test_hidden_pixels_are_left_out(self, pair):
        _, visible = flow_and_visible(*pair)
        assert visible[30:66, 80:86].mean() < 0.1  # the patch hides these in the next frame
        assert visible[:20].mean() > 0.98 and visible[36:60, 46:70].mean() > 0.98

    def test_hidden_pixels_do_not_change_the_error(self, pair):
        flow, visible = flow_and_visible(*pair)
        assert visible.mean() > 0.85
        assert warped_difference(*pair, flow, visible) < 0.1 * warped_difference(*pair, flow, np.ones_like(visible))
        other = pair[0].copy()
        other[~visible] = 255 - other[~visible]
        assert warped_difference(other, pair[1], flow, visible) == warped_difference(*pair, flow, visible)

    def test_pixels_that_leave_the_frame_are_left_out(self):
        first, second = moving(6, frames=2)
        flow, visible = flow_and_visible(first, second)
        assert np.abs(flow[20:-20, 20:-20] - (-6, 0)).max() < 0.5
        assert not visible[:, :5].any() and visible[:, 8:].mean() > 0.97


def test_clip_error_is_the_mean_over_pairs():
    truth = moving(3)
    restored = noisy(truth)
    pairs = [figures(restored[i : i + 2], truth[i : i + 2])['warping_error'] for i in range(5)]
    assert figures(restored, truth)['warping_error'] == pytest.approx(fmean(pairs), rel=1e-12)


def test_crop_border_and_grey_frames():
    truth, restored = moving(4, frames=2), noisy(moving(4, frames=2))
    cropped = [frame[5:-5, 5:-5] for frame in (restored[1], truth[1], restored[0], truth[0])]
    assert warping_error(restored[1], truth[1], restored[0], truth[0], crop_border=5) == warping_error(*cropped)
    greys = [frame.mean(axis=2) for frame in cropped]
    assert 0 < warping_error(*greys) < warping_error(*cropped)  # averaging the channels reduces the noise


def test_small_frames_are_refused():
    with pytest.raises(DBLRError, match='40x20 are too small for optical flow'):
        warping_error(*[texture(0, 20, 40)] * 4)
