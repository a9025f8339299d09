"""The option files of other data sets differ from DVD's only in names, paths and weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dblr_plugin.link import option_files
from dblr_plugin.yaml_file import read_option_file

ROOTS = {
    'GoPro': 'datasets/GoPro',
    'REDS': 'datasets/REDS',
    'BSD': 'datasets/BSD_3ms24ms',
    'KITTI': 'datasets/KITTI',
    'DVD_qualitative': 'datasets/DVD_qualitative',
}
TRAINABLE = ('GoPro', 'REDS', 'BSD')
DERIVED = [
    *(('train', net, name) for net in ('DBLRNet', 'DBLRGAN') for name in TRAINABLE),
    *(('test', net, name) for net in ('DBLRNet', 'DBLRGAN') for name in ROOTS),
]


def path_of(name: str) -> Path:
    return next(path for path in option_files() if path.name == f'{name}.yml')


def flat(options: dict[str, Any], prefix: str = '') -> dict[str, Any]:
    """Returns ``a.b.c`` -> value of nested options."""
    found: dict[str, Any] = {}
    for key, value in options.items():
        found |= flat(value, f'{prefix}{key}.') if isinstance(value, dict) else {f'{prefix}{key}': value}
    return found


@pytest.mark.parametrize(('part', 'net', 'name'), DERIVED)
def test_options_differ_from_dvd_only_in_names_paths_and_weights(part: str, net: str, name: str) -> None:
    base = flat(read_option_file(path_of(f'{part}_{net}')).plain())
    ours = flat(read_option_file(path_of(f'{part}_{net}_{name}')).plain())
    if name == 'DVD_qualitative':  # without ground truth there is nothing to score
        assert ours.pop('val.metrics') is ours.pop('datasets.test.dataroot_gt') is None
        base = {key: base[key] for key in base if not key.startswith('val.metrics.') and 'dataroot_gt' not in key}
    assert ours.keys() == base.keys()
    changed = {key: ours[key] for key in base if ours[key] != base[key]}
    prefix = 'test_' if part == 'test' else ''
    expected: dict[str, Any] = {'name': f'{prefix}{net}_{name}'}
    for key, value in base.items():
        if '.dataroot_' in key:
            expected[key] = value.replace('datasets/DVD', ROOTS[name])
        elif key.startswith('datasets.') and key.endswith('.name'):
            expected[key] = value.replace('DVD', name).replace('_qualitative-test', '-qualitative')
        elif key == 'path.pretrain_network_g' and value and name in TRAINABLE:
            expected[key] = value.replace('/models', f'_{name}/models')
    assert changed == expected


@pytest.mark.parametrize(('part', 'net', 'name'), DERIVED)
def test_comments_name_the_file_and_the_command_that_prepares_its_data(part: str, net: str, name: str) -> None:
    text = path_of(f'{part}_{net}_{name}').read_text()
    kind = 'dvd-qualitative' if name == 'DVD_qualitative' else name.lower()
    assert f'dblr prepare {kind} SRC {ROOTS[name]}' in text
    assert f'-opt options/{part}_{net}_{name}.yml' in text and f'options/{part}_{net}.yml' not in text


def test_no_option_file_trains_on_a_set_for_testing() -> None:
    names = {path.name for path in option_files()}
    assert (
        not {f'train_{net}_{name}.yml' for net in ('DBLRNet', 'DBLRGAN') for name in ('KITTI', 'DVD_qualitative')}
        & names
    )
