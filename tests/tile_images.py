"""Encoded images with detail in brightness and colour, for tests of crops and tiles."""

from io import BytesIO

import cv2
import numpy as np
from PIL import Image

__all__ = ['ENCODINGS', 'encode', 'picture']


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Returns a uint8 BGR image (height, width, 3) of smooth shapes, edges and camera-like noise."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 24 + 2, width // 24 + 2, 3), np.uint8)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).astype(float)
    smooth[height // 3 : height // 2] = 255 - smooth[height // 3 : height // 2]
    return np.clip(smooth + rng.normal(0, 3, smooth.shape), 0, 255).round().astype(np.uint8)


def _cv2(suffix: str, *parameters: int):
    return lambda image: cv2.imencode(suffix, image, parameters)[1].tobytes()


def _pillow(mode: str, kind: str, **parameters):
    def encoder(image: np.ndarray) -> bytes:
        file = BytesIO()
        Image.fromarray(image[..., ::-1]).convert(mode).save(file, kind, **parameters)
        return file.getvalue()

    return encoder


_SAMPLING, _PROGRESSIVE = cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_PROGRESSIVE
_ENCODERS = {
    'jpeg 4:2:0': _cv2('.jpg', _SAMPLING, 0x221111),
    'jpeg 4:2:2': _cv2('.jpg', _SAMPLING, 0x211111),
    'jpeg 4:4:4': _cv2('.jpg', _SAMPLING, 0x111111),
    'jpeg 4:4:0': _cv2('.jpg', _SAMPLING, 0x121111),
    'jpeg 4:1:1': _cv2('.jpg', _SAMPLING, 0x411111),
    'jpeg progressive': _cv2('.jpg', _PROGRESSIVE, 1),
    'jpeg restarts': _cv2('.jpg', cv2.IMWRITE_JPEG_RST_INTERVAL, 3),
    'jpeg metadata': _pillow('RGB', 'JPEG', quality=90, exif=b'Exif\0\0' + bytes(300), optimize=True),
    'jpeg grey': _pillow('L', 'JPEG'),
    'jpeg cmyk': _pillow('CMYK', 'JPEG'),
    'jpeg rgb': _pillow('RGB', 'JPEG', keep_rgb=True),
    'png': _cv2('.png'),
    'png grey': _pillow('L', 'PNG'),
    'png palette': _pillow('P', 'PNG'),
    'png alpha': _pillow('RGBA', 'PNG'),
    'bmp': _cv2('.bmp'),
}
ENCODINGS = list(_ENCODERS)


def encode(image: np.ndarray, encoding: str) -> tuple[str, bytes]:
    """Returns the suffix and the bytes of an image file, in one of ``ENCODINGS``."""
    suffix = '.jpg' if encoding.startswith('jpeg') else f'.{encoding.split()[0]}'
    return suffix, _ENCODERS[encoding](image)
