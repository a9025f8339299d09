"""docs/your_own_method.md, done as it stands."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from processes import dblr

from dblr_plugin.link import options_folder

PAGE = Path(__file__).resolve().parents[2] / 'docs/your_own_method.md'


@pytest.mark.slow
def test_the_page_does_what_it_says(footage: Path, tmp_path: Path) -> None:
    """Its files are saved under the names it gives, its commands run; small footage stands for the demo's clips."""
    blocks = re.findall(r'^```(\w+)\n(.*?)^```', PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / 'options').symlink_to(options_folder())
    (tmp_path / 'datasets').mkdir()
    (tmp_path / 'datasets/demo').symlink_to(footage)
    names = re.findall(r'Save this as `([\w.]+)`', PAGE.read_text())
    for name, (_, content) in zip(names, [b for b in blocks if b[0] != 'bash'], strict=True):
        (tmp_path / name).write_text(content)
    commands = [content.strip() for kind, content in blocks if kind == 'bash']
    assert commands.pop(0) == 'python scripts/demo_clips.py'
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program == 'dblr'
        done = dblr(*arguments, cwd=tmp_path, timeout=900)
        assert done.returncode == 0, done.stdout + done.stderr
    blurry, own = json.loads((tmp_path / 'benchmarks/mine/report.json').read_text())['methods']
    assert own['figures']['psnr_basicsr'] > blurry['figures']['psnr_basicsr'] + 0.5  # it has learnt something
    assert own['figures']['parameters'] == 15 * 16 * 25 + 16 * 16 * 9 + 16 * 3 * 9 + 16 + 16 + 3
    for path in re.findall(r'`((?:benchmarks|experiments)/[^`]+)`', PAGE.read_text()):
        assert (tmp_path / path.replace('\n', '')).is_file()
    tested = json.loads((tmp_path / 'results/mine_Sharpener_test/metrics.json').read_text())
    assert tested[0]['mean']['psnr'] == own['figures']['psnr_basicsr']
