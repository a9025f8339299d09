"""Named evaluation protocols as MMEngine's metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log

from dblr_plugin.evaluation.protocols import choose_protocols
from dblr_plugin.evaluation.scores import Row, format_table, summarise
from dblr_plugin.evaluation.validation import frame_scores
from dblr_plugin.mmengine.data import restored_frame
from dblr_plugin.mmengine.registry import METRICS, register

__all__ = ['ProtocolScores']


@register(METRICS)
class ProtocolScores(BaseMetric):
    """PSNR and SSIM by a protocol of :mod:`dblr_plugin.evaluation.protocols`, ``<protocol>/psnr`` and ``/ssim``.

    The log has those of each clip too. Several protocols are several metrics.

    Args:
        protocol: Its name.
        prefix: Stands in the place of that name.
        collect_device: See MMEngine's ``BaseMetric``; ``gpu`` collects between the processes, on CPUs too, and
            ``cpu`` by files.

    Raises:
        DBLRError: There is no such protocol.
    """

    def __init__(self, protocol: str = 'basicsr', prefix: str | None = None, collect_device: str = 'gpu') -> None:
        (self.protocol,) = choose_protocols([protocol])
        super().__init__(collect_device, prefix or self.protocol.name)

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Scores frames: a data set's samples, with what our models add, ``restored``."""
        # an entry for each sample, as MMEngine counts them when it collects
        self.results += [list(frame_scores(restored_frame(sample), [self.protocol])) for sample in data_samples]

    def compute_metrics(self, results: list[list[Row]]) -> dict[str, float]:
        """The protocol's figures for the data set; none without ground truth."""
        means: dict[str, float] = {}
        for entry in summarise([row for rows in results for row in rows], [self.protocol]):
            print_log(f'{(self.dataset_meta or {}).get("name", "")}\n{format_table(entry)}', logger='current')
            means |= entry['mean']
        return means
