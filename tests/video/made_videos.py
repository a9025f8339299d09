"""Writes small videos with PyAV, like those of cameras, phones and editors."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

LIMITED, FULL = 1, 2
SIZE = (64, 96)


def scene(count: int, size: tuple[int, int] = SIZE, high_bit_depth: bool = False, seed: int = 0) -> list[np.ndarray]:
    """Frames of moving coloured texture; three corners have their own colour, which shows rotations and flips."""
    height, width = size
    noise = np.random.default_rng(seed).random((height, width + 2 * count, 3))
    texture = cv2.GaussianBlur(noise, (0, 0), 3)
    texture = (texture - texture.min()) / np.ptp(texture)
    top = 65535 if high_bit_depth else 255
    frames = []
    for index in range(count):
        frame = texture[:, 2 * index : 2 * index + width].copy()
        frame[: height // 4, : width // 4] = (0.9, 0.1, 0.1)
        frame[: height // 4, -(width // 4) :] = (0.1, 0.9, 0.1)
        frame[-(height // 4) :, : width // 4] = (0.1, 0.1, 0.9)
        frames.append(np.ascontiguousarray((frame * top).round().astype(np.uint16 if high_bit_depth else np.uint8)))
    return frames


@dataclass(frozen=True)
class Made:
    """The properties of a test video; the defaults are typical of phones."""

    frames: int | list[np.ndarray] = 12
    codec: str = 'libx264'
    pix_fmt: str = 'yuv420p'
    rate: Fraction = Fraction(30)
    time_base: Fraction | None = None
    pts: list[int] | None = None
    options: dict[str, str] | None = None
    tags: dict[str, int] | None = None
    turn: tuple[float, bool, bool] | None = None
    audio: int = 0
    sound: str = 'aac'
    titles: tuple[str, ...] = ()
    subtitle: str | None = None
    audio_start: int = 0
    metadata: dict[str, str] | None = None
    apple: bool = False  # whether MP4 may have tags of any name
    chapters: tuple[tuple[int, int], ...] = ()  # in milliseconds


def make(path: Path, made: Made) -> Path:
    """Writes a video and returns its path."""
    frames = scene(made.frames) if isinstance(made.frames, int) else made.frames
    time_base = made.time_base or 1 / made.rate
    muxing = {'movflags': 'use_metadata_tags'} if made.apple else {}
    with av.open(str(path), 'w', container_options=muxing) as container:
        container.metadata.update(made.metadata or {})
        milliseconds = {'time_base': Fraction(1, 1000), 'metadata': {}}
        container.set_chapters(
            [milliseconds | {'id': i, 'start': start, 'end': end} for i, (start, end) in enumerate(made.chapters, 1)]
        )
        options = {'crf': '10', 'preset': 'ultrafast', 'bf': '2'} if made.options is None else made.options
        video = container.add_stream(made.codec, made.rate, options=options, time_base=time_base)
        video.height, video.width = frames[0].shape[:2]
        video.pix_fmt = made.pix_fmt
        for name, value in (made.tags or {}).items():
            setattr(video.codec_context, name, value)
        if made.turn is not None:
            video.set_display_rotation(*made.turn)
        sounds = [container.add_stream(made.sound, 48000, bit_rate=128000) for _ in range(made.audio)]
        for stream, title in zip([video, *sounds], made.titles, strict=False):
            stream.metadata['title'] = title
        captions = None if made.subtitle is None else container.add_stream(made.subtitle)
        if captions is not None:
            captions.codec_context.subtitle_header = b'[Script Info]\n'
        times = made.pts or list(range(len(frames)))
        for frame, time in zip(frames, times, strict=True):
            container.mux(video.encode(_frame(frame, made, time, time_base)))
        container.mux(video.encode(None))
        seconds = float(len(frames) / made.rate)
        for index, sound in enumerate(sounds):
            _sing(container, sound, seconds, 440 * (index + 1), made.audio_start)
    return path


def _frame(pixels: np.ndarray, made: Made, time: int, time_base: Fraction) -> av.VideoFrame:
    frame = av.VideoFrame.from_ndarray(pixels, format='rgb48le' if pixels.dtype == np.uint16 else 'rgb24')
    tags = made.tags or {}
    if not av.VideoFormat(made.pix_fmt).is_rgb:
        colour = {'dst_colorspace': tags.get('colorspace', 5), 'dst_color_range': tags.get('color_range', LIMITED)}
        frame = frame.reformat(format=made.pix_fmt, src_color_range=FULL, **colour)
        frame.colorspace = tags.get('colorspace', 2)
        frame.color_range = tags.get('color_range', 0)
    else:
        frame = frame.reformat(format=made.pix_fmt)
    frame.pts, frame.time_base = time, time_base
    return frame


def _sing(
    container: av.container.OutputContainer, stream: av.AudioStream, seconds: float, pitch: int, start: int
) -> None:
    count = stream.codec_context.frame_size or 1024
    for first in range(0, int(seconds * 48000), count):
        wave = 0.3 * np.sin(2 * np.pi * pitch * np.arange(first, first + count) / 48000, dtype=np.float32)
        frame = av.AudioFrame.from_ndarray(np.stack((wave, wave)), format='fltp', layout='stereo')
        frame.sample_rate, frame.pts, frame.time_base = 48000, first + start, Fraction(1, 48000)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def times(path: Path) -> list[Fraction]:
    """Returns the times of all frames in seconds, decoded by PyAV alone."""
    with av.open(str(path)) as container:
        return [frame.pts * container.streams.video[0].time_base for frame in container.decode(video=0)]


def decoded(path: Path) -> list[av.VideoFrame]:
    """Returns all frames, decoded by PyAV alone."""
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def packets(path: Path, kind: str = 'audio') -> list[list[tuple[Fraction, bytes]]]:
    """Returns, for each stream of this kind, the (time, content) of its packets."""
    with av.open(str(path)) as container:
        streams = [stream for stream in container.streams if stream.type == kind]
        found = {stream.index: [] for stream in streams}
        for packet in container.demux(streams) if streams else ():
            if packet.size:
                found[packet.stream.index].append((packet.pts * packet.time_base, bytes(packet)))
    return list(found.values())
