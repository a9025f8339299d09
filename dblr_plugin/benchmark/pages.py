"""Writes a report as Markdown and CSV, both from the contents of ``report.json``."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from dblr_plugin.evaluation.metrics import find_metric

__all__ = ['MEASURED', 'Column', 'best_of', 'cell', 'columns_of', 'csv_page', 'markdown_page', 'markdown_table']

#: Status of a method with figures in the report.
MEASURED = 'measured'


def columns_of(report: Mapping) -> list[Column]:
    """The columns of the main table that have any figures."""
    several = len(report['protocols']) > 1
    columns = [
        _column_of(metric, f'{metric}_{protocol}', f', {protocol}' if several else '')
        for protocol in report['protocols']
        for metric in report['metrics']
    ]
    height, width = report['size']
    columns += [
        *(_column_of(metric, metric) for metric in ('lpips', 'warping_error')),
        Column('parameters', 'Parameters (M)', lambda value: f'{value / 1e6:.3f}', 'lower'),
        Column('macs', f'MACs, {width}x{height} (G)', lambda value: f'{value / 1e9:.1f}', 'lower'),
        Column('ms', f'Time, {width}x{height} (ms)', _three_digits, 'lower'),
        Column('peak_bytes', 'Memory (MB)', lambda value: f'{value / 1e6:.0f}', 'lower'),
        Column('total_iterations', 'Iterations', '{:.0f}'.format),
        Column('batch', 'Batch', '{:.0f}'.format),
        Column('lr', 'Learning rate', '{:g}'.format),
    ]
    figures = [entry['figures'] for entry in report['methods']]
    return [column for column in columns if any(row.get(column.key) is not None for row in figures)]


def _column_of(name: str, key: str, suffix: str = '') -> Column:
    metric = find_metric(name)
    unit = f' ({metric.unit})' if metric.unit else ''
    title = f'{metric.title}{suffix}{unit}'
    return Column(key, title, lambda value: f'{value * metric.scale:.{metric.digits}f}', metric.better)


def _three_digits(value: float) -> str:
    return f'{value:.3g}' if value < 1000 else f'{value:.0f}'


def csv_page(report: dict) -> str:
    """CSV with one row per method: figures with full precision, then PSNR and SSIM of every clip."""
    keys = ['method', 'status', 'reason', *(column.key for column in columns_of(report))]
    rows = []
    for entry in report['methods']:
        clips = {
            f'{metric}_{protocol} {clip}': value
            for protocol, scores in entry['clips'].items()
            for clip, values in scores.items()
            for metric, value in values.items()
        }
        keys += [key for key in clips if key not in keys]
        own = {'method': entry['name'], 'status': entry['status'], 'reason': entry['reason']}
        rows.append({**own, **entry['figures'], **clips})
    text = io.StringIO()
    writer = csv.DictWriter(text, keys, extrasaction='ignore', lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def markdown_page(report: dict) -> str:
    """The report as a Markdown page with its plots."""
    test = report['data_set']['test']
    meanings = [f'Protocol {name}: {meaning}.' for name, meaning in report['protocols'].items()]
    parts = [f'# {report["name"]}', f'Tested on {test["name"]} (`{test["dataroot_lq"]}`). ' + ' '.join(meanings)]
    parts += [_main_table(report), _failures(report)]
    parts += [_picture(report, 'psnr_macs'), _picture(report, 'psnr_time')]
    if 'clips' in report['plots']:
        parts += ['## Clips', _clips_table(report), _picture(report, 'clips')]
    if 'crops' in report['plots']:
        rule = report['crops']['rule']
        parts += ['## Crops', f'Shown: {rule}. PSNR is that of the crop.', _picture(report, 'crops')]
    if any(entry['training'] for entry in report['methods']):
        parts += ['## Training', _training_table(report), _picture(report, 'training')]
    if report['quoted']:
        parts += ['## Quoted, not measured here', *_quoted_tables(report['quoted'])]
    parts += ['## How it was measured', '\n'.join(f'- {note}' for note in report['notes'])]
    parts += ['## Provenance', *_provenance_parts(report)]
    return '\n\n'.join(filter(None, parts)) + '\n'


def _main_table(report: dict) -> str:
    columns, rows = columns_of(report), []
    computing = [entry['figures'] for entry in report['methods'] if entry['figures'].get('macs') != 0]
    best = {column.key: best_of(column, (row.get(column.key) for row in computing)) for column in columns}
    for entry in report['methods']:
        if entry['status'] != MEASURED:
            rows.append([entry['name'], entry['status'], *[''] * (len(columns) - 1)])
            continue
        own_best = best if entry['figures']['macs'] != 0 else {}
        cells = [cell(column, entry['figures'].get(column.key), own_best.get(column.key)) for column in columns]
        rows.append([entry['name'], *cells])
    truth = report['truth']['warping_error']
    if truth is not None:
        cells = [cell(column, truth, None) if column.key == 'warping_error' else '' for column in columns]
        rows.append(['*Ground truth*', *cells])
    titles = [column.title for column in columns] or ['']  # if nothing was measured, rows still have a status
    return markdown_table(['Method', *titles], rows)


def _failures(report: dict) -> str:
    return '\n'.join(f'- {e["name"]} {e["status"]}: {e["reason"]}' for e in report['methods'] if e['reason'])


def _clips_table(report: dict) -> str:
    """PSNR / SSIM under the first protocol, one column per clip."""
    protocol = next(iter(report['protocols']))
    scored = {e['name']: e['clips'][protocol] for e in report['methods'] if e['status'] == MEASURED}
    clips = list(next(iter(scored.values())))
    rows = [
        [name, *(f'{float(scores[clip]["psnr"]):.2f} / {float(scores[clip]["ssim"]):.4f}' for clip in clips)]
        for name, scores in scored.items()
    ]
    return f'PSNR (dB) / SSIM, {protocol}.\n\n' + markdown_table(['Method', *clips], rows)


def _training_table(report: dict) -> str:
    rows = []
    for entry in report['methods']:
        budget = entry['training']
        if budget:
            shown = (budget['iterations'], budget['crop'], budget['starts_from'] or '–')
            rows.append([entry['name'], *map(str, shown), f'{budget["seconds"] / 60:.1f}'])
    return markdown_table(['Method', 'Own iterations', 'Crop', 'Starts from', 'Minutes'], rows)


def _quoted_tables(quoted: dict) -> list[str]:
    parts = [
        f'Published scores on {quoted["data_set"]}, as their sources give them. Compare them with measured ones only '
        'where data and protocol are the same.'
    ]
    for table in quoted['tables']:
        rows = [
            [figure['method'], f'{figure["psnr"]:.2f}', '–' if figure['ssim'] is None else f'{figure["ssim"]:.4f}']
            for figure in table['figures']
        ]
        note = f' Note: {table["note"]}.' if table['note'] else ''
        parts += [f'Source: {table["source"]}. Protocol: {table["protocol"]}.{note}']
        parts += [markdown_table(['Method (quoted)', 'PSNR (dB)', 'SSIM'], rows)]
    return parts


def _provenance_parts(report: dict) -> list[str]:
    held = report['provenance']
    machine = held['machine']
    memory = f'{machine["memory"] / 2**30:.0f} GiB'
    lines = [
        f'- Device: {held["device"]}; {machine["processor"]}, {machine["cores"]} cores, {memory}; {machine["system"]}',
        '- Versions: ' + ', '.join(f'{name} {version}' for name, version in held['versions'].items()),
        f'- Commit: {held["commit"] or "none"}',
        *(f'- Data, {name}: `{d["path"]}`, SHA-256 of {d["of"]} `{d["sha256"]}`' for name, d in held['data'].items()),
    ]
    files = markdown_table(['File', 'SHA-256'], ([f'`{f["path"]}`', f'`{f["sha256"]}`'] for f in held['files']))
    own = [command for entry in report['methods'] for command in entry['commands']]
    commands = ['```bash', *held['commands'], '```', 'Each method by itself:', '```bash', *own, '```']
    return ['\n'.join(lines), files, 'The whole report:', '\n'.join(commands)]


def _picture(report: dict, name: str) -> str:
    """Embeds a plot in both themes; GitHub shows the one matching the reader's colour scheme. Empty if not drawn."""
    if name not in report['plots']:
        return ''
    path, text = f'plots/{name}', report['plots'][name]
    return (
        f'<picture>\n  <source media="(prefers-color-scheme: dark)" srcset="{path}_dark.png">\n'
        f'  <img alt="{text}" src="{path}_light.png">\n</picture>'
    )


@dataclass(frozen=True)
class Column:
    """A column of figures.

    Attributes:
        key: Key of the figures in rows and of the CSV column.
        title: Title in Markdown.
        shown: Formats a figure for Markdown.
        better: Whether higher or lower figures are better, if either.
    """

    key: str
    title: str
    shown: Callable[[float], str]
    better: Literal['higher', 'lower'] | None = None


def best_of(column: Column, values: Iterable[float | str | None]) -> float | None:
    """The best of a column's figures; None if there are fewer than two."""
    numbers = [float(value) for value in values if value is not None and not math.isnan(float(value))]
    if column.better is None or len(numbers) < 2:
        return None
    return max(numbers) if column.better == 'higher' else min(numbers)


def cell(column: Column, value: float | str | None, best: float | None) -> str:
    """Formats a figure in Markdown: bold if it reads the same as the best one, a dash if there is none."""
    if value is None:
        return '–'
    text = _shown(column, float(value))  # JSON has infinity as a string
    return f'**{text}**' if best is not None and text == _shown(column, best) else text


def _shown(column: Column, number: float) -> str:
    return '∞' if number == math.inf else column.shown(number)


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table with a left-aligned first column and all others right-aligned; bars in cells are escaped."""
    lines = ['| ' + ' | '.join(text.replace('|', '\\|') for text in cells) + ' |' for cells in (head, *rows)]
    return '\n'.join([lines[0], '|:--|' + '--:|' * (len(head) - 1), *lines[1:]])
