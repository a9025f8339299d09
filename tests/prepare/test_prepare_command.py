"""``dblr prepare`` as users run it: its output, its required choices and its errors."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
from pathlib import Path

import av
import numpy as np
import pytest
from processes import dblr
from source_trees import Picture, link_frames, numbered

from dblr_plugin.commands import prepare
from dblr_plugin.data import open_store
from dblr_plugin.errors import DBLRError


def run(*arguments: object) -> None:
    """Runs ``dblr prepare`` in this process."""
    parser = argparse.ArgumentParser()
    prepare.add_arguments(parser)
    prepare.run(parser.parse_args([str(argument) for argument in arguments]))


@pytest.fixture
def bsd(tmp_path: Path, picture: Picture) -> Path:
    for part, count in (('train', 100), ('test', 150)):
        for value, side in ((60, 'Blur'), (120, 'Sharp')):
            folder = tmp_path / 'BSD_3ms24ms' / part / '000' / side / 'RGB'
            link_frames(picture(value=value), folder, numbered(count))
    return tmp_path


@pytest.mark.slow
def test_dvd_command_prints_counts_and_progress(dvd_run: tuple[Path, subprocess.CompletedProcess]) -> None:
    tree, result = dvd_run
    assert result.returncode == 0, result.stderr
    assert 'datasets/DVD: dvd, prepared' in result.stdout
    assert '  train     61    5708  yes' in result.stdout and '  test      10    1000  yes' in result.stdout
    assert 'file/s' in result.stderr, 'progress with its rate'
    parts = ['meta_info_test.txt', 'meta_info_train.txt', 'test', 'train']
    assert sorted(os.listdir(tree)) == ['.lock', 'dataset.json', *parts]


def test_single_frame_is_printed_as_singular(tmp_path: Path, picture: Picture, capsys: pytest.CaptureFixture) -> None:
    link_frames(picture(), tmp_path / 'clips/a', numbered(1))
    run('lmdb', tmp_path / 'clips', tmp_path / 'clips.lmdb')
    assert 'clips.lmdb: 1 clip, 1 frame, ' in capsys.readouterr().out


@pytest.mark.slow
def test_video_command_writes_databases_equal_to_the_folders(tmp_path: Path) -> None:
    with av.open(str(tmp_path / 'clip.mp4'), 'w') as container:
        stream = container.add_stream('libx264', rate=25)
        stream.height, stream.width, stream.pix_fmt = 64, 96, 'yuv420p'
        for index in range(24):
            frame = np.roll(np.tile(np.arange(96, dtype=np.uint8)[None, :, None] * 2, (64, 1, 3)), 3 * index, axis=1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format='rgb24')))
        container.mux(stream.encode())
    command = ['prepare', 'video', 'clip.mp4', 'own', '--average', '3', '5', '--in-between', '1', '--lmdb', '--tiles']
    result = dblr(*command, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    for part, side, form in itertools.product(('train', 'test'), ('lq', 'gt'), ('lmdb', 'tiles.lmdb')):
        store, files = (open_store(tmp_path / 'own' / name) for name in (f'{part}_{side}.{form}', f'{part}/{side}'))
        assert store.clips() == files.clips()
        clip, (frame, *_) = next(iter(files.clips().items()))
        assert np.array_equal(store.read(clip, frame), files.read(clip, frame))
    assert 'PSNR of the blurry frames (dB)' in result.stdout and 'train/clip_shot1_average5' in result.stdout
    assert json.loads((tmp_path / 'own/dataset.json').read_text())['recipe']['in_between'] == 1


def test_another_data_set_is_refused_with_the_expected_layout(bsd: Path, tmp_path: Path) -> None:
    layout = r'GOPRO_Large/{train,test}/<sequence>/{blur_gamma,sharp}'
    with pytest.raises(DBLRError, match=f'has no clip of gopro; give the folder that has .the layout is {layout}'):
        run('gopro', bsd, tmp_path / 'out', '--blur', 'blur_gamma')


@pytest.mark.parametrize(
    ('kind', 'message'),
    [
        ('gopro', "--blur is missing.*blur_gamma .*: the authors' standard"),
        ('reds', '--blur is missing.*blur_comp .motion blur and video compression'),
        ('bsd', '--exposure is missing.*1ms8ms; 2ms16ms; 3ms24ms'),
    ],
)
def test_choices_that_scores_depend_on_are_required(kind: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DBLRError, match=message):
        run(kind, tmp_path, tmp_path / 'out')


def test_partial_set_reports_what_was_left_out(bsd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ['bsd', bsd, tmp_path / 'out', '--exposure', '3ms24ms', '--allow-partial', '--copy']
    run(*command)
    out = capsys.readouterr().out
    assert 'bsd 3ms24ms, prepared' in out
    assert 'left out, because of:\n  train has 1 of 60 clips\n  test has 1 of 20 clips' in out
    assert json.loads((tmp_path / 'out/dataset.json').read_text())['placed'] == 'copied'


def test_second_run_reports_that_it_was_complete(
    tmp_path: Path, picture: Picture, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(22):
        link_frames(picture(), tmp_path / f'source/scene{number}/input', numbered(2))
    for words in ('dvd-qualitative, prepared', 'dvd-qualitative, was complete already; verified'):
        run('dvd-qualitative', tmp_path / 'source', tmp_path / 'out')
        assert words in capsys.readouterr().out
