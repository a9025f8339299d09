"""Copies a source to a sink, as deblurring does but without a network."""

from __future__ import annotations

from pathlib import Path

from dblr_plugin.video import EncoderSettings, Frame, Sink, Source, open_sink, open_source


def sink_of(target: Path, source: Source, **options: object) -> Sink:
    """Opens a sink; ``encoder``, ``quality``, ``lossless`` and ``preset`` go into its :class:`EncoderSettings`."""
    settings = {name: options.pop(name) for name in ('encoder', 'quality', 'lossless', 'preset') if name in options}
    return open_sink(target, source, encoder=EncoderSettings(**settings), **options)


def copy(source: Path | str, target: Path, part: dict | None = None, **options: object) -> list[Frame]:
    """Copies a video, folder or image and returns its frames."""
    with open_source(source, **(part or {})) as opened:
        sink = sink_of(target, opened, **options)
        pictures = []
        for picture in opened:
            assert picture.pixels.shape == (*opened.size, 3) and picture.pixels.flags.c_contiguous
            assert picture.pixels.dtype == ('uint16' if opened.high_bit_depth else 'uint8')
            sink.write(picture)
            pictures.append(picture)
        assert opened.count in (None, len(pictures))
        sink.finish()
    return pictures


def visible(folder: Path) -> list[str]:
    """Returns the names in a folder, including hidden ones, which unfinished outputs have."""
    return sorted(path.name for path in folder.iterdir())
