"""Runs a benchmark: trains, tests and times whatever is missing."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from basicsr.data import build_dataset

from dblr_plugin.benchmark import timing
from dblr_plugin.benchmark.measuring import build_restorer, count_operations, measure_quality
from dblr_plugin.benchmark.methods import Method
from dblr_plugin.benchmark.plan import Plan
from dblr_plugin.benchmark.record import (
    code_checksums,
    data_checksums,
    describe_machine,
    describe_versions,
    fingerprint_of,
    keep,
    kept,
    sha256,
)
from dblr_plugin.benchmark.training import train, trained, write_options
from dblr_plugin.errors import DBLRError, first_line, on_one_line
from dblr_plugin.evaluation.perceptual import cached_backbone, missing_for_lpips
from dblr_plugin.evaluation.validation import check_sizes
from dblr_plugin.files import write_whole
from dblr_plugin.version import __version__

__all__ = ['Results', 'run_benchmark']


@dataclass
class Results:
    """Benchmark results so far, by method.

    Attributes:
        quality: Results of :func:`measure_quality`.
        complexity: Results of :func:`count_operations`.
        training: Training records.
        failures: Why methods failed; methods in none of these were not run.
        timing: Result of :func:`timing.measure`; None if nothing is timed.
        timing_failure: Why timing failed.
        no_lpips: Why LPIPS was not measured.
    """

    quality: dict[str, dict] = field(default_factory=dict)
    complexity: dict[str, dict] = field(default_factory=dict)
    training: dict[str, dict] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    timing: dict | None = None
    timing_failure: str | None = None
    no_lpips: str | None = None


def run_benchmark(
    plan: Plan, only: Sequence[str] = (), processes: int = 1, tell: Callable[[str], None] = lambda text: None
) -> Results:
    """Does whatever is missing, method by method. A failed method is recorded, and retried by the next run.

    Args:
        plan: The benchmark.
        only: Names of the methods to run, all if empty; existing results of the others are still reported.
        processes: Number of training processes per method.
        tell: Called with progress messages.

    Raises:
        DBLRError: A name in ``only`` is no method.
        SystemExit: A signal arrived during training, whose state has been saved.
    """
    run = _Run(plan, processes, tell)
    wanted = plan.wanted(only)
    for method in wanted:
        run.make(method)
    for method in plan.methods.values():
        run.collect(method)
    run.time()
    return run.results


class _Run:
    def __init__(self, plan: Plan, processes: int, tell: Callable[[str], None]) -> None:
        self.plan, self.processes, self.tell, self.results = plan, processes, tell, Results()
        self.lpips_weights = plan.lpips or cached_backbone()
        self.results.no_lpips = missing_for_lpips(self.lpips_weights)

    def make(self, method: Method) -> None:
        """Trains and tests a method, as far as that is missing."""
        folder = method.folder
        try:
            self._make(method)
            folder.failure.unlink(missing_ok=True)
            folder.traceback.unlink(missing_ok=True)
        except Exception as error:  # a failed method must not stop the others
            is_known = isinstance(error, DBLRError)
            reason = on_one_line(str(error)) if is_known else f'{type(error).__name__}: {first_line(error)}'
            self.tell(f'{method.name}: failed: {reason}')
            if not is_known:
                write_whole(folder.traceback, traceback.format_exc())
            keep(folder.failure, _asked(method), {'reason': reason})

    def _make(self, method: Method) -> None:
        folder = method.folder
        write_options(folder.test_options, method.test, folder.test_command)
        if method.train is not None and not trained(method):
            self._require_start(method)
            check_sizes(build_dataset(method.test_set), self.plan.protocols)  # training may take weeks
            self.tell(f'{method.name}: training, see {folder.train_log}')
            train(method, self.processes)
        if kept(folder.complexity, self._complexity_fingerprint(method)) is None:
            counted = count_operations(method, self.plan.size)
            keep(folder.complexity, self._complexity_fingerprint(method), counted)
        if self._quality(method) is None:
            self.tell(f'{method.name}: testing')
            folder.figures.unlink(missing_ok=True)  # before its frames are replaced
            backbone = None if self.results.no_lpips else self.lpips_weights
            quality = measure_quality(method, self.plan.protocols, backbone)
            keep(folder.figures, self._quality_fingerprint(method), quality)

    def _require_start(self, method: Method) -> None:
        if method.start is not None:
            start = self.plan.methods[method.start]
            if start.train is not None and not trained(start):
                raise DBLRError(f'{start.name}, from whose weights it starts, was not trained')

    def collect(self, method: Method) -> None:
        """Loads a method's existing results that belong to these options."""
        folder, results = method.folder, self.results
        failure = kept(folder.failure, _asked(method))
        training = trained(method) if method.train is not None else {}
        quality = self._quality(method) if training is not None else None
        counted = kept(folder.complexity, self._complexity_fingerprint(method))
        if failure is not None:
            results.failures[method.name] = failure['reason']
        elif training is not None and quality is not None and counted is not None:
            results.quality[method.name] = quality
            results.complexity[method.name] = counted
            results.training[method.name] = training

    def _quality(self, method: Method) -> dict | None:
        """Returns a method's scores that belong to these options; None if they, or files for the crops, are missing."""
        folder = method.folder
        quality = kept(folder.figures, self._quality_fingerprint(method))
        if quality is None:
            return None
        frames = [folder.frame(clip, name) for clip, shown in quality['clips'].items() for name in shown['names']]
        return quality if all(path.is_file() for path in (folder.window_errors, *frames)) else None

    def time(self) -> None:
        """Times all methods that have figures in one run, unless already done."""
        plan, results = self.plan, self.results
        if plan.seconds is None or not results.quality:
            return
        files = {name: plan.methods[name].folder.test_options for name in results.quality}
        path, fingerprint = plan.folder / 'timing.json', self._timing_fingerprint(files)
        results.timing = kept(path, fingerprint)
        if results.timing is None:
            methods = {name: partial(build_restorer, str(file)) for name, file in files.items()}
            device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
            try:
                results.timing = keep(path, fingerprint, timing.measure(methods, device, plan.size, plan.seconds))
            except Exception as error:
                results.timing_failure = f'{type(error).__name__}: {error}'
                self.tell(f'timing failed: {results.timing_failure}')

    def _quality_fingerprint(self, method: Method) -> str:
        return fingerprint_of(
            {
                'options': method.test,
                'code': code_checksums(method.test),
                'weights': sha256(method.weights),
                'data': data_checksums(method.test_set),
                'lpips': None if self.results.no_lpips else sha256(self.lpips_weights),
                'version': __version__,
            }
        )

    def _complexity_fingerprint(self, method: Method) -> str:
        return fingerprint_of([_built(method), self.plan.size, __version__])

    def _timing_fingerprint(self, names: Iterable[str]) -> str:
        gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
        networks = {name: _built(self.plan.methods[name]) for name in names}
        machine = describe_machine(), gpu, torch.get_num_threads(), describe_versions(('torch', 'dblr_plugin'))
        return fingerprint_of([networks, self.plan.size, self.plan.seconds, machine])


def _asked(method: Method) -> str:
    return fingerprint_of([method.train, method.test])


def _built(method: Method) -> list:
    """Returns everything that determines a network's operations."""
    return [method.test['network_g'], method.test['val'].get('pad_multiple', 1), code_checksums(method.test)]
