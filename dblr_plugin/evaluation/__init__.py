"""Metrics by name, named protocols that score frames with them, and the scores of validations."""

from dblr_plugin.evaluation.protocols import PROTOCOLS, Protocol, choose_protocols, with_metrics
from dblr_plugin.lazy import import_on_demand

__all__ = [
    'PROTOCOLS',
    'Protocol',
    'choose_protocols',
    'format_table',
    'summarise',
    'with_metrics',
    'write_json',
]

# the protocols alone are quickly there, for `dblr evaluate --help`
__getattr__ = import_on_demand(
    __name__,
    {
        'format_table': 'dblr_plugin.evaluation.scores',
        'summarise': 'dblr_plugin.evaluation.scores',
        'write_json': 'dblr_plugin.evaluation.scores',
    },
)
