"""Writes the report: ``report.json`` holds everything; ``report.md``, ``report.csv`` and the plots are made from it.

It contains no dates, so that the same results give the same report.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import torch
from basicsr.data import build_dataset
from basicsr.utils import tensor2img

from dblr_plugin.benchmark import timing
from dblr_plugin.benchmark.crops import RULE, Crop, choose_crops, draw_crops, window_of
from dblr_plugin.benchmark.methods import BATCH, RATE, Method
from dblr_plugin.benchmark.pages import MEASURED, csv_page, markdown_page
from dblr_plugin.benchmark.plan import Plan
from dblr_plugin.benchmark.plots import draw_figures, validations
from dblr_plugin.benchmark.record import describe_run
from dblr_plugin.benchmark.run import Results
from dblr_plugin.evaluation.scores import write_json
from dblr_plugin.files import make_folder, write_whole

__all__ = ['kept_rates', 'total_iterations', 'training_budget', 'write_report']

SCHEMA = 'dblr_benchmark/1'


def write_report(plan: Plan, results: Results) -> Path:
    """Writes ``report.{json,md,csv}`` and ``plots/`` into the benchmark's folder.

    Args:
        plan: The benchmark.
        results: The results so far.

    Returns:
        The path of ``report.md``. Nothing is written if it already shows these results.
    """
    report = _report(plan, results)
    page, data = plan.folder / 'report.md', plan.folder / 'report.json'
    if page.is_file() and _tells_of(data, report):
        return page
    page.unlink(missing_ok=True)  # written last: its existence means the report is complete
    make_folder(plan.folder)
    report['plots'] = _draw(plan, report)
    write_json(data, report)
    write_whole(plan.folder / 'report.csv', csv_page(report))
    write_whole(page, markdown_page(report))
    return page


def _tells_of(data: Path, report: dict) -> bool:
    """Whether a ``report.json`` equals this report, and the table and plots that follow from it are there."""
    try:
        held = json.loads(data.read_text(encoding='utf-8'))
        plots = [data.parent / f'plots/{name}_{theme}.png' for name in held.pop('plots') for theme in ('light', 'dark')]
        is_whole = all(path.is_file() for path in (data.with_suffix('.csv'), *plots))
        return is_whole and held == json.loads(json.dumps(report))
    except (OSError, ValueError, KeyError, TypeError):
        return False


# ---------------------------------------------------------------------- content


def _report(plan: Plan, results: Results) -> dict:
    methods = [_entry(plan, method, results) for method in plan.methods.values()]
    measured = [entry['name'] for entry in methods if entry['status'] == MEASURED]
    crops = _crops(plan, results, measured)
    return {
        'schema': SCHEMA,
        'name': plan.name,
        'data_set': _data_set(plan),
        'protocols': {protocol.name: protocol.meaning for protocol in plan.protocols},
        'metrics': list(plan.protocols[0].metrics),
        'size': list(plan.size[::-1]),
        'methods': methods,
        'truth': {'warping_error': next((q['mean']['warping_error_truth'] for q in results.quality.values()), None)},
        'timing': results.timing and {key: results.timing[key] for key in ('size', 'device', 'threads')},
        'notes': _notes(plan, results),
        'crops': crops,
        'quoted': plan.quoted,
        'provenance': _provenance(plan),
    }


def _entry(plan: Plan, method: Method, results: Results) -> dict:
    """Builds a method's entry in the report."""
    folder = method.folder
    training = training_budget(method, results.training.get(method.name))
    entry = {
        'name': method.name,
        'status': 'not run',
        'reason': results.failures.get(method.name),
        'figures': {},
        'clips': {},
        'training': training,
        'curve': None,
        'commands': [folder.train_command] * (method.train is not None) + [folder.test_command],
    }
    if entry['reason'] is not None:
        return entry | {'status': 'failed'}
    if method.name not in results.quality:
        return entry
    quality = results.quality[method.name]
    timed = results.timing['methods'][method.name] if results.timing else {}
    figures = {f'{metric}_{e["protocol"]}': value for e in quality['figures'] for metric, value in e['mean'].items()}
    figures |= {key: quality['mean'][key] for key in ('lpips', 'warping_error')}
    figures |= {key: results.complexity[method.name][key] for key in ('parameters', 'macs')}
    figures |= {'ms': timed.get('median_ms'), 'ms_quartiles': timed.get('quartiles_ms')}
    figures |= {'peak_bytes': timed.get('peak_bytes')}
    figures |= {'total_iterations': total_iterations(method, plan.methods)}
    figures |= {key: training and training[key] for key in ('batch', 'lr')}
    return entry | {
        'status': MEASURED,
        'figures': figures,
        'clips': {e['protocol']: e['clips'] for e in quality['figures']},
        'curve': _curve(plan, method),
    }


def _curve(plan: Plan, method: Method) -> list | None:
    if method.train is None:
        return None
    found = validations(Path('experiments', method.train['name'], 'metrics.json'), plan.protocols[0].name)
    return found and list(found)


def _data_set(plan: Plan) -> dict:
    """Describes the data sets, which all methods share."""
    methods = list(plan.methods.values())
    train = next((method.train_set for method in methods if method.train), None)
    shown = ('name', 'dataroot_lq', 'dataroot_gt', 'meta_info_file')
    return {
        part: {key: options[key] for key in shown if options.get(key)}
        for part, options in (('train', train), ('test', methods[0].test_set))
        if options
    }


def _notes(plan: Plan, results: Results) -> list[str]:
    """Lists what readers must know about the figures beyond the protocols."""
    width, height = plan.size
    notes = [
        'All methods were trained and tested on the same data, by the same trainer and validation, from the option '
        'files below.',
        f'Parameters and MACs are those of the network for a frame of {width}x{height}. MACs (multiply-adds) count '
        'each weight once for each place where it is applied, plus bilinear sampling and Fourier transforms, without '
        'elementwise arithmetic.',
        'Warping error: mean squared difference of consecutive restored frames, the second warped to the first by '
        'optical flow (DIS) of the ground truth, where that is not occluded, with values in [0, 1], in thousandths. A '
        'blurry video is consistent too: read it beside PSNR.',
        'The best value of each column, without the blurry input, is bold.',
        'Iterations include those of the method whose weights a training starts from. Batch size is the total over all '
        'processes; learning rate is the initial one. All three are omitted where the training is unknown.',
    ]
    kept = kept_rates([method for method in plan.methods.values() if results.training.get(method.name)])
    notes += [kept] if kept else []
    given = {method.name: method.weights for method in plan.methods.values() if method.weights and not method.train}
    notes += [f'{name} was not trained here: its weights are {path}.' for name, path in given.items()]
    untrained = [
        name
        for name, counted in results.complexity.items()
        if counted['parameters'] and plan.methods[name].weights is None
    ]
    notes += [
        f'{name} was tested with the parameters its network is built with, as no weights are named.'
        for name in untrained
    ]
    uncounted = {name: counted['uncounted'] for name, counted in results.complexity.items() if 'uncounted' in counted}
    notes += [f'MACs of {name} were not counted: {reason}.' for name, reason in uncounted.items()]
    if results.no_lpips:
        notes.append(f'LPIPS was not measured: {results.no_lpips}.')
    else:
        notes.append('LPIPS: version 0.1, AlexNet, on the frames that the first protocol scores.')
    if results.timing:
        notes.append(
            'Time: median over rounds (timing.json has each), in milliseconds per frame, with the device '
            'synchronised; all methods in every round, the first round not counted. Each method restores frames of '
            f'{width}x{height} as dblr deblur does with --backend torch --precision fp32, on '
            f'{results.timing["device"]} with {results.timing["threads"]} threads. Memory: {timing.MEMORY}.'
        )
    elif results.timing_failure:
        notes.append(f'Time and memory were not measured: {results.timing_failure}.')
    return notes


def _provenance(plan: Plan) -> dict:
    methods = list(plan.methods.values())
    folders = [method.folder for method in methods]
    written = [path for folder in folders for path in (folder.train_options, folder.test_options)]
    weights = [method.weights for method in methods if method.weights]
    files = dict.fromkeys([plan.path, *(path for method in methods for path in method.files), *written, *weights])
    data = {
        f'{part} {key.removeprefix("dataroot_")}': Path(options[key])
        for part, options in _data_set(plan).items()
        for key in ('dataroot_lq', 'dataroot_gt')
        if key in options  # windows made from sharp images have no dataroot_lq
    }
    prepare = [plan.prepare] if plan.prepare else []
    commands = [*prepare, f'dblr benchmark -opt {shlex.quote(str(plan.path))}']
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    return describe_run([path for path in files if path.is_file()], data, device, commands)


# ---------------------------------------------------------------------- pictures


def _crops(plan: Plan, results: Results, measured: list[str]) -> dict | None:
    """Chooses the crops to show and states the rule; None with fewer than two methods to compare."""
    if len(measured) < 2:
        return None
    clips = results.quality[measured[0]]['clips']
    errors = {}
    for name in measured:
        with np.load(plan.methods[name].folder.window_errors) as file:
            errors[name] = {clip: file[clip] for clip in clips}
    chosen = choose_crops(errors, clips)
    height, width = window_of(*clips[chosen[0].clip]['size'])
    rule = RULE.format(width=width, height=height)
    return {'rule': rule, 'methods': measured, 'shown': [asdict(crop) for crop in chosen]}


def _draw(plan: Plan, report: dict) -> dict[str, str]:
    """Draws all plots; returns their names and what they show."""
    folder, protocol = plan.folder / 'plots', plan.protocols[0].name
    pictured = [
        {
            'number': number,
            'name': entry['name'],
            'psnr': float(entry['figures'][f'psnr_{protocol}']),
            'clips': {clip: float(values['psnr']) for clip, values in entry['clips'][protocol].items()},
            'macs': entry['figures']['macs'],
            'ms': entry['figures']['ms'],
            'curve': entry['curve'],
        }
        for number, entry in enumerate(report['methods'])
        if entry['status'] == MEASURED
    ]
    if not pictured:
        return {}
    made = draw_figures(pictured, protocol, f'{plan.size[0]}x{plan.size[1]}', folder)
    if report['crops']:
        crops = [Crop(**crop) for crop in report['crops']['shown']]
        pictures = [_whole_frames(plan, report['crops']['methods'], crop) for crop in crops]
        draw_crops(crops, pictures, {entry['name']: entry['number'] for entry in pictured}, folder)
        made['crops'] = f'where the methods differ most: {report["crops"]["rule"]}'
    return made


def _whole_frames(plan: Plan, names: Iterable[str], crop: Crop) -> dict[str, np.ndarray]:
    """Returns method -> its restored frame, with the ground truth last; uint8 BGR."""
    frames = {name: cv2.imread(str(plan.methods[name].folder.frame(crop.clip, crop.name))) for name in names}
    dataset = build_dataset(next(iter(plan.methods.values())).test_set)
    index = dataset.data_info['folder'].index(crop.clip) + crop.frame
    return {**frames, 'Ground truth': tensor2img(dataset[index]['gt'])}


def training_budget(method: Method, record: Mapping | None) -> dict | None:
    """Returns the budget of a finished training.

    Args:
        method: The method; its options are those that were run, as records are kept only for them.
        record: The training record, as returned by :func:`~dblr_plugin.benchmark.training.trained`.

    Returns:
        Its own ``iterations``, the total ``batch`` of all processes (None if their number changed on resuming), the
        initial ``lr``, ``crop``, ``starts_from`` and ``seconds``; None if nothing was trained here.
    """
    if method.train is None or not record:
        return None
    train, train_set = method.train['train'], method.train['datasets']['train']
    processes = record['processes']
    return {
        'iterations': train['total_iter'],
        'batch': processes and train_set['batch_size_per_gpu'] * processes,
        'lr': train['optim_g']['lr'],
        'crop': train_set['gt_size'],
        'starts_from': method.start or method.train['path'].get('pretrain_network_g'),
        'seconds': record['seconds'],
    }


def total_iterations(method: Method, methods: Mapping[str, Method]) -> int | None:
    """Iterations behind a method's weights, including those it starts from; None if not all are known."""
    if method.train is None:
        return None
    own = method.train['train']['total_iter']
    if method.start is None:
        return own if method.train['path'].get('pretrain_network_g') is None else None
    before = total_iterations(methods[method.start], methods)
    return None if before is None else before + own


def kept_rates(methods: list[Method]) -> str | None:
    """One line on methods with a batch size changed by the benchmark file but not the learning rate; None if none."""
    kept = [method for method in methods if BATCH in method.changes and RATE not in method.changes]
    if not kept:
        return None
    batches = {m.name: (m.changes[BATCH], m.training['datasets']['train']['batch_size_per_gpu']) for m in kept}
    named = ', '.join(f'{name} ({before} to {after})' for name, (before, after) in batches.items())
    return f'Batch size for each process changed, and learning rate kept that belongs to the one before: {named}.'
