"""Re-encodes a video's sound if the output's container cannot hold it as it is."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import av
from av.audio.stream import AudioStream
from av.codec import Codec
from av.container import OutputContainer
from av.stream import Stream

__all__ = ['LAYOUTS', 'EncodedSound', 'sound_encoder']

# FFmpeg's name of the container -> encoder of sound that it cannot hold, lossless where the container allows it
_ENCODERS = {'matroska': 'flac', 'webm': 'libopus'}
_ELSEWHERE = 'aac'
_RATE = 48000  # samples per second, if the encoder does not support the source's rate
_BITS = 96000  # per second and channel, for lossy encoders: hardly distinguishable from the source

#: FFmpeg's names of the usual speaker layouts, by number of channels; libopus rejects 5.1(side), which AC-3 uses
LAYOUTS = {1: 'mono', 2: 'stereo', 3: '3.0', 4: '4.0', 5: '5.0', 6: '5.1', 7: '6.1', 8: '7.1'}


def sound_encoder(stream: Stream, format_name: str) -> str | None:
    """Returns the encoder to use in a container for a stream; None if it is no sound that FFmpeg can decode."""
    if stream.type != 'audio' or stream.codec_context is None or stream.codec_context.channels not in LAYOUTS:
        return None
    return _ENCODERS.get(format_name, _ELSEWHERE)


class EncodedSound:
    """Decodes a stream's packets and encodes the sound for another container.

    Sound begins when the source's does. Gaps, and what cannot be decoded, become silence of the same length, so that
    the rest stays in sync.

    Attributes:
        stream: The output's stream.
        lost: Number of packets that could not be decoded.
    """

    def __init__(self, source: AudioStream, target: OutputContainer, encoder: str) -> None:
        context = source.codec_context
        codec = Codec(encoder, 'w')
        rates, formats = codec.audio_rates, [offered.name for offered in codec.audio_formats]
        deep = [name for name in formats if name.startswith('s32')]
        self.lost = 0
        self._decoder = context
        # integers of more than 16 bits are kept, others become the first format on offer
        self._format = deep[0] if deep and context.format.name.startswith('s32') else formats[0]
        self._layout = LAYOUTS[context.channels]
        self._rate = _RATE if rates and context.sample_rate not in rates else context.sample_rate
        bits = _BITS * context.channels if codec.lossy else 0
        self.stream = target.add_stream(encoder, self._rate, layout=self._layout, format=self._format, bit_rate=bits)
        self._resampler: av.AudioResampler | None = None
        self._heard: tuple[str, str, int] | None = None  # format, layout and rate of the current resampler's input
        self._next = 0  # start of the next frame, in samples of the source

    def encode(self, packet: av.Packet | None) -> Iterator[av.Packet]:
        """Yields the packets that a packet of the source completes; None flushes the encoder."""
        try:
            frames = self._decoder.decode(packet)
        except av.error.FFmpegError:  # damaged
            self.lost += 1
            frames = []
        for frame in frames:
            for resampled in self._resampled(frame):
                yield from self.stream.encode(resampled)
        if packet is None:
            for resampled in self._rest():
                yield from self.stream.encode(resampled)
            yield from self.stream.encode(None)

    def _resampled(self, frame: av.AudioFrame) -> Iterator[av.AudioFrame]:
        """Yields frames that the encoder accepts; broadcasts change their channels between programmes."""
        if frame.pts is not None:  # WMA's last frame has none
            self._next = round(frame.pts * frame.time_base * frame.sample_rate)
        frame.pts, frame.time_base = self._next, Fraction(1, frame.sample_rate)
        self._next += frame.samples
        heard = (frame.format.name, frame.layout.name, frame.sample_rate)
        if heard != self._heard:
            yield from self._rest()
            self._heard = heard
            self._resampler = av.AudioResampler(self._format, self._layout, self._rate, options={'async': '1'})
        yield from self._resampler.resample(frame)

    def _rest(self) -> list[av.AudioFrame]:
        return [] if self._resampler is None else self._resampler.resample(None)
