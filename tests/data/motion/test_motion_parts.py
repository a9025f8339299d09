"""The parts of synthetic motion (paths, rendering, sensor) are compared with independent computations."""

import cv2
import numpy as np
import pytest
import torch

from dblr_plugin.colour import linear_to_srgb
from dblr_plugin.data.motion.scene import Layer, Path, pixel_line, random_depth, random_masks, random_path, render
from dblr_plugin.data.motion.sensor import compressed, encoded, flickering, h264, jpeg, noisy

SIZE = 16


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def straight(*velocity: float) -> Path:
    """A path of constant velocity: x and y in pixels per frame, rotation, logarithm of the zoom."""
    return Path(torch.tensor([velocity]), *(torch.zeros(1, 1, 4) for _ in range(3)))


def picture(side: int = 96, channels: int = 1) -> torch.Tensor:
    return torch.rand(1, channels, side, side, generator=generator())


def background(texture: torch.Tensor, path: Path, step: float = 1.0) -> Layer:
    return Layer(texture, torch.tensor([step]), torch.zeros(1, 2), path, is_opaque=True)


def moments(*times: float) -> torch.Tensor:
    return torch.tensor(times)[:, None]


def seen(layers: list[Layer], *times: float) -> torch.Tensor:
    return render(layers, moments(*times), pixel_line(SIZE, torch.device('cpu')))[0]


def test_paths_are_zero_in_the_middle_and_keep_to_their_speed():
    path = random_path(200, 20.0, generator())
    assert path.pose(torch.zeros(200)).abs().max() == 0
    times = torch.linspace(-2.5, 2.5, 501)[:, None].expand(-1, 200)
    steps = path.pose(times).diff(dim=0)[..., :2].norm(dim=-1) / 0.01
    assert (steps > 20).float().mean() < 0.1  # exceeded where both axes of a tremor are fastest
    assert 5 < steps.mean() < 12


def test_path_with_zero_motion_stays():
    path = random_path(2, 20.0, generator()).select(torch.tensor([0.0, 1.0]))
    poses = path.pose(torch.full((2,), 1.7))
    assert poses[0].abs().max() == 0 and poses[1].abs().max() > 0


def test_static_camera_sees_the_image_itself():
    texture = picture()
    torch.testing.assert_close(seen([background(texture, straight(0, 0, 0, 0))], 0.0)[0], texture[0, 0, 40:56, 40:56])


@pytest.mark.parametrize('times', [(-1.0, 0.0, 1.0), tuple(float(t) for t in range(-3, 4))])
def test_blur_is_the_mean_of_shifted_images(times):
    texture = picture()
    blurry = seen([background(texture, straight(2, -1, 0, 0))], *times)[0]
    # with many moments, each takes the nearest texel of a dithered position
    shifted = torch.stack([texture[0, 0, 40 - int(t) : 56 - int(t), 40 + 2 * int(t) : 56 + 2 * int(t)] for t in times])
    tolerance = {'rtol': 1e-5, 'atol': 1e-5} if len(times) < 5 else {'rtol': 0, 'atol': 0.5}
    torch.testing.assert_close(blurry, shifted.mean(0), **tolerance)


def test_rotation_and_zoom_equal_opencvs():
    smooth = cv2.GaussianBlur(np.random.default_rng(0).random((96, 96)).astype(np.float32), (0, 0), 4)
    turned = seen([background(torch.from_numpy(smooth)[None, None], straight(3, 1, 0.1, 0.2))], 1.0)[0].numpy()
    scale, centre = np.exp(0.2), 47.5
    turn = scale * np.array([[np.cos(0.1), -np.sin(0.1)], [np.sin(0.1), np.cos(0.1)]])
    inverse = np.hstack([turn, (np.array([centre + 3, centre + 1]) - turn @ [7.5, 7.5])[:, None]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    np.testing.assert_allclose(turned, cv2.warpAffine(smooth, inverse, (SIZE, SIZE), flags=flags), atol=5e-3)


def test_nearest_texels_of_many_moments_average_to_interpolation():
    smooth = cv2.GaussianBlur(np.random.default_rng(1).random((96, 96)).astype(np.float32), (0, 0), 2)
    layer = background(torch.from_numpy(smooth)[None, None], straight(5.3, 2.1, 0, 0), step=1.7)
    times = torch.linspace(-0.5, 0.5, 20).tolist()
    one_by_one = torch.stack([seen([layer], time)[0] for time in times]).mean(0)
    torch.testing.assert_close(seen([layer], *times)[0], one_by_one, rtol=0, atol=6e-3)


@pytest.mark.parametrize('count', [5, 9, 20])
def test_blur_is_not_shifted_against_the_sharp_frame(count):
    ramp = torch.arange(96.0).expand(96, 96)
    for texture in (ramp, ramp.T):
        layer = background(texture[None, None], straight(2.3, -1.7, 0, 0), step=1.7)
        blurry, sharp = seen([layer], *torch.linspace(-0.5, 0.5, count).tolist()), seen([layer], 0.0)
        assert abs(blurry.mean() - sharp.mean()) < 0.02  # texels


def test_object_covers_the_background_where_it_is_opaque():
    opacity = torch.zeros(1, 1, 32, 32)
    opacity[..., 12:20, 12:20] = 1
    front = Layer(
        torch.cat([0.25 * opacity, opacity], 1), torch.ones(1), torch.tensor([[2.0, -3.0]]), straight(0, 0, 0, 0)
    )
    behind = picture()
    both = seen([background(behind, straight(0, 0, 0, 0)), front], 0.0)[0]
    expected = behind[0, 0, 40:56, 40:56].clone()
    expected[1:9, 6:14] = 0.25
    torch.testing.assert_close(both, expected)


def test_depth_scales_motion():
    layer = background(picture(), straight(4, 0, 0, 0))
    depth = torch.ones(1, 1, SIZE, SIZE)
    depth[..., : SIZE // 2, :] = 0.5
    parted = Layer(layer.texture, layer.step, layer.centre, layer.path, depth, is_opaque=True)
    row = layer.texture[0, 0, 40]
    torch.testing.assert_close(seen([parted], 1.0)[0, 0], row[42:58])
    assert random_depth(20, SIZE, generator()).min() >= 0.2 and random_depth(20, SIZE, generator()).max() <= 2


def test_masks_are_in_range_and_zero_at_the_border():
    masks = random_masks(50, 64, generator())
    assert masks.min() >= 0 and masks.max() == 1
    assert masks[..., 0, :].max() == masks[..., -1, :].max() == masks[..., 0].max() == masks[..., -1].max() == 0
    assert (masks.mean((1, 2, 3)) > 0).float().mean() > 0.9


def test_encoded_values_are_srgb():
    light = torch.linspace(0, 1, 1001)
    np.testing.assert_allclose(encoded(light).numpy(), linear_to_srgb(light.numpy()), atol=2e-6)
    assert encoded(torch.tensor([-1.0, 3.0])).tolist() == pytest.approx([0, 1])


@pytest.mark.parametrize('quality', [40, 49, 50, 75, 95])
def test_jpeg_equals_libjpegs(quality):
    smooth = cv2.GaussianBlur(np.random.default_rng(0).random((64, 64)).astype(np.float32), (0, 0), 1.5)
    values = np.round(255 * np.clip((smooth - 0.5) * 2.5 + 0.5, 0, 1)) / 255
    ours = jpeg(torch.from_numpy(values)[None, None, None], torch.tensor([float(quality)]))[0, 0, 0].numpy()
    _, data = cv2.imencode('.jpg', np.uint8(np.round(values * 255)), [cv2.IMWRITE_JPEG_QUALITY, quality])
    theirs = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE) / 255
    assert np.abs(ours - theirs).max() < 8 / 255  # libjpeg computes in integers and may round differently
    assert np.sqrt(np.mean((ours - theirs) ** 2)) < 0.9 / 255


def test_half_of_the_windows_are_compressed():
    values = torch.rand(200, 2, 1, 16, 16, generator=generator())
    changed = (compressed(values, generator()) != (values * 255).round()).flatten(1).any(1)
    assert 0.4 < changed.float().mean() < 0.6


def test_h264_is_the_same_each_time():
    """x264's AVX-512 code gave other frames in one of a few dozen windows, so that a seed did not determine them."""
    rng = np.random.default_rng(0)
    for _ in range(60):
        still = cv2.GaussianBlur(rng.integers(0, 256, (112, 112), np.uint8), (0, 0), 1)
        places = 40 + np.outer(range(-2, 3), rng.integers(-8, 9, 2))
        frames = np.stack([still[y : y + 32, x : x + 32, None] for y, x in places])
        assert len({h264(frames, 30).tobytes() for _ in range(4)}) == 1


@pytest.mark.parametrize('channels', [1, 3])
def test_h264_keeps_order_and_error_grows_with_the_rate_factor(channels):
    ramp = np.add.outer(np.arange(32), np.arange(48)) * 2
    frames = np.stack([np.roll(ramp, 8 * t, axis=1) for t in range(5)])[..., None].repeat(channels, -1).astype(np.uint8)
    errors = [np.abs(h264(frames, factor).astype(int) - frames).mean((1, 2, 3)) for factor in (15, 40)]
    assert errors[0].max() < 3 < errors[1].mean()


def test_noise_grows_with_light_and_has_zero_mean():
    light = torch.full((400, 1, 1, 32, 32), 0.5)
    light[..., 16:] = 0.02
    spoiled = noisy(light, generator()) - light
    amounts = spoiled.std((1, 2, 3, 4))
    assert 0.55 < (amounts == 0).float().mean() < 0.78 and amounts.max() < 0.04
    assert spoiled[..., :16].std() > 1.5 * spoiled[..., 16:].std()
    assert spoiled.mean().abs() < 2e-4


def test_a_tenth_of_the_windows_flickers_but_not_the_restored_frame():
    light = torch.full((3000, 5, 1, 1, 1), 0.5)
    flickered = flickering(light, 2, torch.Generator().manual_seed(0)) / light
    assert torch.equal(flickered[:, 2], torch.ones(3000, 1, 1, 1))
    jumps = flickered[(flickered != 1).flatten(1).any(1)]
    assert 0.08 < len(jumps) / 3000 < 0.12
    assert 0.8 <= jumps.min() < 0.81 and 1.19 < jumps.max() <= 1.2
