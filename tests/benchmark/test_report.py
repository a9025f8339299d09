"""The report: the same numbers in Markdown, CSV and JSON, everything it promises, and files that are there."""

from __future__ import annotations

import csv
import re

import pytest
from tiny_benchmark import Ran

from dblr_plugin.benchmark.pages import Column, best_of, cell, columns_of
from dblr_plugin.evaluation.protocols import PROTOCOLS

pytestmark = pytest.mark.slow


def tables(text: str) -> list[list[list[str]]]:
    """All tables of a Markdown page, as cells."""
    found = re.findall(r'(?:^\|.*\|\n?)+', text, re.MULTILINE)
    split = [[re.split(r'(?<!\\)\|', line)[1:-1] for line in table.splitlines()] for table in found]
    return [[[text.strip() for text in row] for row in table if set(row[0]) - set(':-')] for table in split]


@pytest.fixture(scope='module')
def page(ran: Ran) -> str:
    return (ran.folder / 'report.md').read_text()


@pytest.fixture(scope='module')
def rows(ran: Ran) -> list[dict]:
    with open(ran.folder / 'report.csv', newline='') as file:
        return list(csv.DictReader(file))


def test_markdown_csv_and_json_agree(ran: Ran, page: str, rows: list[dict]) -> None:
    report, (head, *lines) = ran.report, tables(page)[0]
    columns = columns_of(report)
    assert head == ['Method', *(column.title for column in columns)]
    assert [row['method'] for row in rows] == [entry['name'] for entry in report['methods']]
    for line, row, entry in zip(lines, rows, report['methods'], strict=False):
        assert line[0].replace('\\|', '|') == entry['name']
        assert row['status'] == entry['status']
        if entry['status'] != 'measured':
            assert line[1] == 'failed' and row['reason'] == entry['reason']
            continue
        for text, column in zip(line[1:], columns, strict=True):
            value = entry['figures'][column.key]
            if value is None:
                assert row[column.key] == '' and text == '–'
                continue
            assert float(row[column.key]) == value
            assert text.strip('*') == column.shown(value)
        for clip, values in entry['clips']['vrt-matlab'].items():
            assert float(row[f'ssim_vrt-matlab {clip}']) == values['ssim']


def test_clips_are_told_one_by_one(ran: Ran, page: str) -> None:
    head, *lines = tables(page)[1]
    assert head == ['Method', 'v', 'w']
    measured = [entry for entry in ran.report['methods'] if entry['status'] == 'measured']
    for line, entry in zip(lines, measured, strict=True):
        scores = entry['clips']['basicsr'].values()
        assert line[1:] == [f'{scores["psnr"]:.2f} / {scores["ssim"]:.4f}' for scores in scores]


def test_best_is_bold_among_those_that_compute(ran: Ran, page: str) -> None:
    head, *lines = tables(page)[0]
    entries = [entry for entry in ran.report['methods'] if entry['status'] == 'measured']
    assert not any('**' in text for text in lines[0])  # the blurry input, which is best in all of them
    for column, key in (('PSNR, basicsr (dB)', 'psnr_basicsr'), ('Warping error (10⁻³)', 'warping_error')):
        pick = max if key.startswith('psnr') else min
        best = pick(entries[1:], key=lambda entry: entry['figures'][key])
        bold = {line[0].replace('\\', '') for line in lines if '**' in line[head.index(column)]}
        assert best['name'] in bold


def test_cells() -> None:
    column = Column('psnr', 'PSNR', '{:.2f}'.format, 'higher')
    assert best_of(column, [28.1, None, 30.204, 'inf']) == float('inf')
    assert best_of(column, [28.1, None]) is None  # nothing to compare with
    assert cell(column, 30.204, 30.204) == '**30.20**'
    assert cell(column, 30.201, 30.204) == '**30.20**'  # shown alike, so bold alike
    assert cell(column, None, 30.2) == '–'
    assert cell(column, 'inf', None) == '∞' and cell(column, 'inf', float('inf')) == '**∞**'
    assert cell(column, 'nan', None) == 'nan' and best_of(column, ['nan', 28.1, 30.2]) == 30.2


def test_quoted_figures_stand_apart(ran: Ran, page: str) -> None:
    quoted = page.split('## Quoted, not measured here')[1].split('\n## ')[0]
    assert 'Su et al., Deep Video Deblurring for Hand-held Cameras, CVPR 2017. Protocol: dvd-official.' in quoted
    assert ['DBN', '30.05', '–'] in tables(quoted)[0]
    assert '30.05' not in page.replace(quoted, '')


def test_pictures_are_there_in_both_schemes(ran: Ran, page: str) -> None:
    pictures = re.findall(
        r'<picture>\n  <source media="\(prefers-color-scheme: dark\)" srcset="(plots/\w+_dark\.png)">\n'
        r'  <img alt="[^"]+" src="(plots/\w+_light\.png)">\n</picture>',
        page,
    )
    names = ['psnr_macs', 'psnr_time', 'clips', 'crops', 'training']
    assert pictures == [(f'plots/{name}_dark.png', f'plots/{name}_light.png') for name in names]
    assert all((ran.folder / path).stat().st_size > 1000 for pair in pictures for path in pair)


def test_it_says_how_and_by_what(ran: Ran, page: str) -> None:
    assert f'Protocol vrt-matlab: {PROTOCOLS["vrt-matlab"].meaning}.' in page
    assert 'dblr train -opt benchmarks/tiny/Net/train.yml' in page
    assert 'dblr benchmark -opt tiny.yml' in page
    assert '- Theirs | with a bar was not trained here: its weights are theirs.pth.' in page
    for file in ran.report['provenance']['files']:
        assert f'| `{file["path"]}` | `{file["sha256"]}` |' in page
    (net,) = tables(page.split('## Training')[1])[0][1:]  # Broken did not finish
    assert net[:4] == ['Net', '60', '32', '–']


def test_figures_stand_beside_the_budget_they_come_from(ran: Ran, page: str, rows: list[dict]) -> None:
    budgets = {row['method']: (row['total_iterations'], row['batch'], row['lr']) for row in rows}
    assert budgets.pop('Net') == ('60', '2', '0.0001')  # the batch of the benchmark file, the rate of the option file
    assert len(budgets) == 3 and set(budgets.values()) == {('', '', '')}  # no network, a failure, a bare checkpoint
    head, *lines = tables(page)[0]
    shown = {line[0]: line[head.index('Iterations') :] for line in lines}
    assert shown['Net'] == ['60', '2', '0.0001']
    assert re.findall(r'^- Batch size .* learning rate kept .*: (.*)\.$', page, re.MULTILINE) == ['Net (4 to 2)']
