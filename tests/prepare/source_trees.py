"""Makes folders of frames that are hard links to one image, so that large data sets cost little."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

Picture = Callable[..., Path]


def link_frames(picture: Path, folder: Path, names: Iterable[str]) -> None:
    folder.mkdir(parents=True)
    for name in names:
        os.link(picture, folder / name)


def numbered(count: int, digits: int = 8, first: int = 0, suffix: str = '.png') -> list[str]:
    return [f'{number:0{digits}d}{suffix}' for number in range(first, first + count)]
