"""Damaged option files: the shipped ones with an invalid change, and impossible values."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from random import Random

import yaml
from cases import Case, Desk
from mutations import ANY_FILE, damage

from dblr_plugin.link import option_files

__all__ = ['options', 'random_change']

#: Required in every file
_REQUIRED = ('name', 'model_type', 'num_gpu', 'datasets', 'network_g', 'path', 'network_g.type', 'val.save_img')
#: Sections whose keys are free names
_FREE = ('datasets', 'val.metrics')

#: Returns the changed text of an option file and what the message must name
Change = Callable[[str, Random], tuple[str, str]]


def options() -> Iterator[Case]:
    """Yields three changes of each shipped file, invalid files, invalid values, then arguments."""
    changes = itertools.cycle(_CHANGES)
    for path in (path for path in option_files() if '\nbase: ' not in path.read_text(encoding='utf-8')):
        for number, change in enumerate(itertools.islice(changes, 3)):
            text, culprit = change(path.read_text(encoding='utf-8'), Random(f'{path.name} {change.__name__}'))
            spoil = partial(_text, path.name, text)
            yield Case(f'yaml-{path.stem}-{change.__name__}', spoil, (path.name, culprit), again=number > 0)
    for name, kind in ANY_FILE.items():
        yield Case(f'yaml-{name}', partial(_damaged, kind), ('options.yml',))
    for name, text in _TEXTS.items():
        yield Case(f'yaml-{name}', partial(_appended, text), ('options.yml',))
    for name, (trail, value) in _VALUES.items():
        spoil, is_seen_late = partial(_value, trail, value), trail.startswith('val.metrics')
        culprit = trail.split('.')[-1].removesuffix('s')  # torch names one of the betas
        yield Case(f'value-{name}', spoil, (culprit,), trained=is_seen_late)
    for name, (arguments, culprit) in _ARGUMENTS.items():
        yield Case(f'argument-{name}', partial(_arguments, arguments), (culprit,))


def _text(name: str, text: str, desk: Desk) -> list[object]:
    (desk.inputs / name).write_text(text, encoding='utf-8')
    return ['test' if 'test' in name else 'train', '-opt', desk.inputs / name]


def _damaged(kind, desk: Desk) -> list[object]:
    argv = desk.train()
    damage(desk.inputs / 'options.yml', kind)
    return argv


def _appended(text: bytes, desk: Desk) -> list[object]:
    argv = desk.train()
    path = desk.inputs / 'options.yml'
    path.write_bytes(path.read_bytes() + text)
    return argv


def _value(trail: str, value: object, desk: Desk) -> list[object]:
    return desk.train(changes={trail: value})


def _arguments(arguments: list[str], desk: Desk) -> list[object]:
    return [*desk.train(), *arguments]


# ---------------------------------------------------------------------- changes to any file


def _keys(section: dict, trail: str = '') -> Iterator[tuple[dict, str, str]]:
    """Yields all keys as (section that holds it, key, ``a.b.c``)."""
    for key, value in section.items():
        name = f'{trail}.{key}' if trail else key
        yield section, key, name
        if isinstance(value, dict):
            yield from _keys(value, name)


def _chosen(found: dict, rng: Random, leaf: bool = False) -> tuple[dict, str, str]:
    return rng.choice(
        [
            (section, key, trail)
            for section, key, trail in _keys(found)
            if trail.rpartition('.')[0] not in _FREE and not (leaf and isinstance(section[key], dict))
        ]
    )


def _dumped(found: dict) -> str:
    return yaml.safe_dump(found, sort_keys=False)


def key_renamed(text: str, rng: Random) -> tuple[str, str]:
    """An unknown key."""
    found = yaml.safe_load(text)
    section, key, _ = _chosen(found, rng)
    section[f'{key}_z'] = section.pop(key)
    return _dumped(found), key  # the missing key may be reported before the unknown one


def key_doubled(text: str, rng: Random) -> tuple[str, str]:
    """A repeated line."""
    lines = text.splitlines()
    number = rng.choice([n for n, line in enumerate(lines) if line.partition(': ')[2].strip() and '#' not in line])
    lines.insert(number, lines[number])
    return '\n'.join(lines), f'{lines[number].strip().partition(":")[0]}'


def key_removed(text: str, rng: Random) -> tuple[str, str]:
    """A missing required key."""
    found = yaml.safe_load(text)
    *sections, key = rng.choice(_REQUIRED).split('.')
    section = found
    for name in sections:
        section = section[name]
    del section[key]
    return _dumped(found), key


def section_in_place_of_value(text: str, rng: Random) -> tuple[str, str]:
    """A section in place of a plain value."""
    found = yaml.safe_load(text)
    section, key, trail = _chosen(found, rng, leaf=True)
    section[key] = {'nonsense': section[key]}
    return _dumped(found), trail.split('.')[0]


def key_one_level_deeper(text: str, rng: Random) -> tuple[str, str]:
    """A top-level key within a section."""
    found = yaml.safe_load(text)
    key = rng.choice([key for key in found if key != 'network_g'])
    found['network_g'][key] = found.pop(key)
    return _dumped(found), key


def cut(text: str, rng: Random) -> tuple[str, str]:
    """A truncated file without its last sections."""
    return text[: rng.randrange(len(text) // 10, len(text) * 6 // 10)], '.yml'


def tab_in_indentation(text: str, rng: Random) -> tuple[str, str]:
    """A tab in place of two spaces."""
    lines = text.splitlines()
    number = rng.choice([n for n, line in enumerate(lines) if line.startswith('  ') and line.strip()[0] != '#'])
    lines[number] = '\t' + lines[number][2:]
    return '\n'.join(lines), '.yml'


_CHANGES: tuple[Change, ...] = (
    key_renamed, key_doubled, key_removed, section_in_place_of_value, key_one_level_deeper, cut, tab_in_indentation,
)  # fmt: skip


def random_change(found: dict, rng: Random) -> str:
    """Removes a key or gives it any value; returns ``a.b.c``. The options may still be valid."""
    section, key, trail = rng.choice(list(_keys(found)))
    if rng.random() < 0.3:
        del section[key]
    else:
        section[key] = rng.choice(_ANY_VALUES)
    return trail


_ANY_VALUES = (
    None, True, False, 0, 1, -1, 7, 0.5, float('inf'), float('nan'), '', 'x', '~', '1e-4', 'a/b', '..',
    'ä' * 300, [], [1], [1, 'x'], [[1]], {}, {'type': 'Adam'}, {'type': 1}, {1: 2},
)  # fmt: skip

# ---------------------------------------------------------------------- invalid YAML

_TEXTS = {
    'nul': b'\nuse\0less: 1\n',
    'not_utf8': b'\n# gr\xf6\xdfe\n',
    'no_such_day': b'\nname_of_day: 2024-99-99\n',
    'no_number': b'\nmanual: !!int twelve\n',
    'no_float': b'\nmanual: !!float twelve\n',
    'number_of_5000_digits': b'\nmanual: ' + b'7' * 5000 + b'\n',
    'python_object': b'\nmanual: !!python/object/apply:os.getcwd []\n',
    'unknown_tag': b'\nmanual: !secret 5\n',
    'unknown_alias': b'\nmanual: *nothing\n',
    'alias_of_itself': b'\nmanual: &m {m: *m}\n',
    'merge_of_number': b'\n<<: 5\n',
    'unclosed_bracket': b'\nmanual: [1, 2\n',
    'unclosed_quote': b"\nmanual: 'never ends\n",
    'conflict_of_git': b'\n<<<<<<< HEAD\nnum_gpu: 1\n=======\nnum_gpu: 2\n>>>>>>> other\n',
    'two_documents': b'\n---\nname: second\n',
    'nested_too_deep': b'\nmanual: ' + b'[' * 5000 + b']' * 5000 + b'\n',
    'lone_surrogate': b'\nmanual: "\\ud800"\n',
    'key_of_list': b'\n? [a, b]\n: 1\n',
}

# ---------------------------------------------------------------------- values

_VALUES = {
    'seed_too_large': ('manual_seed', 2**32),
    'seed_huge': ('manual_seed', 10**30),
    'seed_negative': ('manual_seed', -1),
    'ratio_infinite': ('datasets.train.dataset_enlarge_ratio', float('inf')),
    'ratio_nan': ('datasets.train.dataset_enlarge_ratio', float('nan')),
    'ratio_fraction': ('datasets.train.dataset_enlarge_ratio', 0.5),
    'crop_huge': ('datasets.train.gt_size', 10**30),
    'window_huge': ('datasets.train.num_frame', 10**30 + 1),
    'rate_nan': ('train.optim_g.lr', float('nan')),
    'rate_infinite': ('train.optim_g.lr', float('inf')),
    'betas_of_two': ('train.optim_g.betas', [2, 0.9]),
    'betas_nan': ('train.optim_g.betas', [float('nan'), 0.9]),
    'eps_negative': ('train.optim_g.eps', -1.0),
    'decay_negative': ('train.optim_g.weight_decay', -1.0),
    'ema_nan': ('train.ema_decay', float('nan')),
    'clip_nan': ('train.clip_grad_norm', float('nan')),
    'weight_nan': ('train.pixel_opt.loss_weight', float('nan')),
    'features_none': ('network_g.num_feat', 0),
    'groups_unfit': ('network_g.groups', 7),
    'name_too_long': ('name', 'x' * 300),
    'name_of_nul': ('name', 'a\0b'),
    'name_of_path': ('name', '../elsewhere'),
    'set_named_by_path': ('datasets.val.name', '../../elsewhere'),
    'root_of_nul': ('datasets.train.dataroot_lq', 'a\0b'),
    'border_huge': ('val.metrics.psnr.crop_border', 10**6),
    'border_of_half': ('val.metrics.ssim.crop_border', 24),
    'total_of_text': ('train.total_iter', 'many'),
    'milestones_not_sorted': ('train.scheduler.milestones', [500, 100]),
    'resume_of_network': ('path.resume_state', 'net_g_1.pth'),
}

# ---------------------------------------------------------------------- the command line

_ARGUMENTS = {
    'set_without_value': (['--set', 'train.total_iter'], 'total_iter'),
    'set_nothing': (['--set'], '--set'),
    'set_unknown': (['--set', 'train.totl_iter=5'], 'totl_iter'),
    'set_broken_yaml': (['--set', 'train.total_iter=[1'], 'train.total_iter'),
    'set_of_text': (['--set', 'train.total_iter=many'], 'total_iter'),
    'set_below_value': (['--set', 'train.total_iter.x=1'], 'total_iter'),
    'set_no_such_day': (['--set', 'name=2024-99-99'], 'name'),
    'force_unknown': (['--force_yml', 'train:totl_iter=5'], 'totl_iter'),
    'protocol_unknown': (['--protocol', 'psnrr'], 'psnrr'),
    'launcher_unknown': (['--launcher', 'mpirun'], 'mpirun'),
    'unknown': (['--epochs', '5'], '--epochs'),
}
