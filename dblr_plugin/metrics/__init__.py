"""Named evaluation protocols on top of BasicSR's PSNR and SSIM, and the figures made with them."""

from dblr_plugin.metrics.evaluate import evaluate
from dblr_plugin.metrics.figures import format_table, summarise, write_json
from dblr_plugin.metrics.protocols import PROTOCOLS, Protocol, choose_protocols, with_all_ssims

__all__ = [
    'PROTOCOLS',
    'Protocol',
    'choose_protocols',
    'evaluate',
    'format_table',
    'summarise',
    'with_all_ssims',
    'write_json',
]
