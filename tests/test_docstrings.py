"""The examples of docstrings say what is so."""

import doctest
import importlib
from pathlib import Path

import pytest

import dblr_plugin

PACKAGE = Path(dblr_plugin.__file__).parent
MODULES = [path for path in sorted(PACKAGE.rglob('*.py')) if '>>> ' in path.read_text(encoding='utf-8')]


@pytest.mark.parametrize('path', MODULES, ids=lambda path: path.stem)
def test_examples(path):
    name = '.'.join(path.relative_to(PACKAGE.parent).with_suffix('').parts)
    assert doctest.testmod(importlib.import_module(name)).failed == 0
