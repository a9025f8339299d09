"""``python -m dblr_plugin.mmengine.train CONFIG``: as OpenMMLab's ``tools/train.py``."""

from __future__ import annotations

from collections.abc import Sequence

from dblr_plugin.mmengine.program import build_runner, parser_of

__all__ = ['main']


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains; ``arguments`` are the program's own by default."""
    parser = parser_of('train', "Train a config with MMEngine's Runner.")
    parser.add_argument('--resume', action='store_true', help='go on with the newest checkpoint, if there is one')
    args = parser.parse_args(arguments)
    build_runner(args, resume=args.resume).train()


if __name__ == '__main__':
    main()
