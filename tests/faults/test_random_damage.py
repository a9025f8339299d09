"""Randomly damaged files cause no traceback, no hang and no silent loss.

``pytest tests/faults/test_random_damage.py --damaged 300`` tries 300 and prints the outcomes for each kind of file.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from random import Random

import av
import cv2
import pytest
import torch
from cases import Desk
from corpus_frames import Reader, evaluate, validate
from corpus_frames import test_without_truth as restore
from PIL import Image
from processes import dblr
from supplies import write_video

from dblr_plugin.link import option_files

#: Allowed outcomes for a damaged file
_GOOD = ('refused', 'told', 'whole')


def cut(data: bytes, rng: Random) -> bytes:
    return data[: rng.randrange(len(data))]


def zeroed(data: bytes, rng: Random) -> bytes:
    start, length = rng.randrange(len(data)), min(rng.choice((1, 16, 200, 4096)), len(data))
    return (data[:start] + bytes(length) + data[start + length :])[: len(data)]


def overwritten(data: bytes, rng: Random) -> bytes:
    start, length = rng.randrange(len(data)), rng.choice((1, 16, 200, 4096))
    return (data[:start] + rng.randbytes(length) + data[start + length :])[: len(data)]


def flipped(data: bytes, rng: Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 3, 30))):
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def flipped_in_header(data: bytes, rng: Random) -> bytes:
    return flipped(data[:128], rng) + data[128:]


def inserted(data: bytes, rng: Random) -> bytes:
    place = rng.randrange(len(data))
    return data[:place] + rng.randbytes(rng.choice((1, 7, 500))) + data[place:]


def removed(data: bytes, rng: Random) -> bytes:
    place = rng.randrange(len(data))
    return data[:place] + data[place + rng.choice((1, 7, 500)) :]


def repeated(data: bytes, rng: Random) -> bytes:
    start = rng.randrange(len(data))
    return data[: start + 500] + data[start:]


_DAMAGES = (cut, zeroed, overwritten, flipped, flipped_in_header, inserted, removed, repeated)


@dataclass(frozen=True)
class Input:
    """A kind of file.

    Attributes:
        file: Copies an intact file to the desk.
        use: Returns arguments for ``dblr`` that read it.
        content: Returns what can be counted in the outputs; if a damaged file is not reported, this must be the same as
            for the intact one.
    """

    file: Callable[[Desk], Path]
    use: Callable[[Desk, Path], list[object]]
    content: Callable[[Desk], object]


def _network(desk: Desk) -> list[object]:
    return desk.write({'network_g': desk.options['test']['network_g']}, 'network.yml')


def _deblur(desk: Desk, path: object, output: str, *arguments: object) -> list[object]:
    plain = ('--weights', desk.supplies['net'], *_network(desk), '--backend', 'torch', '--fp32')
    return ['deblur', '-i', path, '-o', output, *plain, *arguments]


def _export(desk: Desk, path: Path) -> list[object]:
    return ['export', '--weights', path, *_network(desk), '-o', 'out.pth']


def _frames_and_time(desk: Desk) -> tuple[int, int]:
    """Returns the number of frames and their duration in tenths of a second."""
    with av.open(str(desk.cwd / 'out.mkv')) as container:
        times = [frame.pts * frame.time_base for frame in container.decode(video=0)]
    return len(times), round((times[-1] - times[0]) * Fraction(10))


def _frames(desk: Desk) -> int:
    return sum(1 for path in desk.cwd.rglob('*.png') if cv2.imread(str(path)) is not None)


def _scores(desk: Desk) -> int:
    """Returns the number of scored frames."""
    return (desk.cwd / 'figures.json').read_text().count('"psnr"')


def _end(desk: Desk) -> int:
    return len(list(desk.cwd.rglob('net_g_1.pth')))


def _weights(desk: Desk) -> float:
    weights = torch.load(desk.cwd / 'out.pth', weights_only=True)['params']
    return float(sum(weight.double().abs().sum() for weight in weights.values()))


def _nothing(desk: Desk) -> None:
    return None


def _video(suffix: str, codec: str, *arguments: str) -> Input:
    def file(desk: Desk) -> Path:
        path = desk.inputs / f'video.{suffix}'
        write_video(path, codec, 24)
        return path

    return Input(file, lambda desk, path: _deblur(desk, path, 'out.mkv', *arguments), _frames_and_time)


def _folder(suffix: str) -> Input:
    def file(desk: Desk) -> Path:
        for path in desk.frame().parent.glob('*.png'):
            Image.open(path).save(path.with_suffix(f'.{suffix}'))
            if suffix != 'png':
                path.unlink()
        return desk.frame().with_suffix(f'.{suffix}')

    return Input(file, lambda desk, path: _deblur(desk, path.parent, 'out/'), _frames)


def _clip(reader: Reader, content: Callable[[Desk], object]) -> Input:
    def use(desk: Desk, path: Path) -> list[object]:
        return reader(desk, desk.clips / 'lq', desk.clips / 'gt')

    return Input(lambda desk: desk.frame(), use, content)


def _database(kind: str, name: str, reader: Reader, content: Callable[[Desk], object]) -> Input:
    def use(desk: Desk, path: Path) -> list[object]:
        return reader(desk, desk.inputs / kind / 'lq.lmdb', desk.inputs / kind / 'gt.lmdb')

    return Input(lambda desk: desk.copy(kind) / 'lq.lmdb' / name, use, content)


def _options(desk: Desk) -> Path:
    path = desk.inputs / 'any.yml'
    path.write_bytes(next(path for path in option_files() if path.name == 'train_DBLRGAN.yml').read_bytes())
    return path


INPUTS = {
    'mp4': _video('mp4', 'mpeg4'),
    'mov': _video('mov', 'libx264'),
    'mkv': _video('mkv', 'libx264'),
    'webm': _video('webm', 'libvpx'),
    'ts': _video('ts', 'mpeg2video'),
    'mpg': _video('mpg', 'mpeg2video'),
    'avi': _video('avi', 'mjpeg'),
    'mkv, in segments': _video('mkv', 'mpeg4', '--resume'),
    'png': _folder('png'),
    'jpg': _folder('jpg'),
    'webp': _folder('webp'),
    'tiff': _folder('tiff'),
    'png of a data set': _clip(restore, _nothing),
    'png with truth': _clip(evaluate, _scores),
    'lmdb, data': _database('lmdb', 'data.mdb', evaluate, _scores),
    'lmdb, list': _database('lmdb', 'meta_info.txt', validate, _end),
    'tiles, data': _database('tiles', 'data.mdb', evaluate, _scores),
    'tiles, header': _database('tiles', 'tiles.json', validate, _end),
    'weights': Input(lambda desk: desk.copy('net'), _export, _weights),
    'prepared video': Input(
        lambda desk: desk.copy('video.mp4'),
        lambda desk, path: ['prepare', 'video', path, 'made', '--average', '3'],
        _frames,
    ),
    'option file': Input(_options, lambda desk, path: ['train', '-opt', path], _nothing),
}  # fmt: skip


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if 'number' in metafunc.fixturenames:
        metafunc.parametrize('number', range(metafunc.config.getoption('damaged')))


@pytest.fixture(scope='module')
def intact() -> dict[str, object]:
    """Content of intact inputs, by kind."""
    return {}


def test_no_loss_is_silent(number: int, desk: Desk, intact: dict[str, object], record_property) -> None:
    name = list(INPUTS)[number % len(INPUTS)]
    kind = INPUTS[name]
    path = kind.file(desk)
    arguments = kind.use(desk, path)
    if name not in intact and kind.content is not _nothing:
        result = dblr(*arguments, cwd=desk.cwd, timeout=60)
        assert result.returncode == 0, result.stderr
        intact[name] = kind.content(desk)
        shutil.rmtree(desk.cwd)
        desk.cwd.mkdir()

    rng = Random(f'damaged {number}')
    damage = rng.choice(_DAMAGES)
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(damage(data, rng))
    result = dblr(*arguments, cwd=desk.cwd, timeout=60)
    outcome = _outcome(result.returncode, result.stdout + result.stderr, path)
    if outcome == 'whole' and kind.content is not _nothing and kind.content(desk) < intact[name]:
        outcome = f'silent loss: {kind.content(desk)} of {intact[name]}'
    record_property('damaged', (name, damage.__name__, outcome.partition(':')[0]))
    assert outcome in _GOOD, f'{outcome}\n{damage.__name__}\n{result.stderr[-3000:]}'


def _outcome(code: int | None, said: str, path: Path) -> str:
    if code is None:
        return 'hang'
    if 'Traceback' in said:
        return 'traceback'
    named = path.name in said or path.parent.name in said or 'faults in the options' in said
    if code:
        errors = re.findall(r'^dblr[ \w-]*: error: ', said, flags=re.MULTILINE)
        return 'refused' if code > 0 and len(errors) == 1 and named else f'ended with {code}'
    return 'told' if re.search(rf'{re.escape(path.name)}(:| is) ', said) else 'whole'
