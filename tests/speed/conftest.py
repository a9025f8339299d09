"""Makes measurements small (one round after the first) and checks that they leave no temporary files."""

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import jsonschema
import pytest

from dblr_plugin.benchmark import timing

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / 'scripts/speed'))  # the programs import each other


def texts(part: object) -> Iterator[str]:
    """Yields the text of each variant in a report."""
    if isinstance(part, dict):
        yield from [part['text']] if 'text' in part else []
        part = list(part.values())
    if isinstance(part, list):
        for inner in part:
            yield from texts(inner)


@pytest.fixture(autouse=True)
def _quick(monkeypatch, tmp_path):
    (tmp_path / 'temporary').mkdir()
    monkeypatch.setattr('tempfile.tempdir', str(tmp_path / 'temporary'))
    monkeypatch.setattr(timing, 'MIN_ROUNDS', 1)
    monkeypatch.setattr(importlib.import_module('limits'), 'SIDE', {'cpu': 64})
    yield
    left = list((tmp_path / 'temporary').glob('dblr_*'))  # not torch's, which keeps a cache there
    assert left == [], 'temporary files are left'


@pytest.fixture(scope='session')
def fits_schema() -> Callable[[dict], None]:
    """Raises unless a report is valid by ``docs/speed/schema.json``."""
    schema = json.loads((ROOT / 'docs/speed/schema.json').read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema).validate


@pytest.fixture
def bench(tmp_path, fits_schema, capsys) -> Callable[..., dict]:
    """Runs a speed program and returns its report, after checking its schema and that all variants are printed."""

    def run(name: str, *arguments: str) -> dict:
        path = tmp_path / 'figures.json'
        importlib.import_module(name).main([*arguments, '--seconds', '0', '--json', str(path)])
        report = json.loads(path.read_text())
        assert report['schema'] == f'dblr_bench_{name}/1'
        fits_schema(report)
        found = {line.split(' | ')[0].removeprefix('| ') for line in capsys.readouterr().out.splitlines()}
        assert found >= set(texts(report))
        return report

    return run
