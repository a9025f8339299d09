"""Alignment of a restored frame with the ground truth: one gain, then one whole-pixel shift.

Follows the evaluation code of Koehler et al., Recording and Playback of Camera Shake (ECCV 2012; ``eval_image.m``),
which Su et al. used for their figures on DVD. As there, the gain is estimated from the frames before the shift, so it
comes out too low if they are shifted; and pixels uncovered by the shift are black in both frames and count as equal.
"""

from __future__ import annotations

import numpy as np

__all__ = ['estimate_gain', 'estimate_shift', 'register', 'shifted']


def register(restored: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Aligns a restored frame in brightness and position with the ground truth.

    Args:
        restored: ``(h, w, c)``, any range.
        truth: The same shape and range.

    Returns:
        The scaled and shifted restored frame, and the ground truth, float64 ``(h, w, c)``; both are 0 outside the
        shifted frame.
    """
    restored, truth = restored.astype(np.float64), truth.astype(np.float64)
    scaled = restored * estimate_gain(restored, truth)
    shift = estimate_shift(scaled, truth)
    return shifted(scaled, shift), truth * shifted(np.ones_like(truth), shift)


def estimate_gain(restored: np.ndarray, truth: np.ndarray) -> float:
    """Factor g that minimises the sum of ``(truth - g * restored)^2`` over all pixels and channels; 1 for black."""
    restored, truth = (frame.astype(np.float64).ravel() for frame in (restored, truth))
    energy = restored @ restored
    return float(truth @ restored / energy) if energy > 0 else 1.0


def estimate_shift(restored: np.ndarray, truth: np.ndarray) -> tuple[int, int]:
    """Finds the shift from a restored frame to the ground truth.

    It is the peak of the cyclic cross-correlation of the frames' channel means (``dftregistration`` of
    Guizar-Sicairos et al., Optics Letters 2008, with whole-pixel accuracy). Three FFTs search all shifts.

    Args:
        restored: ``(h, w, c)``.
        truth: The same shape.

    Returns:
        Rows down and columns right, from -h / 2 to h / 2 and from -w / 2 to w / 2.
    """
    moving, fixed = (np.fft.rfft2(frame.mean(axis=2)) for frame in (restored, truth))
    correlation = np.fft.irfft2(fixed * moving.conj(), s=truth.shape[:2])
    # flat frames correlate equally at every shift, and rounding would pick one
    if correlation[0, 0] >= correlation.max() * (1 - 1e-12):
        return 0, 0
    height, width = correlation.shape
    row, column = divmod(int(correlation.argmax()), width)
    return row if row < height // 2 else row - height, column if column < width // 2 else column - width


def shifted(frame: np.ndarray, shift: tuple[int, int]) -> np.ndarray:
    """Shifts a frame ``(h, w, c)`` by ``shift`` (rows down, columns right) within its bounds, filling with 0."""
    moved = np.zeros_like(frame)
    (to_rows, from_rows), (to_columns, from_columns) = (_overlap(by) for by in shift)
    moved[to_rows, to_columns] = frame[from_rows, from_columns]
    return moved


def _overlap(by: int) -> tuple[slice, slice]:
    """Slices of the shifted part along one axis, after and before the shift."""
    if by == 0:
        return slice(None), slice(None)
    return (slice(by, None), slice(None, -by)) if by > 0 else (slice(None, by), slice(-by, None))
