"""The transfer function against known values, and frames that survive the way to light and back."""

from __future__ import annotations

import numpy as np

from dblr_plugin.data.linear_light import from_linear_light, linear_to_srgb, srgb_to_linear, to_linear_light


def test_inverts_on_every_8_bit_value() -> None:
    value = np.arange(256) / 255
    np.testing.assert_allclose(linear_to_srgb(srgb_to_linear(value)), value, rtol=0, atol=1e-15)


def test_known_values() -> None:
    np.testing.assert_allclose(srgb_to_linear([0, 0.04045, 0.5, 1]), [0, 0.0031308, 0.2140411, 1], atol=1e-7)


def test_rises_everywhere_across_the_joint() -> None:
    assert np.all(np.diff(linear_to_srgb(np.linspace(0, 0.01, 10001))) > 0)


def test_frames_come_back_unchanged() -> None:
    frame = np.arange(256, dtype=np.uint8).reshape(16, 16)
    light = to_linear_light(frame)
    assert light.dtype == np.float32
    np.testing.assert_array_equal(from_linear_light(light), frame)
    np.testing.assert_allclose(light, srgb_to_linear(frame / 255), rtol=1e-6)
