"""Gain and shift between restored frames and ground truth."""

import numpy as np
import pytest

from dblr_plugin.evaluation.psnr_ssim import estimate_gain, estimate_shift, register, shifted


@pytest.mark.parametrize('gain', [0.5, 0.97, 1.0, 1.3])
def test_gain_is_recovered(frame_pair, gain):
    _, truth = frame_pair
    assert estimate_gain(truth / gain, truth) == pytest.approx(gain, rel=1e-12)


def test_gain_is_the_least_squares_solution(frame_pair):
    blurry, truth = frame_pair
    gain = np.linalg.lstsq(blurry.reshape(-1, 1).astype(np.float64), truth.reshape(-1).astype(np.float64))[0][0]
    assert estimate_gain(blurry, truth) == pytest.approx(gain, rel=1e-9)


def test_gain_of_black_is_one():
    black = np.zeros((16, 16, 3))
    assert estimate_gain(black, black + 1) == 1


@pytest.mark.parametrize('shift', [(0, 0), (1, 0), (0, -1), (3, -7), (-12, 9), (-20, -20)])
@pytest.mark.parametrize('gain', [0.8, 1.2])
def test_shift_is_recovered(frame_pair, shift, gain):
    """Both frames are crops of a larger one, so that their borders have different content."""
    blurry, truth = frame_pair
    rows, columns = shift
    part = blurry[20 + rows : 181 + rows, 20 + columns : 243 + columns] / gain
    assert estimate_shift(part, truth[20:181, 20:243]) == shift


def test_flat_frames_have_no_shift(frame_pair):
    flat = np.full((31, 47, 3), 99.0)
    assert estimate_shift(flat, flat) == (0, 0)


def test_shifted_fills_with_zeros():
    frame = np.arange(12.0).reshape(3, 4, 1)
    expected = [[0, 0, 0, 0], [1, 2, 3, 0], [5, 6, 7, 0]]
    assert shifted(frame, (1, -1))[..., 0].tolist() == expected
    assert np.array_equal(shifted(frame, (0, 0)), frame)


def test_registered_frames_agree_up_to_the_gain(frame_pair):
    """Shifted ground truth is moved back and scaled by the gain; pixels without content are black."""
    truth = frame_pair[1].astype(np.float64)
    moved = shifted(truth, (2, -3))
    restored, seen = register(moved / 1.25, truth)
    assert np.array_equal(seen[:-2, 3:], truth[:-2, 3:])
    assert not seen[:, :3].any() and not seen[-2:].any()
    gain = np.vdot(moved, truth) / np.vdot(moved, moved)
    assert gain < 0.995  # the gain is estimated before the shift
    np.testing.assert_allclose(restored, gain * seen, rtol=1e-12)


def koehler(z: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The steps of ``eval_image.m``, with complex FFTs and shifts by index as in MATLAB."""
    zs = (x * z).sum() / (z * z).sum() * z
    spectra = (np.fft.fft2(frame.mean(2)) for frame in (x, zs))
    correlation = np.fft.ifft2(next(spectra) * np.conj(next(spectra)))
    peak = np.unravel_index(np.argmax(correlation.real), correlation.shape)
    row, column = (p - n if p + 1 > n // 2 else p for p, n in zip(peak, correlation.shape, strict=True))
    cr, zr = np.zeros_like(x), np.zeros_like(x)
    for i in range(max(row, 0), x.shape[0] + min(row, 0)):
        for j in range(max(column, 0), x.shape[1] + min(column, 0)):
            cr[i, j], zr[i, j] = 1, zs[i - row, j - column]
    return zr, x * cr


@pytest.mark.parametrize('shift', [(0, 0), (-2, 3), (5, -1)])
def test_register_equals_koehlers_procedure(frame_pair, shift):
    blurry, truth = (frame.astype(np.float64) for frame in frame_pair)
    moved = shifted(blurry * 0.7, shift)
    for ours, theirs in zip(register(moved, truth), koehler(moved, truth), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)
