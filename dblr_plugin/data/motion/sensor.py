"""Converts light to the values in a file: flicker, noise, clipping, encoding, JPEG, H.264; batched, on any device."""

from __future__ import annotations

import importlib.util
import math
from fractions import Fraction

import numpy as np
import torch
from torch import Generator, Tensor

from dblr_plugin.data.motion.scene import uniform
from dblr_plugin.errors import DBLRError
from dblr_plugin.processor import repeatable_x264

__all__ = ['compressed', 'encoded', 'flickering', 'h264', 'jpeg', 'noisy', 'require_h264', 'to_bytes', 'with_noise']

# Table K.1 of ITU-T T.81: the luminance quantisation table, which libjpeg scales by quality
_LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)


def encoded(light: Tensor) -> Tensor:
    """Encodes linear light, clipped to [0, 1], as sRGB values in [0, 1] (IEC 61966-2-1); any shape."""
    light = light.clamp(0, 1)
    return torch.where(light <= 0.04045 / 12.92, light * 12.92, 1.055 * light.clamp_min(1e-4) ** (1 / 2.4) - 0.055)


def flickering(light: Tensor, restored: int, generator: Generator) -> Tensor:
    """Varies the brightness between frames by up to 20 %, like lamp flicker, in a tenth of the windows.

    The light is linear, ``(b, t, c, h, w)``; the frame to restore, at index ``restored``, keeps its brightness.
    """
    gain = uniform(0.8, 1.2, (*light.shape[:2], 1, 1, 1), generator)
    gain[:, restored] = 1
    taken = uniform(0, 1, (len(light), 1, 1, 1, 1), generator) < 0.1
    return light * torch.where(taken, gain, 1.0)


def noisy(light: Tensor, generator: Generator) -> Tensor:
    """Adds sensor noise to a third of the windows, with a random strength for each.

    The light is linear, ``(b, t, c, h, w)``. The variance is proportional to it (shot noise, 1e-5 to 5e-4 of it), plus
    a floor (read noise, with a standard deviation of 2e-4 to 2e-3).
    """
    shape = (len(light), 1, 1, 1, 1)
    shot, read = (10 ** uniform(*range_, shape, generator) for range_ in ((-5.0, -3.3), (-3.7, -2.7)))
    taken = uniform(0, 1, shape, generator) < 1 / 3
    return with_noise(light, shot * taken, read * taken, generator)


def with_noise(light: Tensor, shot: Tensor | float, read: Tensor | float, generator: Generator) -> Tensor:
    """Adds noise to linear light: ``shot``, its variance per unit; ``read``, its standard deviation without light."""
    amount = (shot * light.clamp_min(0) + read**2).sqrt()
    return light + amount * torch.randn(light.shape, generator=generator, device=light.device)


def compressed(values: Tensor, generator: Generator) -> Tensor:
    """Returns uint8 frames after compression: a third of the windows as JPEG of quality 50 to 95, a sixth as H.264.

    On a GPU there is no H.264: encoding on the CPU would take longer than everything else.

    Args:
        values: ``(b, t, c, h, w)`` in [0, 1]; h and w are multiples of 8.
        generator: Random generator.
    """
    quality = uniform(50, 95, (len(values),), generator).round()
    factor = uniform(20, 32, (len(values),), generator).tolist()
    kind = uniform(0, 1, (len(values),), generator)
    values = torch.where((kind < 1 / 3).view(-1, 1, 1, 1, 1), jpeg(values, quality), values)
    frames = to_bytes(values)
    if values.device.type != 'cpu':
        return frames
    for index in (kind > 5 / 6).nonzero().flatten().tolist():
        window = frames[index].permute(0, 2, 3, 1).numpy()
        frames[index] = torch.from_numpy(h264(window, factor[index])).permute(0, 3, 1, 2)
    return frames


def to_bytes(values: Tensor) -> Tensor:
    """Converts values in [0, 1] to uint8."""
    return (values.clamp(0, 1) * 255).round().to(torch.uint8)


def require_h264() -> None:
    """Raises DBLRError if PyAV, which encodes H.264, is not installed."""
    if importlib.util.find_spec('av') is None:
        raise DBLRError("synthetic motion needs PyAV, for H.264: pip install 'dblr_plugin[video]'")


def h264(frames: np.ndarray, rate_factor: float) -> np.ndarray:
    """Encodes consecutive frames with H.264 and decodes them.

    Args:
        frames: uint8 ``(t, h, w, c)``, grey or RGB; h and w are even.
        rate_factor: x264's crf, from 0; its default is 23, and higher means fewer bits.
    """
    import av  # here, because training on other data does not need PyAV
    from av.video.reformatter import ColorRange

    encoder, decoder = av.CodecContext.create('libx264', 'w'), av.CodecContext.create('h264', 'r')
    grey = frames.shape[-1] == 1
    array_format, encoder.pix_fmt = ('gray', 'gray') if grey else ('rgb24', 'yuv420p')
    encoder.color_range = ColorRange.JPEG if grey else ColorRange.MPEG  # keeps grey values unscaled
    encoder.height, encoder.width = frames.shape[1:3]
    encoder.time_base = Fraction(1, 30)
    encoder.options = {'crf': f'{rate_factor:.1f}', 'preset': 'veryfast', **repeatable_x264()}
    encoder.thread_count = decoder.thread_count = 1  # faster for small frames
    packets: list[av.Packet | None] = []
    for index, frame in enumerate(frames):
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame.squeeze()), array_format)
        picture = picture.reformat(format=encoder.pix_fmt)
        picture.pts = index
        packets += encoder.encode(picture)
    packets += [*encoder.encode(None), None]
    decoded = [picture.to_ndarray(format=array_format) for packet in packets for picture in decoder.decode(packet)]
    return np.stack(decoded).reshape(frames.shape)


def jpeg(values: Tensor, quality: Tensor) -> Tensor:
    """Quantises every channel the way JPEG quantises luminance.

    Args:
        values: ``(b, t, c, h, w)`` in [0, 1]; h and w are multiples of 8.
        quality: ``(b,)``, libjpeg's quality, 1 to 100.
    """
    b, h, w = len(values), *values.shape[-2:]
    quality = quality.view(-1, 1, 1, 1, 1, 1)
    percent = torch.where(quality < 50, (5000 / quality).floor(), 200 - 2 * quality)
    table = torch.tensor(_LUMINANCE, device=values.device).view(8, 1, 8)
    table = ((table * percent + 50) / 100).floor().clamp(1, 255)
    dct = _dct_matrix(values.device)
    blocks = values.reshape(b, -1, h // 8, 8, w // 8, 8) * 255 - 128
    spectrum = torch.einsum('ui,bnyixj,vj->bnyuxv', dct, blocks, dct)
    spectrum = (spectrum / table).round() * table
    blocks = torch.einsum('ui,bnyuxv,vj->bnyixj', dct, spectrum, dct)
    return ((blocks + 128) / 255).clamp(0, 1).reshape(values.shape)


def _dct_matrix(device: torch.device) -> Tensor:
    """Returns the orthonormal DCT-II, ``(8, 8)``, one frequency per row."""
    index = torch.arange(8, device=device, dtype=torch.float32)
    matrix = 0.5 * torch.cos(math.pi / 8 * index[:, None] * (index + 0.5))
    matrix[0] /= math.sqrt(2)
    return matrix
