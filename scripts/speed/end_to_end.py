"""A video restored from file to file: by ``dblr deblur``, and by the straightforward loop one would write instead.

The loop decodes a frame, restores its window in eager fp32, encodes it, and continues with the next. It converts each
frame to the network's input once, and encodes like ``dblr deblur``; it lacks everything else: folding, layouts,
backends, and running the three stages concurrently. The network is causal so that the latency of ``dblr deblur`` can be
measured too; this costs neither side anything.
"""

from __future__ import annotations

import itertools
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import av
import numpy as np
import torch
from torch import Tensor, nn

from dblr_plugin.benchmark.timing import Variant, figures, run_rounds
from dblr_plugin.colour import replace_y, rgb_to_y
from dblr_plugin.data.frames import unit_range
from dblr_plugin.restore.pipeline import restore_media
from dblr_plugin.restore.video_restorer import VideoRestorer
from dblr_plugin.video import open_sink, open_source

FRAMES = 8
RATE = 25
LOOP, DBLR = 'plain loop', 'dblr deblur'
_QUALITY = {'crf': '17'}  # VideoSink's


def measure_video(build: Callable[..., nn.Module], window: Tensor, seconds: float, device: torch.device) -> dict:
    """Measures both in interleaved rounds on an H.264 video of eight frames.

    Args:
        build: Builds the one-channel network; called with ``causal=True``.
        window: The video's frames, RGB ``(1, t, 3, h, w)`` in [0, 1] with even h and w; played back and forth.
        seconds: Time to measure for.
        device: Where networks run.

    Returns:
        ``frames`` and ``ways``, as :func:`figures` for the whole video; ``dblr deblur`` also has ``latency_ms``: median
        and 95th percentile of a frame's time from decoded to restored.
    """
    net = build(causal=True).eval().to(device)
    restorer = VideoRestorer(net, {'type': type(net).__name__, 'causal': True}, device=str(device), frames=1000)
    latencies: list[float] = []
    with tempfile.TemporaryDirectory(prefix='dblr_bench_') as folder:
        source = Path(folder) / 'source.mp4'
        to_and_fro = itertools.cycle([*window[0], *reversed(window[0, 1:-1])])
        _encode(source, window.shape[-2:], map(_bytes, itertools.islice(to_and_fro, FRAMES)))
        loop = partial(_plain_loop, net, device, source, Path(folder) / 'loop.mp4')
        ways = {
            LOOP: Variant('plain loop: decodes, restores (eager fp32) and encodes one after the other', loop, LOOP),
            DBLR: Variant('dblr deblur', lambda: latencies.extend(_dblr(restorer, source)), LOOP),
        }
        run_rounds([*ways.values()], seconds)
    found = figures(ways)
    half, most = (1000 * np.percentile(latencies[FRAMES:], (50, 95))).tolist()
    found[DBLR]['latency_ms'] = {'median': half, 'percentile_95': most}
    return {'frames': FRAMES, 'ways': found}


def _dblr(restorer: VideoRestorer, path: Path) -> Iterable[float]:
    with open_source(path) as source:
        return restore_media(restorer, source, open_sink(path.with_name('dblr.mp4'), source), progress=False)


@torch.no_grad()
def _plain_loop(net: nn.Module, device: torch.device, source: Path, target: Path) -> None:
    def restored() -> Iterator[np.ndarray]:
        held: deque[Tensor] = deque(maxlen=net.num_frame)
        for frame in container.decode(video=0):
            rgb = unit_range([frame.to_ndarray(format='rgb24').transpose(2, 0, 1).copy()]).to(device)
            held.extend([rgb_to_y(rgb)] * (1 if held else net.num_frame))
            yield _bytes(replace_y(rgb, net(torch.stack([*held], dim=1)))[0])

    with av.open(str(source)) as container:
        stream = container.streams.video[0]
        _encode(target, (stream.height, stream.width), restored())


def _encode(path: Path, size: tuple[int, int], pictures: Iterable[np.ndarray]) -> None:
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('libx264', RATE, options=_QUALITY)
        stream.height, stream.width = size
        stream.pix_fmt = 'yuv420p'
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format='rgb24')))
        container.mux(stream.encode(None))


def _bytes(planes: Tensor) -> np.ndarray:
    """Converts RGB ``(3, h, w)`` in [0, 1] to uint8 ``(h, w, 3)``."""
    return planes.clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).contiguous().cpu().numpy()
