"""Restoring from a source to a sink: memory, latency, errors and resuming."""

import threading
import time
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from basicsr.archs import build_network

from dblr_plugin.data.windows import NEIGHBOURS
from dblr_plugin.errors import DBLRError
from dblr_plugin.restore.pipeline import restore_media
from dblr_plugin.restore.video_restorer import VideoRestorer
from dblr_plugin.threads import AHEAD
from dblr_plugin.video import Frame
from dblr_plugin.video.frames import Extent

SIZE = (16, 24)


def restorer(**changes) -> VideoRestorer:
    options = {'type': 'DBLRNet', 'num_feat': 8, 'num_block': 1, 'input_skip': True} | changes
    torch.manual_seed(0)
    return VideoRestorer(build_network(options), options, device='cpu', backend='torch', precision='fp32')


class Living:
    """Counts arrays that are still referenced, and their maximum."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self.lock = threading.Lock()

    def add(self, array: np.ndarray) -> np.ndarray:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        weakref.finalize(array, self._drop)
        return array

    def _drop(self) -> None:
        with self.lock:
            self.now -= 1


@dataclass
class Noise:
    """A source of ``count`` different frames."""

    count: int
    living: Living = field(default_factory=Living)
    taken: int = 0
    path: Path = Path('noise')
    size: tuple[int, int] = SIZE
    high_bit_depth: bool = False

    def __iter__(self) -> Iterator[Frame]:
        rng = np.random.default_rng(0)
        for number in range(self.count):
            self.taken += 1
            yield Frame(self.living.add(rng.integers(0, 256, (*SIZE, 3), np.uint8)), f'{number:08d}', number)

    def extent(self) -> Extent:
        return Extent(self.count)


@dataclass
class Bin:
    """A sink that counts frames and drops them; it refuses frame number ``breaks``."""

    living: Living = field(default_factory=Living)
    breaks: int | None = None
    names: list[str] = field(default_factory=list)
    end: str = ''

    def write(self, picture: Frame) -> None:
        if len(self.names) == self.breaks:
            raise DBLRError('the bin is full; empty it')
        self.living.add(picture.pixels)
        self.names.append(picture.name)

    def finish(self) -> None:
        self.end = 'finished'

    def extent(self) -> Extent:
        return Extent(len(self.names))

    def abandon(self) -> bool:
        self.end = 'abandoned'
        return bool(self.names)


@pytest.mark.parametrize('causal', [False, True])
@pytest.mark.slow
def test_memory_does_not_grow_with_the_length(causal):
    """Only the frames of a window, its look-ahead and both queues are held, whatever the length."""
    # the queue's frames, the one in its thread, and the one between it and the network
    queue = AHEAD + 2
    window = 5 + (0 if causal else NEIGHBOURS) + 1
    for count in (60, 240):
        source, sink = Noise(count), Bin()
        seconds = restore_media(restorer(causal=causal), source, sink, progress=False)
        assert len(seconds) == count == source.taken and sink.end == 'finished'
        assert sink.names == [f'{number:08d}' for number in range(count)]
        assert source.living.most <= window + 2 * queue and sink.living.most <= queue
        assert min(seconds) > 0 and max(seconds) < 60


def test_failing_sink_stops_decoding_and_is_abandoned():
    source, sink = Noise(600), Bin(breaks=7)
    with pytest.raises(DBLRError, match='the bin is full'):
        restore_media(restorer(), source, sink, progress=False)
    assert sink.end == 'abandoned' and len(sink.names) == 7 and source.taken < 40


def test_error_of_the_network_stops_decoding():
    """Decoding stops before the sink is abandoned and the source closed, which would crash a thread that decodes."""

    class Slow(Noise):
        def __iter__(self) -> Iterator[Frame]:
            for frame in super().__iter__():
                time.sleep(0.02)
                yield frame

    class Failing:
        def restore(self, frames: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
            yield next(frames)
            raise RuntimeError('out of memory')

    source, sink, taken = Slow(60), Bin(), []
    sink.abandon = lambda: taken.append(source.taken)
    with pytest.raises(RuntimeError, match='out of memory'):
        restore_media(Failing(), source, sink, progress=False)
    time.sleep(0.05)
    assert taken == [source.taken]


@pytest.mark.slow
def test_latency_is_the_time_of_the_network():
    """It includes neither a frame's waiting time nor the time of the sink."""
    net = restorer(causal=True)
    forward, pause = net.restorer.net, threading.Event()

    def slow(window: torch.Tensor) -> torch.Tensor:
        pause.wait(0.02)
        return forward(window)

    net.restorer.net = slow
    sink = Bin()
    write, sink.write = sink.write, lambda picture: (pause.wait(0.12), write(picture))
    seconds = sorted(restore_media(net, Noise(12), sink, progress=False))
    assert seconds[0] >= 0.02 and seconds[6] < 0.1


@dataclass
class Clip:
    """A source of three shots of moving texture, from frame ``first`` on."""

    count: int = 40
    first: int = 0
    path: Path = Path('clip')

    def skip(self, pictures: int) -> None:
        self.first = pictures

    def __iter__(self) -> Iterator[Frame]:
        rng = np.random.default_rng(0)
        shots = [rng.integers(0, 256, (SIZE[0], SIZE[1] + self.count, 3), np.uint8) for _ in range(3)]
        for number in range(self.first, self.count):
            shot = shots[0 if number < 13 else 1 if number < 20 else 2]
            yield Frame(np.ascontiguousarray(shot[:, number : number + SIZE[1]]), f'{number:08d}', number)


@dataclass
class Album(Bin):
    """A sink that keeps all frames by name."""

    pictures: dict[str, bytes] = field(default_factory=dict)

    def write(self, picture: Frame) -> None:
        self.pictures[picture.name] = picture.pixels.tobytes()


@pytest.mark.parametrize('causal', [False, True])
@pytest.mark.slow
def test_resume_gives_the_same_frames(causal):
    """Including right after a cut and a few frames after one, where earlier frames determine the window."""
    net, whole = restorer(causal=causal), Album()
    with torch.no_grad():  # a network that is not the identity
        for weights in net.restorer.net.parameters() if hasattr(net.restorer.net, 'parameters') else ():
            weights.add_(0.01)
    restore_media(net, Clip(), whole, progress=False)
    assert len(whole.pictures) == 40
    for done in (1, 2, 12, 13, 14, 16, 21, 39, 40):
        rest = Album()
        seconds = restore_media(net, Clip(), rest, progress=False, done=done)
        assert rest.pictures == {name: data for name, data in whole.pictures.items() if int(name) >= done}
        assert len(seconds) == 40 - done
