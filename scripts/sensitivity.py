"""Measures how much open choices of the method matter: short trainings on the demo's video, several seeds per choice.

    python scripts/sensitivity.py [--seeds 3]

DBLRNet's choices are trained from scratch, DBLRGAN's from one DBLRNet (the first row, seed 0). Each choice differs from
the first row of its table only in what its name says. Everything is written below benchmarks/sensitivity and
experiments/sensitivity_*; a rerun does only what is missing. Prints the tables of docs/sensitivity.md.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean, stdev

from demo_clips import find_footage, make_clips
from tqdm import tqdm

from dblr_plugin import train
from dblr_plugin.benchmark.pages import markdown_table
from dblr_plugin.benchmark.record import fingerprint_of, keep, kept, sha256
from dblr_plugin.errors import DBLRError
from dblr_plugin.version import __version__

NETWORKS = 'scripts/sensitivity_networks.py'
FOLDER = Path('benchmarks/sensitivity')
CLIPS = Path('datasets/sensitivity')
WINDOW = (213, 240, 192, 256)  # a sixth of the frames, with buildings in both shots

# Changes to the demo's option files, common to all trainings.
COMMON = {
    'imports': [NETWORKS],
    **{
        f'datasets.{part}.dataroot_{side}': str(CLIPS / part / side)
        for part in ('train', 'val')
        for side in ('lq', 'gt')
    },
    'datasets.train.gt_size': 40,
    'datasets.train.num_worker_per_gpu': 0,
    'datasets.train.persistent_workers': False,
    'network_g.num_block': 3,
    'val.val_freq': 1_000_000,  # only at the end
    'logger.print_freq': 50,
    'logger.save_checkpoint_freq': 1_000_000,
    'logger.use_tb_logger': False,
}

# Name -> differences from the first.
DBLRNET = {
    'input_skip, default initialisation, groups 1, Y of 16 to 235': {},
    'groups 16': {'network_g.groups': 16},
    'Y of 0 to 255': {'network_g.type': 'FullRangeDBLRNet'},
    'N(0, 0.01)': {'network_g.init_std': 0.01},
    'no input_skip': {'network_g.input_skip': False},
    'no input_skip, N(0, 0.01): as published': {'network_g.input_skip': False, 'network_g.init_std': 0.01},
}
DBLRGAN = {
    'minimax, slope 0.2, strides, mean over positions, default initialisation': {},
    'no adversarial loss': {'train.gan_opt.loss_weight': 0},
    'non-saturating': {'train.gan_opt': {'type': 'GANLoss', 'gan_type': 'vanilla', 'loss_weight': 2e-4}},
    'slope 0 (ReLU)': {'network_d.negative_slope': 0},
    'max pooling instead of strides': {'network_d.type': 'MaxPoolDiscriminator'},
    'flattened instead of the mean over positions': {'network_d.type': 'FlattenDiscriminator'},
    'D from N(0, 0.01)': {'network_d.init_std': 0.01},
}
# Model -> option file, changes common to all its trainings, and its choices.
MODELS = {
    'DBLRNet': ('options/demo_DBLRNet.yml', {'train.total_iter': 150, 'train.scheduler.periods': [150]}, DBLRNET),
    'DBLRGAN': (
        'options/demo_DBLRGAN.yml',
        {
            'train.total_iter': 80,
            'train.scheduler.periods': [80],
            'network_d.num_feat': 8,
            'network_d.num_fc': 64,
            'path.pretrain_network_g': 'experiments/sensitivity_DBLRNet_0_0/models/net_g_latest.pth',
        },
        DBLRGAN,
    ),
}


def main() -> None:
    """Trains what is missing and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--seeds', type=int, default=3, help='trainings of each choice, at least 2 (default: 3)')
    seeds = parser.parse_args().seeds
    if seeds < 2:
        parser.error('--seeds must be at least 2, or there is no spread')
    make_clips(find_footage(), CLIPS, WINDOW)
    with tqdm(total=seeds * sum(len(choices) for *_, choices in MODELS.values()), unit='training') as bar:
        results = {model: list(_results(model, seeds, bar)) for model in MODELS}
    for model, rows in results.items():
        print(f'\n**{model}**\n\n{_table(rows)}')
    seconds = sum(result['cpu_seconds'] for rows in results.values() for _, row in rows for result in row)
    print(f'\n{seconds / 60:.1f} minutes of processor time')


def _results(model: str, seeds: int, bar: tqdm) -> Iterator[tuple[str, list[dict]]]:
    """Yields each choice's name and the results of its seeds."""
    option_file, settings, choices = MODELS[model]
    for number, (title, choice) in enumerate(choices.items()):
        row = []
        for seed in range(seeds):
            name = f'sensitivity_{model}_{number}_{seed}'
            row.append(_result(name, option_file, {**COMMON, **settings, **choice, 'manual_seed': seed, 'name': name}))
            bar.update()
        yield title, row


def _result(name: str, option_file: str, settings: dict) -> dict:
    """Returns ``psnr``, ``ssim`` and ``cpu_seconds`` of a training, stored ones if they belong to these settings."""
    start = settings.get('path.pretrain_network_g')
    files = [sha256(Path(file)) for file in (option_file, NETWORKS, start) if file]
    path, fingerprint = FOLDER / f'{name}.json', fingerprint_of([settings, files, __version__])
    if (found := kept(path, fingerprint)) is not None:
        return found
    shutil.rmtree(Path('experiments', name), ignore_errors=True)  # left by an interrupted training
    arguments = [f'{key}={json.dumps(value)}' for key, value in settings.items()]
    log = FOLDER / f'{name}.log'
    log.parent.mkdir(parents=True, exist_ok=True)
    started = os.times()
    # forked, so that torch is imported once and each training starts from the same process state
    process = multiprocessing.get_context('fork').Process(
        target=_train, args=(log, ['-opt', option_file, '--set', *arguments]), daemon=True
    )
    process.start()
    process.join()
    if process.exitcode:
        raise DBLRError(f'{name}: training failed, see {log}')
    ended = os.times()
    seconds = ended.children_user + ended.children_system - started.children_user - started.children_system
    metrics = json.loads(Path('experiments', name, 'metrics.json').read_text())[-1]['mean']
    return keep(path, fingerprint, {**metrics, 'cpu_seconds': seconds})


def _train(log: Path, arguments: list[str]) -> None:
    """Runs ``dblr train`` with its output in a file."""
    with open(log, 'w', encoding='utf-8') as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    sys.argv = ['dblr train', *arguments]
    train.main()


def _table(rows: list[tuple[str, list[dict]]]) -> str:
    """Tabulates mean and standard deviation over the seeds, and the gain over the first row with its standard error."""
    first = rows[0][1]
    lines = []
    for title, results in rows:
        cells = [_spread(results, 'psnr', 2), _spread(results, 'ssim', 4)]
        lines.append([title, *cells, '' if results is first else _gain(first, results)])
    return markdown_table(['', 'PSNR', 'SSIM', 'PSNR gained'], lines)


def _spread(results: list[dict], metric: str, digits: int) -> str:
    values = [float(result[metric]) for result in results]
    return f'{fmean(values):.{digits}f} ± {stdev(values):.{digits}f}'


def _gain(first: list[dict], results: list[dict]) -> str:
    # paired by seed: each choice gets the same batches in the same order for a seed
    gains = [float(result['psnr']) - float(base['psnr']) for base, result in zip(first, results, strict=True)]
    return f'{fmean(gains):+.3f} ± {stdev(gains) / math.sqrt(len(gains)):.3f}'


if __name__ == '__main__':
    main()
