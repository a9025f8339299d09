"""Every damaged input is refused with one line that names it: no traceback, no hang, no incomplete output."""

from __future__ import annotations

import io
import os
import re
import subprocess
from functools import partial
from random import Random

import cv2
import numpy as np
import pytest
from cases import Case, Desk, complaints
from corpus_checkpoints import checkpoints, skipped_states
from corpus_databases import databases
from corpus_deblur import deblur, deblur_tolerated
from corpus_frames import frames, unusual_frames
from corpus_lists import lists
from corpus_options import options, random_change
from corpus_places import places
from corpus_sources import sources
from mutations import ENDS_OF_IMAGES, INSIDE_OF_PNG, UNUSUAL_IMAGES, Damage
from PIL import Image
from processes import dblr, run_python, write_options

from dblr_plugin.errors import DBLRError
from dblr_plugin.link import option_files
from dblr_plugin.options.option_file import check_option_file
from dblr_plugin.yaml_file import read_option_file

CORPUS = [*frames(), *databases(), *checkpoints(), *lists(), *sources(), *options(), *places(), *deblur()]
TOLERATED = [*skipped_states(), *unusual_frames(), *deblur_tolerated()]


def of_name(case: Case) -> str:
    return case.name


def run(case: Case, desk: Desk, freshly: bool = False) -> tuple[subprocess.CompletedProcess, list[str]]:
    """Runs a case, in a new process or in a fork of a warm one; returns its result and what is wrong with it."""
    arguments = case.spoil(desk)
    before = desk.content()
    start = partial(run_python, '-m', 'dblr_plugin') if freshly else dblr
    result = start(*arguments, cwd=desk.cwd, timeout=60)
    return result, complaints(case, desk, result, before)


#: Some cases are also run in a new process, to check that forks of a warm process behave alike
FRESH = list({case.name.split('-')[0]: case for case in reversed(CORPUS)}.values())[::18]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    cases = {test_damaged_input_is_refused: CORPUS, test_tolerated_as_documented: TOLERATED}.get(metafunc.function)
    if cases:
        thorough = metafunc.config.getoption('thorough')
        metafunc.parametrize('case', [case for case in cases if thorough or not case.again], ids=of_name)


def test_damaged_input_is_refused(case: Case, desk: Desk) -> None:
    result, found = run(case, desk)
    assert not found, result.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize('case', FRESH, ids=of_name)
def test_damaged_input_is_refused_by_a_new_process(case: Case, desk: Desk) -> None:
    result, found = run(case, desk, freshly=True)
    assert not found, result.stderr[-3000:]


def test_tolerated_as_documented(case: Case, desk: Desk) -> None:
    """Damaged states are skipped with a warning, and rare kinds of images are read."""
    result, _ = run(case, desk)
    assert result.returncode == 0, result.stderr[-3000:]
    assert all(culprit in result.stderr for culprit in case.culprits), result.stderr[-3000:]
    assert 'Traceback' not in result.stdout + result.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason='root may read everything')
@pytest.mark.parametrize('what', ['frame', 'clip', 'root'])
def test_unreadable_input_is_refused(what: str, desk: Desk) -> None:
    path = {'frame': desk.frame(), 'clip': desk.frame().parent, 'root': desk.clips / 'lq'}[what]

    def spoil(desk: Desk) -> list[object]:
        path.chmod(0)
        return desk.train(desk.clips / 'lq', desk.clips / 'gt')

    try:
        result, found = run(Case(what, spoil, (path.name,)), desk)
    finally:
        path.chmod(0o755)
    assert not found, result.stderr


@pytest.mark.parametrize('path', option_files(), ids=lambda path: path.name)
def test_changed_option_file_is_valid_or_refused(path, tmp_path) -> None:
    """Each fault is reported in one line. Random changes may be valid, so that they are not in the corpus."""
    rng = Random(path.name)
    refused = 0
    for _ in range(10):
        found = read_option_file(path).plain()
        random_change(found, rng)
        file = write_options(tmp_path / 'options.yml', found)
        try:
            check_option_file(file, is_train='test' not in path.name)
        except DBLRError as error:
            refused += 1
            lines = str(error).split('\n  ')
            assert len(lines) == 1 or re.match(r'\d+ faults in the options:', lines.pop(0))
            assert all(line.startswith(f'{file}') and '\n' not in line for line in lines)
    assert refused >= 3


class TestMutations:
    """Pillow confirms what the corpus assumes about damaged images."""

    @pytest.fixture
    def picture(self) -> np.ndarray:
        noise = np.random.default_rng(0).integers(0, 256, (48, 48, 3), np.uint8)
        return cv2.GaussianBlur(noise, (0, 0), 1.2)

    @pytest.mark.parametrize('kind', (ENDS_OF_IMAGES | INSIDE_OF_PNG).values(), ids=lambda kind: kind.__name__)
    @pytest.mark.parametrize('seed', range(5))
    def test_damage_makes_images_undecodable(self, picture: np.ndarray, kind: Damage, seed: int) -> None:
        assert self.decoded(kind(cv2.imencode('.png', picture)[1].tobytes(), Random(seed))) != (48, 48)

    @pytest.mark.parametrize('kind', UNUSUAL_IMAGES.values(), ids=lambda kind: kind.__name__)
    def test_unusual_images_are_decodable(self, picture: np.ndarray, kind: Damage) -> None:
        assert self.decoded(kind(cv2.imencode('.png', picture)[1].tobytes(), Random(0))) == (48, 48)

    @staticmethod
    def decoded(data: bytes) -> tuple[int, int] | None:
        try:
            with Image.open(io.BytesIO(data)) as image:
                image.load()
                return image.size
        except Exception:  # plugins of Pillow raise many kinds
            return None


def test_case_names_are_unique() -> None:
    for cases in (CORPUS, TOLERATED):
        assert len({case.name for case in cases}) == len(cases)
