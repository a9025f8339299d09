"""Converts video colours to RGB and back with the stream's matrix, range and depth; passes HDR10 data to encoders.

swscale is used for what it measurably does well (FFmpeg 8.1): chroma resampling, and 8 bits to RGB. It is not used for
the way back and for higher bit depths: full-range chroma comes out half a level low, 10-bit luma up to three levels
off, and 10-bit white as 65283 instead of 65535.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from av import VideoFrame
from av.filter import Graph
from av.video.format import VideoFormat
from av.video.reformatter import Interpolation

from dblr_plugin.video.frames import eight_bits

__all__ = ['FULL', 'LIMITED', 'RGB_MATRIX', 'ColourTags', 'FrameMaker', 'Light', 'bits_of', 'to_rgb', 'with_light']

_log = logging.getLogger(__name__)

# FFmpeg's numbers for matrix (AVColorSpace), range (AVColorRange), primaries and transfer
RGB_MATRIX, BT709, UNSPECIFIED, FCC, BT470BG, SMPTE170M, SMPTE240M, BT2020, BT2020_CONSTANT = 0, 1, 2, 4, 5, 6, 7, 9, 10
UNSPECIFIED_RANGE, LIMITED, FULL = 0, 1, 2

# weights of red and blue in luma; matrices not listed here are treated as BT.709, in both directions
_WEIGHTS = {
    BT709: (0.2126, 0.0722),
    FCC: (0.30, 0.11),
    BT470BG: (0.299, 0.114),
    SMPTE170M: (0.299, 0.114),
    SMPTE240M: (0.212, 0.087),
    BT2020: (0.2627, 0.0593),
    BT2020_CONSTANT: (0.2627, 0.0593),
}
# swscale's number for each matrix for which it differs from FFmpeg's
_SWSCALE = {SMPTE170M: BT470BG, BT2020_CONSTANT: BT2020}

# the default flags lose eight times as much chroma in a round trip
_RESAMPLING = (
    Interpolation.LANCZOS | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
)


@dataclass(frozen=True)
class ColourTags:
    """A stream's colour tags, in FFmpeg's numbers, and its coded height, which selects the defaults for missing tags.

    Attributes:
        matrix: How RGB becomes luma and chroma.
        range: Whether codes are limited (16 to 235) or full.
        primaries: The colours of R, G and B; passed through.
        transfer: The curve of R, G and B; passed through.
        height: Rows; players assume BT.601 below 720 rows and BT.709 otherwise.
        full: Whether codes are full-range, tagged or not.
    """

    matrix: int = UNSPECIFIED
    range: int = UNSPECIFIED_RANGE
    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED
    height: int = 0
    full: bool = False

    @classmethod
    def of(cls, frame: VideoFrame, container: ColourTags) -> ColourTags:
        """Returns the tags of a decoded frame, or the container's where the frame has none.

        An RGB frame is tagged for its later conversion to limited-range luma and chroma.
        """
        tags = (frame.colorspace, container.matrix), (frame.color_primaries, container.primaries)
        tags += ((frame.color_trc, container.transfer),)
        matrix, primaries, transfer = (own if own != UNSPECIFIED else said for own, said in tags)
        if _is_rgb(frame.format):
            return cls(RGB_MATRIX, LIMITED, primaries, transfer, frame.height)
        code_range = frame.color_range if frame.color_range != UNSPECIFIED_RANGE else container.range
        full = code_range == FULL or (code_range != LIMITED and frame.format.name.startswith(('yuvj', 'gray', 'ya')))
        return cls(matrix, code_range, primaries, transfer, frame.height, full)

    @property
    def used(self) -> int:
        """The matrix to use in conversions."""
        if self.matrix in (UNSPECIFIED, RGB_MATRIX):
            return BT709 if self.height >= 720 else SMPTE170M
        return self.matrix if self.matrix in _WEIGHTS else BT709

    def at_height(self, height: int) -> ColourTags:
        """Returns the tags of an output with ``height`` rows: the same, but explicit where players would guess wrongly.

        An untagged source stays untagged as long as players assume the same matrix for its output: their defaults
        differ, and the output should look like the source in each of them.
        """
        if self.matrix == RGB_MATRIX:
            return replace(self, matrix=replace(self, height=height).used, height=height)
        silent = replace(self, height=height)
        matrix = self.matrix if silent.used == self.used else self.used
        return replace(silent, matrix=matrix, range=FULL if self.full else self.range)


def bits_of(video_format: VideoFormat) -> int:
    """Returns the bit depth of a format's deepest component, 16 for floating point."""
    return min(16, max(component.bits for component in video_format.components))


def to_rgb(frame: VideoFrame, tags: ColourTags) -> np.ndarray:
    """Returns a decoded frame as RGB (h, w, 3): uint8, or full-range uint16 for more than 8 bits."""
    bits = bits_of(frame.format)
    if _is_rgb(frame.format):
        return _rgb_of_rgb(frame, bits)
    code_range = FULL if tags.full else LIMITED
    if bits <= 8:
        matrix = _SWSCALE.get(tags.used, tags.used)
        options = {'src_colorspace': matrix, 'src_color_range': code_range, 'dst_color_range': FULL}
        return frame.reformat(format='rgb24', interpolation=_RESAMPLING, **options).to_ndarray()
    frame.color_range = code_range  # swscale would make untagged grey limited-range
    frame = frame.reformat(format=f'yuv444p{bits}le', interpolation=_RESAMPLING)
    codes = cv2.merge([_plane(frame, index).copy() for index in range(3)])
    forward = _codes_of_rgb(tags, bits)
    inverse = np.linalg.inv(forward[:, :3])
    return cv2.transform(codes, np.column_stack((inverse, -inverse @ forward[:, 3])) * 65535)


class FrameMaker:
    """Makes frames for an encoder from RGB pixels.

    4:2:0 and 4:2:2 chroma is sampled at the siting that the output's decoder assumes: in 4:2:0, with a quarter of the
    samples, an offset of half a pixel would blur and shift all colours.

    Args:
        format_name: FFmpeg's name of the pixel format.
        tags: The output's colour tags; the defaults apply where they are unspecified.
        siting: Chroma siting, ``left`` or ``center``.
    """

    def __init__(self, format_name: str, tags: ColourTags, siting: str = 'left') -> None:
        self._format, self._tags, self._siting = VideoFormat(format_name), tags, siting
        self._bits = bits_of(self._format)
        self._graph: Graph | None = None

    def make(self, pixels: np.ndarray) -> VideoFrame:
        """Returns RGB pixels (h, w, 3), uint8 or uint16, as a frame of the format."""
        if _is_rgb(self._format):
            frame = VideoFrame.from_ndarray(pixels, format='rgb48le' if pixels.dtype == np.uint16 else 'rgb24')
            return frame.reformat(format=self._format.name, interpolation=_RESAMPLING)
        if self._bits == 8:
            pixels = eight_bits(pixels)
        elif pixels.dtype == np.uint8:
            pixels = pixels.astype(np.uint16) * 257
        top = 65535 if pixels.dtype == np.uint16 else 255
        codes = cv2.transform(pixels, _codes_of_rgb(self._tags, self._bits) / ([top] * 3 + [1]))
        frame = self._sited(codes)
        frame.colorspace, frame.color_range = self._tags.used, FULL if self._tags.full else LIMITED
        return frame.reformat(format=self._format.name, interpolation=_RESAMPLING)

    def _sited(self, codes: np.ndarray) -> VideoFrame:
        """Returns codes (h, w, 3) as a 4:4:4 frame tagged with the chroma siting, for which PyAV needs a filter."""
        height, width = codes.shape[:2]
        frame = VideoFrame(width, height, 'yuv444p' if self._bits == 8 else f'yuv444p{self._bits}le')
        for index in range(3):
            _plane(frame, index)[:] = codes[..., index]
        if self._graph is None:
            self._graph = Graph()
            source = self._graph.add_buffer(width=width, height=height, format=frame.format, time_base=Fraction(1))
            says = self._graph.add('setparams', f'chroma_location={self._siting}')
            sink = self._graph.add('buffersink')
            source.link_to(says)
            says.link_to(sink)
            self._graph.configure()
        self._graph.push(frame)
        return self._graph.pull()


def _codes_of_rgb(tags: ColourTags, bits: int) -> np.ndarray:
    """Returns the matrix (3, 4) from RGB in [0, 1] and a constant 1 to codes of Y, Cb and Cr with ``bits`` bits."""
    red, blue = _WEIGHTS[tags.used]
    luma = np.array([red, 1 - red - blue, blue])
    rows = np.array([luma, (np.array([0, 0, 1]) - luma) / (2 - 2 * blue), (np.array([1, 0, 0]) - luma) / (2 - 2 * red)])
    step = 2 ** (bits - 8)
    reach = [2**bits - 1] * 3 if tags.full else [219 * step, 224 * step, 224 * step]
    offset = [0 if tags.full else 16 * step, 128 * step, 128 * step]
    return np.column_stack((rows * np.array(reach)[:, None], offset))


def _rgb_of_rgb(frame: VideoFrame, bits: int) -> np.ndarray:
    if bits <= 8:
        return frame.reformat(format='rgb24', interpolation=_RESAMPLING).to_ndarray()
    codes = frame.reformat(format=f'gbrp{bits}le', interpolation=_RESAMPLING).to_ndarray()
    return np.round(codes * np.float32(65535 / (2**bits - 1))).astype(np.uint16)


def _is_rgb(video_format: VideoFormat) -> bool:
    # swscale makes digital cinema's XYZ RGB first, whatever it is asked for
    return video_format.is_rgb or video_format.has_palette or video_format.name.startswith('xyz')


def _plane(frame: VideoFrame, index: int) -> np.ndarray:
    """Returns a plane of a planar frame as a view (h, w), without padding."""
    plane = frame.planes[index]
    dtype = np.uint16 if bits_of(frame.format) > 8 else np.uint8
    return np.frombuffer(plane, dtype).reshape(plane.height, -1)[:, : plane.width]


@dataclass(frozen=True)
class Light:
    """HDR10 metadata of a whole video.

    Attributes:
        display: The mastering display: x and y of red, green, blue and white in 1/50000, minimum and maximum luminance
            in 1/10000 cd/m2; empty if missing.
        level: MaxCLL and MaxFALL: the brightest pixel and the brightest frame's mean in cd/m2; empty if missing.
    """

    display: tuple[int, ...] = ()
    level: tuple[int, ...] = ()

    @classmethod
    def of(cls, frame: VideoFrame) -> Light:
        """Returns the metadata of a decoded frame."""
        display = frame.side_data.get('MASTERING_DISPLAY_METADATA')
        level = frame.side_data.get('CONTENT_LIGHT_LEVEL')
        return cls(() if display is None else _display(bytes(display)), () if level is None else _level(bytes(level)))


def with_light(codec: str, options: dict[str, str], light: Light, output: Path) -> dict[str, str]:
    """Returns an encoder's options with HDR10 metadata; warns if the encoder does not support it."""
    if not (light.display or light.level):
        return options
    if codec not in ('libx264', 'libx265'):
        text = '%s: HDR10 mastering display and light level are left out, the encoder %s has none; use libx265'
        _log.warning(text, output, codec)
        return options
    display, level, name = {
        'libx264': ('mastering-display', 'cll', 'x264-params'),
        'libx265': ('master-display', 'max-cll', 'x265-params'),
    }[codec]
    said = [options[name]] if name in options else []
    if light.display:
        red, green, blue, white, (least, most) = (light.display[i : i + 2] for i in range(0, 10, 2))
        points = ''.join(
            f'{k}({x},{y})' for k, (x, y) in zip(('G', 'B', 'R', 'WP'), (green, blue, red, white), strict=True)
        )
        said.append(f'{display}={points}L({most},{least})')
    if light.level:
        said.append(f'{level}={light.level[0]},{light.level[1]}')
    return options | {name: ':'.join(said)}


def _display(data: bytes) -> tuple[int, ...]:
    """Parses FFmpeg's AVMasteringDisplayMetadata: ten fractions, then flags for primaries and luminance."""
    numbers = np.frombuffer(data, np.int32)
    if len(numbers) < 22 or not (numbers[20] and numbers[21]):
        return ()
    values = numbers[:20:2] / np.maximum(1, numbers[1:20:2])
    return tuple(np.round(values * ([50000] * 8 + [10000] * 2)).astype(int).tolist())


def _level(data: bytes) -> tuple[int, ...]:
    """Parses FFmpeg's AVContentLightMetadata."""
    return tuple(np.frombuffer(data[:8], np.uint32).tolist())
