"""Compare before and after in a browser, on clips of your own.

dblr demo-page [--weights net_g_latest.pth]
serves a page on this computer: give it a video or an image, and drag the divider between blurry and restored. Clips
stay here, and are deleted when the page is left or Ctrl-C ends the server.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import functools
import signal
import socket
from types import FrameType

from dblr_plugin.commands.deblur import add_network_arguments, build_restorer, check_network_arguments
from dblr_plugin.errors import DBLRError

__all__ = ['add_arguments', 'run']


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments; those of the network are as for ``dblr deblur``."""
    add_network_arguments(parser)
    parser.add_argument('--port', type=int, default=8000, help='port; 0 takes any free one (default: 8000)')
    size_help = 'largest size of a clip (default: 500)'
    parser.add_argument('--max-size', type=float, default=500, metavar='MB', help=size_help)


def run(args: argparse.Namespace) -> None:
    """Serves until Ctrl-C; raises DBLRError if the port or the network is not available."""
    from dblr_plugin.page.process import Task, prepare_tasks, temporary_folder

    check_network_arguments(args)
    stops: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        stops.append(number)
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    build = functools.partial(build_restorer, args)
    with _listen(args.port) as listener:
        folder = temporary_folder()
        prepare_tasks()  # imports torch while this process imports gradio
        try:
            from dblr_plugin.page.server import build_server
        except ImportError as error:
            raise DBLRError(f"the page needs more packages ({error}): pip install 'dblr_plugin[page]'") from error
        asyncio.run(Task('build', build).result(print, print))
        server = build_server(folder, build, round(args.max_size * 1e6))
        if stops:  # the exception was lost in a library's import or a destructor
            raise KeyboardInterrupt
        print(f'http://127.0.0.1:{listener.getsockname()[1]}  (stop with Ctrl-C)', flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.run([listener])


def _listen(port: int) -> socket.socket:
    """Opens a local port, any free one for 0; raises DBLRError if it is not available."""
    try:
        return socket.create_server(('127.0.0.1', port))
    except (OSError, OverflowError) as error:
        reason = 'another program uses it' if getattr(error, 'errno', None) == errno.EADDRINUSE else error
        raise DBLRError(f'port {port} is not available ({reason}); give another --port, or 0 for any') from error
