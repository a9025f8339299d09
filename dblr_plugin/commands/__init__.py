"""The ``dblr`` command: one module per subcommand, arguments and messages only."""

from __future__ import annotations

import argparse
import importlib
import sys

from dblr_plugin.console import never_fail_to_print
from dblr_plugin.version import __version__

__all__ = ['main']

_COMMANDS = (
    'train', 'test', 'evaluate', 'deblur', 'demo-page', 'export', 'prepare', 'benchmark', 'link', 'doctor',
)  # fmt: skip


def main(argv: list[str] | None = None) -> None:
    """Runs ``dblr`` with the given arguments, or the program's own."""
    never_fail_to_print()
    argv = sys.argv[1:] if argv is None else argv
    # the doctor must run where the other commands cannot even be imported
    names = ('doctor',) if argv[:1] == ['doctor'] else _COMMANDS
    if names == _COMMANDS:
        from dblr_plugin import hooks

        hooks.show_errors_in_one_line()
    parser = argparse.ArgumentParser(prog='dblr', description='Video deblurring for BasicSR.')
    parser.add_argument('--version', action='version', version=f'dblr {__version__}')
    subparsers = parser.add_subparsers(title='commands', metavar='COMMAND', required=True)
    for name in names:
        module = importlib.import_module(f'dblr_plugin.commands.{name.replace("-", "_")}')
        text = module.__doc__.strip()
        subparser = subparsers.add_parser(
            name,
            help=text.splitlines()[0].rstrip('.'),
            description=text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            add_help=not getattr(module, 'passes_arguments_on', False),
        )
        module.add_arguments(subparser)
        subparser.set_defaults(module=module)
    args, rest = parser.parse_known_args(argv)
    if not getattr(args.module, 'passes_arguments_on', False) and rest:
        parser.error(f'unrecognized arguments: {" ".join(rest)}')
    args.arguments = rest
    args.module.run(args)
