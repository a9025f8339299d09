"""Listens to the errors that FFmpeg logs: after most of them it goes on, and nothing else tells of the damage."""

from __future__ import annotations

import logging

import av.logging

__all__ = ['Complaints']

_LOGGER = logging.getLogger('libav')  # PyAV's, with one below it for each of FFmpeg's parts

# said of intact files: a title track of chapters that a part of a film has lost
_HARMLESS = ('Referenced QT chapter track not found',)


class Complaints(logging.Handler):
    """Notes the first error of each of FFmpeg's parts, from now until it is closed.

    FFmpeg does not say which file it means: while several listen, none of them notes anything.
    """

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self._first: dict[str, str] = {}
        if av.logging.get_level() is None:  # nobody else listens, or wants them printed
            av.logging.set_level(av.logging.ERROR)
            _LOGGER.propagate = False
            _LOGGER.addHandler(logging.NullHandler())
        _LOGGER.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Notes a message if it is the first of its part."""
        message = record.getMessage().strip()
        listening = sum(isinstance(handler, Complaints) for handler in _LOGGER.handlers)
        if listening == 1 and message not in _HARMLESS:
            self._first.setdefault(record.name.removeprefix('libav.'), message)

    def of(self, *parts: str) -> str | None:
        """Returns the first message of these demuxers and decoders, by their names; None if there is none."""
        return next((self._first[part] for part in parts if part in self._first), None)

    def close(self) -> None:
        """Ends listening."""
        _LOGGER.removeHandler(self)
        super().close()
