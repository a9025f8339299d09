"""Chooses encoder, pixel format and time base for a video."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
from av.codec import Codec
from av.codec.codec import Capabilities, find_best_pix_fmt_of_list

from dblr_plugin.errors import DBLRError, nearest
from dblr_plugin.processor import repeatable_x264
from dblr_plugin.video.colour_tags import BT470BG, FULL, ColourTags, bits_of
from dblr_plugin.video.settings import EncoderSettings
from dblr_plugin.video.video_source import StreamInfo

__all__ = ['FORMATS', 'Encoding', 'choose_encoder', 'choose_encoding']

_log = logging.getLogger(__name__)

os.environ.setdefault('SVT_LOG', '1')  # libsvtav1 would print twenty lines for every segment

# suffix of the output -> FFmpeg's name of the container
FORMATS = {'.mp4': 'mp4', '.m4v': 'mp4', '.mov': 'mov', '.mkv': 'matroska', '.webm': 'webm'}

_DEFAULT = {'.webm': 'libvpx-vp9'}
_LOSSLESS = {'.webm': ('libvpx-vp9', 'libvpx-vp9'), '.mkv': ('libx264rgb', 'ffv1')}
_LOSSLESS_ELSEWHERE = ('libx264rgb', 'libx265')  # for 8 bits, and for more

# The option that sets constant quality, and its default: hardly distinguishable from the original.
_QUALITY = {'libvpx-vp9': ('crf', 24), 'libsvtav1': ('crf', 22), 'libaom-av1': ('crf', 22)}
_QUALITY_OPTIONS = (('crf', 17), ('cq', 19))  # of x264 and x265; of NVENC
_QUANTISER = 2  # for encoders with nothing finer
_BY_QUANTISER = ('mpeg4', 'msmpeg4', 'mpeg1video', 'mpeg2video', 'mjpeg', 'flv', 'h263p', 'wmv2')

_LOSSLESS_OPTIONS = {
    'libx264': {'qp': '0'},
    'libx264rgb': {'qp': '0'},
    'libx265': {'x265-params': 'lossless=1:log-level=0'},
    'libvpx-vp9': {'lossless': '1'},
}
_OPTIONS = {'libx265': {'x265-params': 'log-level=0'}, 'libvpx-vp9': {'row-mt': '1'}}

# in order of preference; RGB is bit-exact, 4:4:4 exact to the rounding of its codes
_LOSSLESS_DEEP_FORMATS = ('gbrp16le', 'gbrp12le', 'gbrp10le', 'yuv444p12le', 'yuv444p10le')
_LOSSLESS_FORMATS = ('gbrp', 'bgr0', 'rgb24', 'bgr24', 'yuv444p')


@dataclass(frozen=True)
class Encoding:
    """How a video is encoded.

    Attributes:
        codec: FFmpeg's name of the encoder.
        pixel_format: FFmpeg's name.
        options: Options for the encoder.
        time_base: The unit of its timestamps: the source's own, or the length of a frame if the encoder supports
            constant frame rates only.
        constant: Whether the encoder supports constant frame rates only.
    """

    codec: str
    pixel_format: str
    options: dict[str, str]
    time_base: Fraction
    constant: bool

    @property
    def siting(self) -> str:
        """Chroma siting that players assume for this codec."""
        return 'center' if self.codec in ('mjpeg', 'mpeg1video') else 'left'

    def tags(self, tags: ColourTags) -> ColourTags:
        """Returns the colour tags to encode with, from the output's: players take all JPEG for full-range BT.601."""
        return replace(tags, matrix=BT470BG, range=FULL, full=True) if self.codec == 'mjpeg' else tags


def choose_encoder(path: Path, settings: EncoderSettings, high_bit_depth: bool) -> str:
    """Returns the name of the encoder for an output.

    Raises:
        DBLRError: The encoder does not exist, does not fit the container, is not lossless as requested, or does not
            support the quality or preset.
    """
    suffix = path.suffix.lower()
    if settings.encoder is not None:
        name = settings.encoder
    elif settings.lossless:
        name = _LOSSLESS.get(suffix, _LOSSLESS_ELSEWHERE)[high_bit_depth]
    else:
        name = _DEFAULT.get(suffix, 'libx264')
    codec = _found(name)
    _options(codec, settings)
    if settings.lossless and name not in _LOSSLESS_OPTIONS and not (codec.lossless and not codec.lossy):
        raise DBLRError(f'the encoder {name} is not lossless here; use libx264rgb, libx265 or ffv1')
    if not _holds(suffix, name):
        fixes = [f'write {other}' for other in FORMATS if _holds(other, name)][:1]
        fixes += [f'use {_DEFAULT.get(suffix, "libx264")}']
        raise DBLRError(f'{path.suffix} cannot hold video of the encoder {name}; {", or ".join(fixes)}')
    return name


def _holds(suffix: str, name: str) -> bool:
    if suffix == '.mov' and Codec(name, 'w').canonical_name in ('vp8', 'vp9', 'av1'):
        return False  # FFmpeg lists them, and fails at the first frame
    with av.open(io.BytesIO(), 'w', format=FORMATS[suffix]) as container:
        return name in container.supported_codecs


def choose_encoding(
    path: Path,
    name: str,
    info: StreamInfo,
    size: tuple[int, int],
    high_bit_depth: bool,
    settings: EncoderSettings,
) -> Encoding:
    """Returns the first encoding that the encoder accepts for frames of this size (h, w) and depth.

    Raises:
        DBLRError: It accepts none.
    """
    codec = Codec(name, 'w')
    options = _options(codec, settings)
    formats = _pixel_formats(codec, info.chroma, size, high_bit_depth, settings.lossless)
    for pixel_format in formats:
        for time_base, constant in ((info.time_base, False), (1 / info.rate, True)):
            encoding = Encoding(name, pixel_format, options, time_base, constant)
            if _opens(encoding, size, info.rate):
                _warn_compromise(path, encoding, size, info.bits)
                return encoding
    height, width = size
    if codec.capabilities & (Capabilities.hardware.value | Capabilities.hybrid.value):
        raise DBLRError(f'the encoder {name} does not start, as its hardware or driver is missing; use libx264')
    raise DBLRError(
        f'the encoder {name} does not take frames of {width}x{height} at {float(info.rate):.3f} a second with '
        f'{options or "its defaults"}; use libx264 or ffv1, or another quality or preset'
    )


def _found(name: str) -> Codec:
    try:
        codec = Codec(name, 'w')
    except ValueError as error:
        hint = nearest(name, (known for known in av.codecs_available if known.startswith(('lib', name[:3]))))
        raise DBLRError(
            f"FFmpeg here has no encoder '{name}'{hint}; use libx264, libx265, libvpx-vp9 or ffv1"
        ) from error
    if codec.type != 'video':
        raise DBLRError(f'{name} encodes {codec.type}, not video; use libx264')
    return codec


def _options(codec: Codec, settings: EncoderSettings) -> dict[str, str]:
    """Returns an encoder's options; raises DBLRError if it does not support the quality or preset."""
    private = {option.name for option in codec.create('video').supported_options.private}
    if settings.preset is not None and 'preset' not in private:
        raise DBLRError(f'the encoder {codec.name} has no presets; remove --preset, or use --encoder libx264')
    preset = {} if settings.preset is None else {'preset': settings.preset}
    if settings.lossless:
        return _LOSSLESS_OPTIONS.get(codec.name, {}) | preset
    options = _OPTIONS | {'libx264': repeatable_x264()}  # a resumed video equals an uninterrupted one
    return options.get(codec.name, {}) | preset | _quality_options(codec, settings.quality, private)


def _quality_options(codec: Codec, quality: float | None, private: set[str]) -> dict[str, str]:
    known = (_QUALITY[codec.name],) if codec.name in _QUALITY else _QUALITY_OPTIONS
    for option, default in known:
        if option in private:
            return {option: str(default if quality is None else quality)}
    if codec.name not in _BY_QUANTISER:
        if quality is not None:
            why = 'has no quality scale' if codec.lossy else 'is lossless'
            raise DBLRError(f'the encoder {codec.name} {why}; remove --quality, or use --encoder libx264')
        return {}
    quantiser = str(_QUANTISER if quality is None else max(1, round(quality)))
    return {'qmin': quantiser, 'qmax': quantiser}


def _pixel_formats(
    codec: Codec, chroma: str, size: tuple[int, int], high_bit_depth: bool, lossless: bool
) -> Sequence[str]:
    """Returns the pixel formats to try, best first."""
    offered = {video_format.name for video_format in codec.video_formats or ()}
    if lossless:
        wanted = [*(_LOSSLESS_DEEP_FORMATS if high_bit_depth else ()), *_LOSSLESS_FORMATS]
    else:
        layouts = [f'yuv{chroma}p', 'yuv444p'] if any(side % 2 for side in size) else [f'yuv{chroma}p']
        wanted = [layout + depth for depth in (('10le', '') if high_bit_depth else ('',)) for layout in layouts]
    formats = [name for name in wanted if name in offered]
    if offered:
        formats.append(find_best_pix_fmt_of_list(offered, wanted[0])[0].name)
    return formats


def _opens(encoding: Encoding, size: tuple[int, int], rate: Fraction) -> bool:
    context = Codec(encoding.codec, 'w').create('video')
    context.height, context.width = size
    context.pix_fmt, context.options = encoding.pixel_format, encoding.options
    context.time_base, context.framerate = encoding.time_base, rate
    context.color_range = encoding.tags(ColourTags()).range
    try:
        context.open()
    except (av.error.FFmpegError, ValueError):
        return False
    return True


def _warn_compromise(path: Path, encoding: Encoding, size: tuple[int, int], bits: int) -> None:
    kept = bits_of(av.VideoFormat(encoding.pixel_format))
    if kept < bits:
        text = '%s: the encoder %s keeps %d of %d bits; --lossless in .mkv keeps all'
        _log.warning(text, path, encoding.codec, kept, bits)
    if any(side % 2 for side in size) and encoding.pixel_format.startswith('yuv444') and encoding.codec != 'ffv1':
        text = '%s: %dx%d is odd, which only 4:4:4 can hold; some players show 4:2:0 only: crop the source for those'
        _log.warning(text, path, size[1], size[0])
