"""``python -m dblr_plugin.mmengine.train CONFIG``, like OpenMMLab's ``tools/train.py``: from arguments to Runners."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config, DictAction
from mmengine.runner import Runner, find_latest_checkpoint

from dblr_plugin import hooks
from dblr_plugin.console import never_fail_to_print
from dblr_plugin.errors import DBLRError
from dblr_plugin.files import hold_folder

__all__ = ['build_runner', 'main', 'newest_checkpoint', 'parser_of']


def parser_of(program: str, description: str) -> argparse.ArgumentParser:
    """Builds the parser for the arguments shared by this program and ``test``, like those of OpenMMLab's tools."""
    parser = argparse.ArgumentParser(prog=f'python -m dblr_plugin.mmengine.{program}', description=description)
    parser.add_argument('config', type=Path, help='config file of MMEngine, such as options/mmengine/demo_DBLRNet.py')
    parser.add_argument('--work-dir', help='folder of checkpoints and logs (default: work_dirs/<name of the config>)')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, default={}, metavar='KEY=VALUE', help='change the config'
    )
    parser.add_argument(
        '--launcher',
        choices=('none', 'pytorch', 'slurm', 'mpi'),
        default='pytorch' if {'RANK', 'WORLD_SIZE', 'LOCAL_RANK'} <= os.environ.keys() else 'none',
        help='what launched the processes (default: torchrun, if it did)',
    )
    parser.add_argument('--local_rank', '--local-rank', type=int, help=argparse.SUPPRESS)  # from older launchers
    return parser


def build_runner(args: argparse.Namespace, resume: bool = False, **settings: object) -> Runner:
    """Builds the Runner of a config.

    Args:
        args: Arguments parsed by :func:`parser_of`.
        resume: Whether to resume from the newest checkpoint in the run's folder, if there is one.
        settings: Further settings, which override the config.

    Raises:
        DBLRError: If the config does not exist, or the checkpoint to resume from cannot be determined.
    """
    never_fail_to_print()
    hooks.show_errors_in_one_line()
    if not args.config.is_file():
        raise DBLRError(f'{args.config}: no such config (looked up from {Path.cwd()})')
    if args.local_rank is not None:
        os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    config = Config.fromfile(args.config)
    config.merge_from_dict(args.cfg_options)
    config.launcher = args.launcher
    config.work_dir = args.work_dir or config.get('work_dir') or f'work_dirs/{args.config.stem}'
    newest = newest_checkpoint(config.work_dir) if resume else None
    if newest:  # replaces the config's load_from, another run's checkpoint, from which MMEngine would resume
        config.resume, config.load_from = True, newest
    config.update(settings)
    return Runner.from_cfg(config)


def newest_checkpoint(work_dir: str) -> str | None:
    """Returns the checkpoint named by ``last_checkpoint`` in a run's folder, even if moved or copied; None without it.

    Raises:
        DBLRError: If it names no existing checkpoint, for example after a kill while it was written.
    """
    named = find_latest_checkpoint(work_dir)
    if named is None:
        return None
    found = next((path for path in (Path(work_dir, Path(named).name), Path(named)) if path.is_file()), None)
    if found is None:
        raise DBLRError(
            f"{work_dir}/last_checkpoint names no checkpoint ('{named}'); write the newest one's path into it, or "
            'remove it to start again'
        )
    return str(found)


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains; ``arguments`` defaults to ``sys.argv[1:]``. Raises DBLRError if another run writes to the folder."""
    parser = parser_of('train', "Train a config with MMEngine's Runner.")
    parser.add_argument('--resume', action='store_true', help='resume from the newest checkpoint, if there is one')
    args = parser.parse_args(arguments)
    runner = build_runner(args, resume=args.resume)
    if runner.rank == 0:
        hold_folder(runner.work_dir, 'give another --work-dir')
    runner.train()


if __name__ == '__main__':
    main()
