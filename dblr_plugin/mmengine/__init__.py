"""Adapters for MMEngine's Runner; importing this package registers them under the scope ``dblr``.

A config only needs ``custom_imports = dict(imports=['dblr_plugin.mmengine'])``. Networks, losses, data sets and
protocols are those of the rest of the plugin; see ``docs/mmengine.md``.
"""

from dblr_plugin.mmengine import yapf_cache

yapf_cache.write_whole()
try:
    import mmengine  # noqa: F401
except ImportError as error:
    raise ImportError("dblr_plugin.mmengine needs MMEngine: pip install 'dblr_plugin[mmengine]'") from error

from dblr_plugin.mmengine import fixes  # noqa: E402

fixes.apply()

from dblr_plugin.mmengine.models import DBLRGANModel, VideoDeblurModel  # noqa: E402
from dblr_plugin.mmengine.runner import (  # noqa: E402
    ComparisonImagesHook,
    MultiOptimWrapperConstructor,
    ProtocolScores,
    ResumableSampler,
    ResumableTrainLoop,
    StopAtInvalidLossHook,
)

__all__ = [
    'ComparisonImagesHook', 'DBLRGANModel', 'MultiOptimWrapperConstructor', 'ProtocolScores', 'ResumableSampler',
    'ResumableTrainLoop', 'StopAtInvalidLossHook', 'VideoDeblurModel',
]  # fmt: skip
