"""``python -m dblr_plugin.mmengine.test CONFIG CHECKPOINT``, like OpenMMLab's ``tools/test.py``."""

from __future__ import annotations

from collections.abc import Sequence

from dblr_plugin.mmengine.train import build_runner, parser_of

__all__ = ['main']


def main(arguments: Sequence[str] | None = None) -> None:
    """Restores and scores the config's test set; ``arguments`` defaults to ``sys.argv[1:]``."""
    parser = parser_of('test', "Test a checkpoint of either trainer with MMEngine's Runner.")
    parser.add_argument('checkpoint', help='.pth file of the Runner, or of BasicSR')
    args = parser.parse_args(arguments)
    build_runner(args, load_from=args.checkpoint).test()


if __name__ == '__main__':
    main()
