"""Copies a video's sound and subtitles bit for bit into another; sound that cannot be copied is re-encoded."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer, OutputContainer
from av.rational import AVRational
from av.stream import Discard, Disposition, Stream

from dblr_plugin.video.clock import Clock, Gaps
from dblr_plugin.video.containers import SAY_DURATIONS, main_stream, open_container, seek_before
from dblr_plugin.video.encoded_sound import EncodedSound, sound_encoder, usual_layout
from dblr_plugin.video.video_source import StreamInfo

__all__ = ['CopiedStreams', 'chapters_of_part', 'lost_tags', 'own_tags', 'track_tags']

_log = logging.getLogger(__name__)

# tags of the source's container, which would describe the output wrongly
_FOREIGN_METADATA = (
    'major_brand', 'minor_version', 'compatible_brands', 'encoder', 'duration', 'rotate', 'vendor_id', 'bps',
    'number_of_frames', 'number_of_bytes', 'alpha_mode', 'software',
)  # fmt: skip

# languages for which QuickTime's list, as FFmpeg has it, uses the other one of ISO 639-2's two codes
_QUICKTIME_LANGUAGES = {
    'deu': 'ger', 'ell': 'gre', 'fra': 'fre', 'isl': 'ice', 'mkd': 'mac', 'nld': 'dut', 'sqi': 'alb', 'zho': 'chi',
}  # fmt: skip


def own_tags(metadata: Mapping[str, str]) -> dict[str, str]:
    """Returns the tags that describe the content, not the container."""
    return {k: v for k, v in metadata.items() if k.lower() not in _FOREIGN_METADATA and not k.startswith('_STATISTICS')}


def track_tags(stream: Stream, format_name: str) -> dict[str, str]:
    """Returns the tags that describe a stream's content, as they are written into a container.

    MP4's track title is read under another name than written.
    """
    own = own_tags(stream.metadata)
    if 'name' in own:
        own.setdefault('title', own.pop('name'))
    if format_name == 'mov' and 'language' in own:
        own['language'] = _QUICKTIME_LANGUAGES.get(own['language'], own['language'])
    return own


def lost_tags(source: Mapping[str, str], output: Mapping[str, str]) -> list[str]:
    """Returns the names of the source's tags that the output lacks."""
    there = {_base(name) for name in output}
    return [name for name in own_tags(source) if _base(name) not in there]


def chapters_of_part(source: InputContainer, start: Fraction | None, end: Fraction | None) -> list[dict[str, Any]]:
    """Returns the chapters from ``start`` to ``end``, in seconds, with times relative to the part's beginning."""
    chapters = []
    for chapter in source.chapters():
        unit = chapter['time_base']
        first = 0 if start is None else round(start / unit)
        begins, ends = max(chapter['start'], first), chapter['end']
        ends = ends if end is None else min(ends, round(end / unit))
        if begins < ends:
            chapters.append(chapter | {'start': begins - first, 'end': ends - first})
    return chapters


def _base(name: str) -> str:
    """Returns a tag's name without its language suffix."""
    return name.lower().partition('-')[0]


# Gaps in sound shorter than this, in seconds, are not reported: packets are not cut where parts of a stream meet.
_HEARD = Fraction(1, 10)

_LISTED = 5


class CopiedStreams:
    """Reads the source a second time, in step with the frames, so that nothing accumulates in memory.

    Args:
        info: Gives the file, and the part of it to copy.
        output: The file being written, named in warnings about what its container cannot hold.
        format_name: FFmpeg's name of the container.
    """

    def __init__(self, info: StreamInfo, output: Path, format_name: str) -> None:
        self._info, self._format_name = info, format_name
        self._container = open_container(info.copied)
        self._streams: dict[int, Stream] = {}  # of the output, by index in the source
        self._encoded: dict[int, EncodedSound] = {}  # likewise
        self._last_dts: dict[int, int] = {}
        self._cover_streams: list[Stream] = []
        self._clock = Clock(self._container)
        self._gaps: dict[int, Gaps] = {}
        self._attached, self._covers = self._attachments(format_name, output)
        self._wanted = [s for s in self._container.streams if s.type in ('audio', 'subtitle')]
        self._encoders: dict[int, str] = {}  # FFmpeg's names, by index in the source, for sound that cannot be copied
        for stream in list(self._wanted):
            if not _fits(stream, format_name):
                encoder = sound_encoder(stream, format_name) if stream.type == 'audio' else None
                _warn_not_copied(output, stream, encoder)
                if encoder is None:
                    self._wanted.remove(stream)
                    continue
                self._encoders[stream.index] = encoder
            elif format_name in ('mp4', 'mov') and self._may_have_silent_gaps(stream):
                self._encoders[stream.index] = stream.codec_context.name  # same samples, with silence in gaps

    def add_to(self, target: OutputContainer) -> None:
        """Adds the streams and the source's metadata, before the target's header is written."""
        for stream in self._wanted:
            if stream.index in self._encoders:
                self._encoded[stream.index] = EncodedSound(stream, target, self._encoders[stream.index])
                copy = self._encoded[stream.index].stream
            else:
                copy = target.add_stream_from_template(stream)
                if stream.type == 'audio' and stream.layout.name == f'{stream.channels} channels':
                    # from AVI, WAV and Matroska; MP4 without a speaker layout fails only when it is finished
                    copy.layout = usual_layout(stream.channels) or stream.layout
            copy.metadata.update(track_tags(stream, self._format_name))
            copy.disposition = stream.disposition
            self._streams[stream.index] = copy
        for name, mimetype, data in self._attached:
            target.add_attachment(name, mimetype, data)
        for stream, _ in self._covers:
            cover = target.add_stream_from_template(stream, opaque=True)
            cover.disposition = Disposition.attached_pic
            cover.metadata.update(own_tags(stream.metadata))
            self._cover_streams.append(cover)
        target.metadata.update(own_tags(self._container.metadata))
        target.set_chapters(chapters_of_part(self._container, self._info.start, self._info.end))
        self._target = target
        self._packets = self._read()
        self._next = next(self._packets, None)

    def describe(self, video: Stream) -> None:
        """Gives the restored stream the source's title, language and timecode."""
        source = main_stream(self._container)
        own = track_tags(source, self._format_name)
        codes = [s.metadata['timecode'] for s in self._container.streams if 'timecode' in s.metadata]
        if codes and self._info.start is not None:
            own.pop('timecode', None)
            _log.warning('%s: the time code is left out, as the part does not begin with it', self._info.copied)
        elif codes:
            own['timecode'] = codes[0]
        video.metadata.update(own)
        video.disposition = source.disposition

    def _attachments(
        self, format_name: str, output: Path
    ) -> tuple[list[tuple[str, str, bytes]], list[tuple[Stream, bytes]]]:
        """Returns attachments such as fonts, and cover images; warns about those that the output cannot hold."""
        attached, covers, left_out = [], [], []
        for stream in self._container.streams:
            is_cover = bool(stream.disposition & Disposition.attached_pic)
            name = stream.metadata.get('filename') or f'{"cover" if is_cover else "attachment"}_{stream.index}'
            name = name.encode(errors='surrogateescape').decode(errors='replace')  # PyAV accepts only UTF-8
            if stream.type == 'attachment' and format_name == 'matroska':
                attached.append((name, stream.mimetype or 'application/octet-stream', stream.data))
            elif is_cover and format_name in ('matroska', 'mp4'):
                data = self._cover(stream)
                codec = stream.codec_context.name
                if data and format_name == 'matroska':
                    kind = 'jpeg' if codec == 'mjpeg' else codec
                    named = name if '.' in name else f'{name}.{kind.replace("jpeg", "jpg")}'
                    attached.append((named, f'image/{kind}', data))
                elif data and codec in ('mjpeg', 'png', 'bmp'):
                    covers.append((stream, data))
                else:
                    left_out.append(f'cover {name}')
            elif is_cover or stream.type in ('attachment', 'unknown'):
                left_out.append(f'{"cover" if is_cover else "attachment"} {name}')
            elif stream.type == 'data' and 'timecode' not in stream.metadata and not _is_chapters(stream):
                left_out.append(f'data stream {stream.index}')
        if left_out:
            _warn_left_out(output, left_out)
        return attached, covers

    def _cover(self, stream: Stream) -> bytes:
        """Returns a cover image, read through a second handle: this one still has to read its packets in order."""
        with open_container(self._info.copied) as container:
            return next((bytes(p) for p in container.demux(container.streams[stream.index]) if p.size), b'')

    def write_covers(self) -> None:
        """Writes the cover images, once the header is written."""
        for (_, data), stream in zip(self._covers, self._cover_streams, strict=True):
            packet = av.Packet(data)
            packet.pts, packet.dts, packet.time_base = 0, 0, stream.time_base
            packet.stream = stream
            self._target.mux_one(packet)

    def copy_until(self, time: Fraction | None) -> None:
        """Copies the packets that begin before ``time``, in seconds of the source; all remaining ones for None.

        Raises:
            FFmpegError: The disk or the container rejects the data.
        """
        while self._next is not None and (time is None or _time(self._next) < time):
            self._mux(self._next)
            self._next = next(self._packets, None)

    def finish(self) -> None:
        """Flushes the audio encoders."""
        for encoded in self._encoded.values():
            self._target.mux(encoded.encode(None))

    def warn_lost_tags(self, written: Path, output: Path) -> None:
        """Warns about the source's tags that a finished file lacks: MP4 holds certain names, QuickTime languages."""
        with open_container(written) as container:
            lost = lost_tags(self._container.metadata, container.metadata)
            tracks = [main_stream(self._container), *self._wanted]
            for track, copy in zip(tracks, container.streams, strict=False):  # followed by covers and fonts
                if track.language not in (None, 'und') and copy.language in (None, 'und'):
                    lost.append(f'language of stream {track.index} ({track.language})')
        if lost:
            more = [f'{len(lost) - _LISTED} more'] if len(lost) > _LISTED else []
            _warn_left_out(output, [f'tag {name}' for name in lost[:_LISTED]] + more)

    @property
    def has_own_names(self) -> bool:
        """Whether any tag has a name such as com.apple.quicktime.make, which MP4 holds only on request."""
        return any('.' in name for name in own_tags(self._container.metadata))

    def close(self) -> None:
        """Closes the source."""
        self._container.close()

    def _read(self) -> Iterator[av.Packet]:
        """Yields the packets of the part; a truncated file ends where it can no longer be read."""
        if not self._wanted:
            return
        read = [*self._wanted, *(s for s in self._clock.streams if s not in self._wanted)]
        for stream in self._container.streams:
            if stream not in read:
                stream.discard = Discard.all
        if self._info.start is not None:
            seek_before(self._container, self._info.start)
        try:
            for packet in self._container.demux(read):
                if not packet.size:
                    continue
                self._clock.carry_on(packet)
                if packet.stream in self._wanted and self._is_in_part(packet):
                    self._look_for_gap(packet)
                    yield packet
        except av.error.FFmpegError:
            _log.warning('%s: sound ends at damaged data', self._info.copied)
        for index, gaps in self._gaps.items():
            if holes := gaps.described(self._info.begin):
                _log.warning('%s: sound of stream %d is missing for %s', self._info.copied, index, holes)

    def _may_have_silent_gaps(self, stream: Stream) -> bool:
        """Returns whether a stream is raw PCM, which MP4 stores back to back, whatever the timestamps."""
        if stream.type != 'audio' or stream.codec_context is None:
            return False
        return stream.codec_context.name.startswith('pcm_') and self._container.format.name not in SAY_DURATIONS

    def _look_for_gap(self, packet: av.Packet) -> None:
        if packet.stream.type != 'audio' or not packet.duration or self._container.format.name in SAY_DURATIONS:
            return
        step = packet.duration * packet.time_base
        gaps = self._gaps.setdefault(packet.stream.index, Gaps(step, self._clock.joints, _HEARD))
        gaps.see(_time(packet))

    def _is_in_part(self, packet: av.Packet) -> bool:
        start, end, time = self._info.start, self._info.end, _time(packet)
        return (start is None or time >= start) and (end is None or time < end)

    def _mux(self, packet: av.Packet) -> None:
        """Muxes a packet, shifted to the output's time; dts of a damaged source are made to increase."""
        copy, encoded = self._streams[packet.stream.index], self._encoded.get(packet.stream.index)
        shift = round(self._info.origin / packet.time_base)
        packet.pts = None if packet.pts is None else packet.pts - shift
        packet.dts = None if packet.dts is None else packet.dts - shift
        if encoded is not None:
            self._target.mux(encoded.encode(packet))
            return
        packet.stream = copy
        packet.rescale_ts(AVRational(copy.time_base))
        if packet.dts is not None:
            least = self._last_dts.get(copy.index, packet.dts - 1) + 1
            if packet.dts < least:
                packet.dts = least
                packet.pts = least if packet.pts is None else max(packet.pts, least)
            self._last_dts[copy.index] = packet.dts
        self._target.mux_one(packet)


def _warn_left_out(output: Path, what: list[str]) -> None:
    fix = '' if output.suffix.lower() == '.mkv' else '; .mkv holds attachments, covers and tags'
    _log.warning('%s: left out, as %s cannot hold it: %s%s', output, output.suffix, ', '.join(what), fix)


def _warn_not_copied(output: Path, stream: Stream, encoder: str | None) -> None:
    codec = 'an unknown codec' if stream.codec_context is None else stream.codec_context.name
    language = f', {stream.language}' if stream.language not in (None, 'und') else ''
    fate = 'is left out' if encoder is None else f'is re-encoded with {encoder}'
    fix = '; write .mkv to keep it' if _fits(stream, 'matroska') else ''
    text = '%s: %s stream %d of the source (%s%s) %s, as it cannot be copied into %s%s'
    _log.warning(text, output, stream.type, stream.index, codec, language, fate, output.suffix, fix)


def _is_chapters(stream: Stream) -> bool:
    """Returns whether a data stream holds MP4's chapter titles, which FFmpeg reads itself and marks as discarded."""
    return stream.discard == Discard.all


def _fits(stream: Stream, format_name: str) -> bool:
    """Returns whether a container accepts a stream, by trying: FFmpeg's tables allow some that its muxers refuse."""
    try:
        with av.open(io.BytesIO(), 'w', format=format_name) as container:
            container.add_stream_from_template(stream)
            container.start_encoding()
    except (av.error.FFmpegError, ValueError):
        return False
    return True


def _time(packet: av.Packet) -> Fraction:
    """Returns when a packet begins, in seconds of the source; 0 without a timestamp, so that it is due at once."""
    ticks = packet.pts if packet.pts is not None else packet.dts
    return Fraction(0) if ticks is None else ticks * packet.time_base
