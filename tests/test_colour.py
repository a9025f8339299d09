import numpy as np
import torch
from basicsr.utils.color_util import rgb2ycbcr, rgb2ycbcr_pt

from dblr_plugin.colour import (
    from_linear_light,
    linear_to_srgb,
    replace_y,
    rgb_to_y,
    srgb_to_linear,
    to_linear_light,
)


def picture(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def test_y_is_basicsrs():
    rgb = picture(2, 3, 9, 7)
    torch.testing.assert_close(rgb_to_y(rgb), rgb2ycbcr_pt(rgb, y_only=True), rtol=0, atol=2e-7)
    numpy_y = rgb2ycbcr(rgb[0].permute(1, 2, 0).numpy(), y_only=True)
    np.testing.assert_allclose(rgb_to_y(rgb)[0, 0].numpy(), numpy_y, atol=2e-7)


def test_windows_have_the_same_y_as_frames():
    window = picture(2, 5, 3, 4, 6)
    assert torch.equal(rgb_to_y(window)[:, 3], rgb_to_y(window[:, 3]))


def test_range_of_y():
    assert np.float32(rgb_to_y(torch.zeros(1, 3, 1, 1)).item() * 255) == 16
    assert abs(rgb_to_y(torch.ones(1, 3, 1, 1)).item() * 255 - 235) < 1e-4


def test_unchanged_y_returns_the_picture_to_the_bit():
    rgb = picture(2, 3, 16, 16)
    assert torch.equal(replace_y(rgb, rgb_to_y(rgb)), rgb)


def test_new_y_and_old_colour():
    """Against the full matrix of BT.601 and its numerical inverse, in float64."""
    rgb, y = picture(1, 3, 8, 8).double(), picture(1, 1, 8, 8).double() * 0.8 + 0.1
    matrix = np.array([[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]])
    offset = np.array([16.0, 128.0, 128.0])
    ycbcr = rgb[0].permute(1, 2, 0).numpy() @ matrix.T + offset
    ycbcr[..., 0] = y[0, 0].numpy() * 255
    expected = (ycbcr - offset) @ np.linalg.inv(matrix).T
    np.testing.assert_allclose(replace_y(rgb, y)[0].permute(1, 2, 0).numpy(), expected, atol=1e-12)


def test_linear_light_inverts_on_every_8_bit_value():
    value = np.arange(256) / 255
    np.testing.assert_allclose(linear_to_srgb(srgb_to_linear(value)), value, rtol=0, atol=1e-15)


def test_known_values_of_linear_light():
    np.testing.assert_allclose(srgb_to_linear([0, 0.04045, 0.5, 1]), [0, 0.0031308, 0.2140411, 1], atol=1e-7)


def test_srgb_rises_everywhere_across_the_joint():
    assert np.all(np.diff(linear_to_srgb(np.linspace(0, 0.01, 10001))) > 0)


def test_frames_come_back_unchanged():
    frame = np.arange(256, dtype=np.uint8).reshape(16, 16)
    light = to_linear_light(frame)
    assert light.dtype == np.float32
    np.testing.assert_array_equal(from_linear_light(light), frame)
    np.testing.assert_allclose(light, srgb_to_linear(frame / 255), rtol=1e-6)
