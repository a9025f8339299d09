"""Warns when data loading is too slow, steps are skipped or the discriminator fails."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from basicsr.utils import get_root_logger

from dblr_plugin.errors import DBLRError
from dblr_plugin.processes import usable_cores

__all__ = ['DataMonitor', 'DiscriminatorMonitor', 'SkipMonitor']


class DataMonitor:
    """Warns once if training waits too long for its data, and suggests fixes.

    Args:
        dataset: Options of the training set.
        window: Number of iterations to measure.
        clock: Returns seconds.
    """

    limit = 0.25  # share of the time

    def __init__(self, dataset: dict, window: int = 200, clock: Callable[[], float] = time.perf_counter) -> None:
        self.dataset = dataset
        self.window = window
        self.clock = clock
        self.warned = False
        self._idle_since: float | None = None
        self._start()

    def _start(self) -> None:
        self.waited = self.worked = 0.0
        self.count = 0

    def pause(self) -> None:
        """Excludes the time until the next step, in which the run validates or saves."""
        self._idle_since = None

    def batch_arrived(self) -> None:
        """Marks the arrival of the next batch."""
        self._busy_since = self.clock()
        if self._idle_since is not None:
            self.waited += self._busy_since - self._idle_since

    def step_done(self) -> None:
        """Marks the end of a step; warns once, after a window with too large a share of waiting."""
        self._idle_since = self.clock()
        self.worked += self._idle_since - self._busy_since
        self.count += 1
        if self.count < self.window:
            return
        share = self.waited / (self.waited + self.worked)
        if share > self.limit and not self.warned:
            self.warned = True
            get_root_logger().warning(f'Training waits for its data {share:.0%} of the time. {self.fix()}')
        self._start()

    def fix(self) -> str:
        """Returns advice on faster loading, given the present options."""
        workers, cores = self.dataset['num_worker_per_gpu'], usable_cores()
        fixes = []
        if workers < cores:
            fixes.append(f'raise num_worker_per_gpu (it is {workers}, and there are {cores} cores)')
        if workers and not self.dataset.get('persistent_workers'):
            fixes.append('set persistent_workers: true')
        if '.tiles' not in str(self.dataset.get('dataroot_lq', '.tiles')):
            fixes.append('use tile databases, from which only the crops are read (dblr prepare ... --tiles)')
        if not self.dataset.get('y_only'):
            fixes.append('set y_only: true, if the network takes one channel')
        return f'To fix it: {"; ".join(fixes)}.' if fixes else 'The disk or the processor is at its limit.'


class DiscriminatorMonitor:
    """Warns when D has won, so that G learns nothing from it, or has collapsed to chance.

    Uses running means of D's probability of being real for sharp and for restored patches.
    """

    memory = 200  # iterations
    won = 0.95  # difference of the two means
    chance = 0.02

    def __init__(self) -> None:
        self.count = 0
        self.difference = 0.0
        self.state = ''

    def record(self, p_real: float, p_fake: float) -> None:
        """Records the mean probabilities of one iteration; warns when the state changes for the worse."""
        if not math.isfinite(p_real - p_fake):
            return
        self.count += 1
        # a plain mean at first, so that the first iterations do not weigh more
        self.difference += (p_real - p_fake - self.difference) / min(self.count, self.memory)
        if self.count < self.memory:
            return
        state = 'won' if self.difference > self.won else 'chance' if self.difference < self.chance else ''
        if state and state != self.state:
            get_root_logger().warning(_VERDICTS[state].format(self.memory))
        self.state = state


_VERDICTS = {
    'won': (
        'The discriminator has won: over {} iterations it was nearly always right, and the generator learns little '
        'from it. Lower train.optim_d.lr, or start again from an earlier checkpoint.'
    ),
    'chance': (
        'The discriminator has collapsed: over {} iterations it did not distinguish restored patches from sharp '
        'ones. Train it alone at first (train.net_d_init_iters), raise train.optim_d.lr, or take larger patches.'
    ),
}


class SkipMonitor:
    """Names the samples of a batch whose step was skipped, and ends the run after ``limit`` skips in a row."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.in_a_row = 0

    def record(self, current_iter: int, skipped: bool, keys: list[str]) -> None:
        """Records whether a step was skipped; ``keys`` are ``clip/frame`` of the samples that may be the cause.

        Raises:
            DBLRError: If ``limit`` steps in a row were skipped.
        """
        self.in_a_row = self.in_a_row + 1 if skipped else 0
        if not skipped:
            return
        named = ', '.join(keys) if keys else 'samples without keys'
        message = f'iteration {current_iter}: loss or gradient is not finite; batch: {named}'
        if self.in_a_row >= self.limit:
            raise DBLRError(
                f'{message}. That makes {self.in_a_row} in a row: lower the learning rate, set train.clip_grad_norm, '
                f'or check these frames; the newest checkpoint was saved before the fault'
            )
        get_root_logger().warning(f'{message}. The step is skipped.')
