"""The ``dblr`` command: one module per subcommand, arguments and messages only.

Only the module of the command that is run is imported, and its own imports at the top take little time. torch and
BasicSR are imported once the arguments are known to be right.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Iterator
from typing import NoReturn

import dblr_plugin
from dblr_plugin.console import never_fail_to_print, show_errors_in_one_line
from dblr_plugin.errors import DBLRError, nearest
from dblr_plugin.yaml_file import read_option_file

__all__ = ['main']

#: Subcommand -> first line of its module's docstring.
_COMMANDS = {
    'train': "Train a network with BasicSR's trainer.",
    'test': 'Restore and score data sets with a trained network.',
    'evaluate': 'Score restored frames against the ground truth under a named protocol, or without ground truth.',
    'deblur': 'Restore videos, folders of frames, or an image.',
    'demo-page': 'Compare before and after in a browser, on clips of your own.',
    'export': 'Write a network for other programs: ONNX, or weights in another format.',
    'weights': 'List the weights that come with the package.',
    'prepare': 'Convert data into the layout that training reads.',
    'benchmark': 'Train and test several methods under the same conditions, and write a report.',
    'link': 'Add this plugin to a BasicSR checkout.',
    'doctor': 'Find out what is wrong with this installation, this machine or your data, and how to fix it.',
}

#: Commands that start without BasicSR, whose import takes seconds: it may not be importable, or is imported in other
#: processes or only once input and output have been checked.
_WITHOUT_BASICSR = ('deblur', 'demo-page', 'doctor', 'export', 'link', 'prepare', 'weights')


def main(argv: list[str] | None = None) -> None:
    """Runs ``dblr`` with the given arguments, by default those of the command line."""
    never_fail_to_print()
    argv = sys.argv[1:] if argv is None else argv
    args, unknown = _build_parser(argv).parse_known_args(argv)
    if unknown:
        args.parser.error(f'unrecognized arguments: {" ".join(unknown)}')
    del args.parser  # cannot be sent to another process
    args.arguments = argv[1:]
    show_errors_in_one_line()
    _require_folder()
    if args.command not in _WITHOUT_BASICSR:
        if getattr(args, 'opt', None):
            read_option_file(args.opt)  # one that cannot be read is reported at once
        dblr_plugin.register()
    dblr_plugin.raise_on_ctrl_c()
    try:
        args.run(args)
    except KeyboardInterrupt as stop:
        sys.excepthook(KeyboardInterrupt, stop, stop.__traceback__)  # prints one line
        sys.exit(128 + signal.SIGINT)  # as shells do
    sys.stdout.flush()  # here, where errors are still reported in one line


def _require_folder() -> None:
    """Refuses a current folder that was removed, where the libraries behind torch do not load."""
    try:
        os.getcwd()
    except FileNotFoundError as error:
        raise DBLRError('the current folder has been removed; change to one that exists (cd)') from error


class _Parser(argparse.ArgumentParser):
    """Suggests the intended option if one is misspelt."""

    argv: tuple[str, ...] = ()

    def error(self, message: str) -> NoReturn:
        """Prints usage and message, and exits."""
        known = list(_options_of(self))
        typed = [word.partition('=')[0] for word in self.argv if word.startswith('-') and len(word) > 2]
        misspelt = [word for word in typed if not any(option.startswith(word) for option in known)]
        super().error(message + ''.join(nearest(word, known) for word in misspelt[:1]))


def _options_of(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Yields the options of a parser and its subparsers."""
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from _options_of(below)


def _build_parser(argv: list[str]) -> argparse.ArgumentParser:
    """Builds the parser for these arguments; other subcommands get no arguments in it."""
    _Parser.argv = tuple(argv)
    parser = _Parser(prog='dblr', description='Video deblurring for BasicSR.')
    parser.add_argument('--version', action='version', version=f'dblr {dblr_plugin.__version__}')
    subparsers = parser.add_subparsers(title='commands', metavar='COMMAND', dest='command', required=True)
    for name, text in _COMMANDS.items():
        subparser = subparsers.add_parser(
            name, help=text.rstrip('.'), formatter_class=argparse.RawDescriptionHelpFormatter
        )
        if argv[:1] == [name]:
            module = importlib.import_module(f'dblr_plugin.commands.{name.replace("-", "_")}')
            subparser.description = (module.__doc__ or text).strip()
            module.add_arguments(subparser)
            subparser.set_defaults(run=module.run, parser=subparser)
    return parser
