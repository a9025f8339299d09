"""Named evaluation protocols on top of BasicSR's PSNR and SSIM, and the figures made with them."""

from dblr_plugin.evaluation.evaluate import evaluate
from dblr_plugin.evaluation.protocols import PROTOCOLS, Protocol, choose_protocols, with_all_ssims
from dblr_plugin.evaluation.scores import format_table, summarise, write_json

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
