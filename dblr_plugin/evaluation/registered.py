"""The kinds of SSIM that BasicSR lacks, registered with it for ``val.metrics``."""

from __future__ import annotations

import numpy as np
from basicsr.utils.registry import METRIC_REGISTRY

from dblr_plugin.evaluation.ms_ssim import ms_ssim
from dblr_plugin.evaluation.psnr_ssim import ssim_3d

__all__ = ['calculate_ms_ssim', 'calculate_ssim_3d']


# kwargs: BasicSR passes every key of an entry of val.metrics, also those that are not for the metric, as ``better``
@METRIC_REGISTRY.register()
def calculate_ssim_3d(
    img: np.ndarray, img2: np.ndarray, crop_border: int, test_y_channel: bool = False, **kwargs: object
) -> float:
    """MATLAB's SSIM: :func:`dblr_plugin.evaluation.psnr_ssim.ssim_3d`."""
    return ssim_3d(img, img2, crop_border, test_y_channel)


@METRIC_REGISTRY.register()
def calculate_ms_ssim(
    img: np.ndarray, img2: np.ndarray, crop_border: int, test_y_channel: bool = False, **kwargs: object
) -> float:
    """Multi-scale SSIM: :func:`dblr_plugin.evaluation.ms_ssim.ms_ssim`; frames must have 161 pixels both ways."""
    return ms_ssim(img, img2, crop_border, test_y_channel)
