"""Copies a video's sound, subtitles, covers and tags into another; sound that cannot be copied is re-encoded."""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Iterator, Mapping
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import av
from av.container import Container, OutputContainer
from av.format import Flags
from av.rational import AVRational
from av.stream import Discard, Disposition, Stream

from dblr_plugin.errors import counted
from dblr_plugin.video.clock import Clock, Gaps
from dblr_plugin.video.containers import SAY_DURATIONS, main_stream, open_container, refuse_disk_error, seek_before
from dblr_plugin.video.encoded_sound import LAYOUTS, EncodedSound, sound_encoder
from dblr_plugin.video.video_source import StreamInfo

__all__ = ['CopiedStreams']

_log = logging.getLogger(__name__)

# tags of the source's container, which would describe the output wrongly, and those that are written elsewhere
_FOREIGN_METADATA = (
    'major_brand', 'minor_version', 'compatible_brands', 'encoder', 'duration', 'rotate', 'vendor_id', 'bps',
    'number_of_frames', 'number_of_bytes', 'alpha_mode', 'software', 'timecode',
    'operational_pattern_ul', 'uid', 'generation_uid', 'company_name', 'product_name', 'product_version',
    'product_version_num', 'product_uid', 'application_platform', 'toolkit_version', 'toolkit_version_num',  # of MXF
)  # fmt: skip

# languages for which QuickTime's list, as FFmpeg has it, uses the other one of ISO 639-2's two codes
_QUICKTIME_LANGUAGES = {
    'bod': 'tib', 'cym': 'wel', 'cze': 'ces', 'deu': 'ger', 'ell': 'gre', 'eus': 'baq', 'fas': 'per', 'fre': 'fra',
    'hye': 'arm', 'isl': 'ice', 'kat': 'geo', 'mkd': 'mac', 'msa': 'may', 'mya': 'bur', 'nld': 'dut', 'rum': 'ron',
    'slo': 'slk', 'sqi': 'alb', 'swe': 'sve', 'zho': 'chi',
}  # fmt: skip

# Seconds that decoders of sound need before an edit list's beginning, as AAC and Opus overlap. FFmpeg gives up to 1 s,
# marked to be discarded, and the same where two parts of a list meet.
_LEAD = Fraction(1, 10)

# Gaps in sound shorter than this, in seconds, are not reported: packets are not cut where parts of a stream meet.
_HEARD = Fraction(1, 10)

# Seconds that subtitles are shown, at most, to find those that are already shown where a part begins.
_SHOWN = 30

# Seconds by which streams may be stored behind each other, at most: FFmpeg's muxers allow 10.
_BEHIND = 30

_LISTED = 5
_DATA = 'data stream'


class CopiedStreams:
    """Reads the source a second time, in step with the frames, so that nothing accumulates in memory.

    Args:
        info: Gives the file, and the part of it to copy.
        output: The file being written, named in warnings about what its container cannot hold.
        format_name: FFmpeg's name of the container.
    """

    def __init__(self, info: StreamInfo, output: Path, format_name: str) -> None:
        self._info, self._output, self._format_name = info, output, format_name
        self._container = open_container(info.copied)
        self._clock = Clock(self._container)
        self._gaps: dict[int, Gaps] = {}
        self._wanted: list[Stream] = []  # sound and subtitles, copied or re-encoded
        self._streams: dict[int, Stream] = {}  # of the output, by index in the source
        self._encoded: dict[int, EncodedSound] = {}  # likewise
        self._last_dts: dict[int, int] = {}
        self._begun: set[int] = set()  # indices in the source of streams whose sound has begun
        self._covers: list[tuple[Stream, bytes]] = []  # streams of the output, and their images

    def add_to(self, target: OutputContainer) -> None:
        """Adds the streams and the source's metadata, before the target's header is written; warns of what is lost."""
        self._target = target
        # equal dts are intended in Matroska, whose unit is longer than packets of TrueHD, and for lines of subtitles
        self._step = 0 if target.format.flags & Flags.ts_nonstrict.value else 1
        others = []
        for stream in self._container.streams:
            if stream.type in ('audio', 'subtitle'):
                self._add(stream)
            else:
                others.append(stream)
        left_out = [text for text in map(self._attach, others) if text]
        if left_out:
            _warn_left_out(self._output, left_out)
        target.metadata.update(_own_tags(self._container.metadata))
        target.set_chapters(self._chapters())
        self._packets = self._read()
        self._next = next(self._packets, None)

    def _add(self, stream: Stream) -> None:
        """Adds sound or subtitles, unless the container cannot hold them in any form."""
        encoder = None
        if not _fits(stream, self._format_name):
            encoder = sound_encoder(stream, self._format_name)
            _warn_not_copied(self._output, stream, encoder)
            if encoder is None:
                return
        elif self._may_have_silent_gaps(stream):
            encoder = stream.codec_context.name  # same samples, with silence in gaps
        if encoder is not None:
            self._encoded[stream.index] = EncodedSound(stream, self._target, encoder)
            copy = self._encoded[stream.index].stream
        else:
            copy = self._target.add_stream_from_template(stream)
            if stream.type == 'audio' and stream.layout.name == f'{stream.channels} channels':
                # from AVI, WAV and Matroska; MP4 without a speaker layout fails only when it is finished
                copy.layout = LAYOUTS.get(stream.channels, stream.layout)
        copy.metadata.update(_track_tags(stream, self._format_name))
        copy.disposition = stream.disposition
        self._streams[stream.index] = copy
        self._wanted.append(stream)

    def _may_have_silent_gaps(self, stream: Stream) -> bool:
        """Returns whether a stream is raw PCM that MP4 would store back to back, whatever the timestamps."""
        if self._format_name not in ('mp4', 'mov') or stream.type != 'audio' or stream.codec_context is None:
            return False
        return stream.codec_context.name.startswith('pcm_') and self._container.format.name not in SAY_DURATIONS

    def _attach(self, stream: Stream) -> str | None:
        """Adds an attachment such as a font, or a cover image; returns what the output cannot hold."""
        is_cover = bool(stream.disposition & Disposition.attached_pic)
        kind = 'cover' if is_cover else 'attachment'
        name = stream.metadata.get('filename') or f'{kind}_{stream.index}'
        name = name.encode(errors='surrogateescape').decode(errors='replace')  # PyAV accepts only UTF-8
        if stream.type == 'data':
            # FFmpeg reads MP4's chapter titles itself, and marks their stream as discarded
            is_known = 'timecode' in stream.metadata or stream.discard == Discard.all
            return None if is_known else f'{_DATA} {stream.index}'
        if not is_cover and stream.type not in ('attachment', 'unknown'):
            return None
        if stream.type == 'attachment' and self._format_name == 'matroska':
            self._target.add_attachment(name, stream.mimetype or 'application/octet-stream', stream.data)
            return None
        data = self._cover(stream) if is_cover and self._format_name in ('matroska', 'mp4') else b''
        codec = 'none' if stream.codec_context is None else stream.codec_context.name
        if data and self._format_name == 'matroska':
            image, suffix = ('jpeg', 'jpg') if codec == 'mjpeg' else (codec, codec)
            self._target.add_attachment(name if '.' in name else f'{name}.{suffix}', f'image/{image}', data)
        elif data and codec in ('mjpeg', 'png', 'bmp'):
            cover = self._target.add_stream_from_template(stream, opaque=True)
            cover.disposition = Disposition.attached_pic
            cover.metadata.update(_own_tags(stream.metadata))
            self._covers.append((cover, data))
        else:
            return f'{kind} {name}'
        return None

    def _cover(self, stream: Stream) -> bytes:
        """Returns a cover image, read through a second handle: this one still has to read its packets in order."""
        with open_container(self._info.copied) as container:
            return next((bytes(p) for p in container.demux(container.streams[stream.index]) if p.size), b'')

    def _chapters(self) -> list[dict[str, Any]]:
        """Returns the chapters of what is copied, with times of the output."""
        chapters = []
        for chapter in self._container.chapters():
            end, unit = self._info.end, chapter['time_base']
            first = round(self._info.origin / unit)
            begins, ends = max(chapter['start'], first), chapter['end']
            ends = ends if end is None else min(ends, round(end / unit))
            if begins < ends:
                chapters.append(chapter | {'start': begins - first, 'end': ends - first})
        return chapters

    def describe(self, video: Stream) -> None:
        """Gives the restored stream the source's title, language and timecode."""
        source = main_stream(self._container)
        own = _track_tags(source, self._format_name)
        code = _timecode(self._container)
        if code is not None and self._info.start is not None:
            _log.warning('%s: the time code is left out, as the part does not begin with it', self._info.copied)
        elif code is not None:
            own['timecode'] = code
        video.metadata.update(own)
        video.disposition = source.disposition

    def write_covers(self) -> None:
        """Writes the cover images, once the header is written."""
        for stream, data in self._covers:
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
        """Flushes the audio encoders, and warns about sound that could not be decoded."""
        for index, encoded in self._encoded.items():
            self._target.mux(encoded.encode(None))
            if encoded.lost:
                text = '%s: %s of sound of stream %d cannot be decoded; it is silent there'
                _log.warning(text, self._info.copied, counted(encoded.lost, 'packet'), index)

    def warn_lost_tags(self, written: Path) -> None:
        """Warns about the source's tags that a finished file lacks: MP4 holds certain names, QuickTime languages."""
        with open_container(written) as container:
            there = {_base(name) for name in container.metadata}
            lost = [name for name in _own_tags(self._container.metadata) if _base(name) not in there]
            if self._info.start is None and _timecode(self._container) and not _timecode(container):
                lost.append('timecode')  # which MP4 holds only if it fits the frame rate
            tracks = [main_stream(self._container), *self._wanted]
            for track, copy in zip(tracks, container.streams, strict=False):  # followed by covers and fonts
                if track.language not in (None, 'und') and copy.language in (None, 'und'):
                    lost.append(f'language of stream {track.index} ({track.language})')
        if lost:
            more = [f'{len(lost) - _LISTED} more'] if len(lost) > _LISTED else []
            _warn_left_out(self._output, [f'tag {name}' for name in lost[:_LISTED]] + more)

    @property
    def has_own_names(self) -> bool:
        """Whether any tag has a name such as com.apple.quicktime.make, which MP4 holds only on request."""
        return any('.' in name for name in _own_tags(self._container.metadata))

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
        start, end = self._info.start, self._info.end
        if start is not None:
            seek_before(self._container, max(self._info.begin, start - _SHOWN))
        position = 0
        try:
            for packet in self._container.demux(read):
                if not packet.size:
                    continue
                position = packet.pos or 0
                self._clock.carry_on(packet)
                if packet.stream.type == 'subtitle':
                    _cut(packet, start, end)
                time = _time(packet)
                if end is not None and time >= end + _BEHIND:
                    break  # long before the end of a long file
                is_in_part = (start is None or time >= start) and (end is None or time < end)
                if packet.stream in self._wanted and is_in_part and not self._is_cut_away(packet):
                    self._look_for_gap(packet)
                    yield packet
        except av.error.FFmpegError as error:
            refuse_disk_error(self._container, error, position)
            _log.warning('%s: sound ends at damaged data', self._info.copied)
        for index, gaps in self._gaps.items():
            if holes := gaps.described(self._info.begin):
                _log.warning('%s: sound of stream %d is missing for %s', self._info.copied, index, holes)

    def _is_cut_away(self, packet: av.Packet) -> bool:
        """Returns whether an edit list removes a packet; containers without such lists would play it."""
        stream = packet.stream
        if not packet.is_discard:
            self._begun.add(stream.index)
            return False
        early = stream.start_time is None or (stream.start_time - packet.pts) * packet.time_base > _LEAD
        return early or stream.index in self._begun

    def _look_for_gap(self, packet: av.Packet) -> None:
        if packet.stream.type != 'audio' or not packet.duration or self._container.format.name in SAY_DURATIONS:
            return
        step = packet.duration * packet.time_base
        gaps = self._gaps.setdefault(packet.stream.index, Gaps(step, self._clock.joints, _HEARD))
        gaps.see(_time(packet))

    def _mux(self, packet: av.Packet) -> None:
        """Muxes a packet, shifted to the output's time; dts of a damaged source are put in order."""
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
            least = self._last_dts.get(copy.index, packet.dts - self._step) + self._step
            if packet.dts < least:
                packet.dts = least
                packet.pts = least if packet.pts is None else max(packet.pts, least)
            self._last_dts[copy.index] = packet.dts
        self._target.mux_one(packet)


def _own_tags(metadata: Mapping[str, str]) -> dict[str, str]:
    """Returns the tags that describe the content, not the container."""
    return {k: v for k, v in metadata.items() if k.lower() not in _FOREIGN_METADATA and not k.startswith('_STATISTICS')}


def _timecode(container: Container) -> str | None:
    """Returns the time code of the first frame, which is a tag of a stream or, in DV, of the file; None for none."""
    tags = chain.from_iterable(tagged.metadata.items() for tagged in (*container.streams, container))
    return next((value for name, value in tags if name.lower() == 'timecode'), None)


def _track_tags(stream: Stream, format_name: str) -> dict[str, str]:
    """Returns the tags that describe a stream's content; MP4's track title is read under another name than written."""
    own = _own_tags(stream.metadata)
    if 'name' in own:
        own.setdefault('title', own.pop('name'))
    if format_name == 'mov' and 'language' in own:
        own['language'] = _QUICKTIME_LANGUAGES.get(own['language'], own['language'])
    return own


def _base(name: str) -> str:
    """Returns a tag's name without its language suffix."""
    return name.lower().partition('-')[0]


def _fits(stream: Stream, format_name: str) -> bool:
    """Returns whether a container accepts a stream, by trying: FFmpeg's tables allow some that its muxers refuse."""
    try:
        with av.open(io.BytesIO(), 'w', format=format_name) as container:
            container.add_stream_from_template(stream)
            container.start_encoding()
    except (av.error.FFmpegError, ValueError):
        return False
    return True


def _warn_left_out(output: Path, what: list[str]) -> None:
    is_helped = output.suffix.lower() != '.mkv' and not all(name.startswith(_DATA) for name in what)
    fix = '; .mkv holds attachments, covers and tags' if is_helped else ''
    _log.warning('%s: left out, as %s cannot hold it: %s%s', output, output.suffix, ', '.join(what), fix)


def _warn_not_copied(output: Path, stream: Stream, encoder: str | None) -> None:
    codec = 'an unknown codec' if stream.codec_context is None else stream.codec_context.name
    language = f', {stream.language}' if stream.language not in (None, 'und') else ''
    fate = 'is left out' if encoder is None else f'is re-encoded with {encoder}'
    fix = '; write .mkv to keep it' if _fits(stream, 'matroska') else ''
    text = '%s: %s stream %d of the source (%s%s) %s, as it cannot be copied into %s%s'
    _log.warning(text, output, stream.type, stream.index, codec, language, fate, output.suffix, fix)


def _cut(packet: av.Packet, start: Fraction | None, end: Fraction | None) -> None:
    """Cuts off what a subtitle shows before and after a part, from ``start`` to ``end`` in seconds."""
    if packet.pts is None or not packet.duration:
        return
    until = packet.pts + packet.duration
    if start is not None and packet.pts < (first := math.ceil(start / packet.time_base)) < until:
        packet.pts = packet.dts = first
    if end is not None and packet.pts < (last := math.ceil(end / packet.time_base)):
        until = min(until, last)
    packet.duration = until - packet.pts


def _time(packet: av.Packet) -> Fraction:
    """Returns when a packet begins, in seconds of the source; 0 without a timestamp, so that it is due at once."""
    ticks = packet.pts if packet.pts is not None else packet.dts
    return Fraction(0) if ticks is None else ticks * packet.time_base
