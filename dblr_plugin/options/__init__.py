"""Option files: what they may hold, settings from the command line, and what cannot work, before anything is built."""

from dblr_plugin.options.located import read_option_file
from dblr_plugin.options.machine import check_options, is_ours
from dblr_plugin.options.option_file import check_option_file
from dblr_plugin.options.overrides import Override, take_overrides

__all__ = ['Override', 'check_option_file', 'check_options', 'is_ours', 'read_option_file', 'take_overrides']
