"""Compare before and after in a browser, on clips of your own.

dblr demo-page [--weights net_g_latest.pth]
serves a page on this computer: drop a video or an image on it, and drag the divider between blurry and restored.
Clips stay here, and are deleted when the page is left or Ctrl-C ends the server.
"""

from __future__ import annotations

import argparse
import contextlib
import signal

from dblr_plugin.commands.deblur import add_network_arguments, build_restorer
from dblr_plugin.errors import DBLRError

__all__ = ['add_arguments', 'run']

# A preview is short: compiling would take longer than it saves.
_FRAMES = 75


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments; those of the network are ``dblr deblur``'s."""
    add_network_arguments(parser)
    host_help = 'address to serve at; beyond this computer, whoever reaches it may use the page (default: 127.0.0.1)'
    parser.add_argument('--host', default='127.0.0.1', help=host_help)
    parser.add_argument('--port', type=int, default=8000, help='0 takes any that is free (default: 8000)')
    parser.add_argument('--max-size', type=float, default=500, metavar='MB', help='of a clip (default: 500)')


def run(args: argparse.Namespace) -> None:
    """Serves until Ctrl-C; raises DBLRError for a port or a network that cannot be had."""
    try:
        from dblr_plugin.page.jobs import Jobs
        from dblr_plugin.page.server import build_server, listen
    except ImportError as error:
        raise DBLRError(f"the page needs more packages ({error}): pip install 'dblr_plugin[page]'") from error

    listener = listen(args.host, args.port)
    restorer = build_restorer(args, _FRAMES)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), Jobs(restorer, round(args.max_size * 1e6)) as jobs:
        host = f'[{args.host}]' if ':' in args.host else args.host
        print(f'http://{host}:{listener.getsockname()[1]}  (Ctrl-C ends it)', flush=True)
        build_server(jobs, args.host).run([listener])
