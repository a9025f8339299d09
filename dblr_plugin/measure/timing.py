"""Time and memory for a frame, of several methods in one run.

All methods take turns, as :mod:`dblr_plugin.measure.rounds` has it. Devices are waited for before a clock is read.

A method is timed as it is given: a :class:`VideoRestorer` from a frame of 8 bits to a restored one, its conversions,
tiles and copies from and to the device included; a network or another forward pass on its window alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from tqdm import tqdm

from dblr_plugin.measure.peak import METHOD as MEMORY
from dblr_plugin.measure.peak import peak_memory
from dblr_plugin.measure.rounds import Variant, run_rounds, spread, waited_for
from dblr_plugin.restore.backends import Forward
from dblr_plugin.restore.video_restorer import VideoRestorer

__all__ = ['METHOD', 'Method', 'measure']

METHOD = {
    'order': 'all methods in every round, the first round not counted',
    'figure': 'median, quartiles and extremes over rounds of the milliseconds for a frame, the device waited for',
    'memory': MEMORY,
}


@dataclass(frozen=True)
class Method:
    """A method to measure.

    Attributes:
        make: Builds it: a :class:`VideoRestorer`, or a forward pass ``(1, t, c, h, w)`` to ``(1, c, h, w)``, such as
            a network in evaluation mode. It is called in another process too, and must be picklable:
            ``partial(VideoRestorer.from_weights, path)``, or a function of a module.
        window: Frames and channels of a forward pass's windows.
    """

    make: Callable[[], VideoRestorer | Forward]
    window: tuple[int, int] = (5, 3)


def measure(
    methods: Mapping[str, Method],
    device: torch.device,
    size: tuple[int, int] = (1280, 720),
    seconds: float = 60,
) -> dict:
    """Measures all methods.

    Args:
        methods: Those to compare, by name.
        device: Where they run; windows of forward passes lie there.
        size: Width and height of the frames, in pixels.
        seconds: Time for the rounds; at least three are made, whatever they take.

    Returns:
        ``size`` (h, w), ``device``, ``threads``, and ``methods``, which maps a name to what
        :func:`dblr_plugin.measure.rounds.spread` gives, and ``peak_bytes`` (None where the system does not tell, or
        killed the process).
    """
    makers = {name: partial(_frame_maker, method, size, device) for name, method in methods.items()}
    peaks = {name: peak_memory(make, device) for name, make in tqdm(makers.items(), 'memory', disable=None)}
    ways = {name: Variant(name, waited_for(make(), device)) for name, make in makers.items()}
    run_rounds([*ways.values()], seconds)
    return {
        'size': list(size[::-1]),
        'device': str(device),
        'threads': torch.get_num_threads(),
        'methods': {name: spread(way) | {'peak_bytes': peaks[name]} for name, way in ways.items()},
    }


def _frame_maker(method: Method, size: tuple[int, int], device: torch.device) -> Callable[[], object]:
    """Builds a method, and returns what restores its next frame."""
    made, (width, height) = method.make(), size
    if isinstance(made, VideoRestorer):
        frame = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
        # alignment leaves frames alone that are one and the same
        frames = [np.roll(frame, 2 * shift, axis=1) for shift in range(8)]
        return partial(next, made.restore(itertools.cycle(frames)))
    window = torch.rand(1, *method.window, height, width, device=device)
    return torch.no_grad()(partial(made, window))
