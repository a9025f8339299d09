"""Training and test data share no frames, and no frames are lost."""

from __future__ import annotations

import itertools
import tempfile
from collections import Counter
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dblr_plugin.data.cuts import find_shots
from dblr_plugin.errors import DBLRError
from dblr_plugin.prepare.data_sets import plan_dvd, plan_gopro, plan_reds
from dblr_plugin.prepare.exposures import BlurSettings, exposures, split
from dblr_plugin.prepare.video import prepare_video

recipes = st.builds(
    BlurSettings,
    average=st.lists(st.integers(0, 4).map(lambda half: 2 * half + 1), min_size=1, max_size=2, unique=True).map(tuple),
    stride=st.none() | st.integers(1, 6),
    test_share=st.sampled_from([0.0, 0.1, 0.2, 0.5, 0.9]),
)


def consecutive(lengths: list[int]) -> list[range]:
    """Returns consecutive shots of these lengths."""
    ends = np.cumsum([0, *lengths]).tolist()
    return [range(first, end) for first, end in pairwise(ends)]


@settings(max_examples=200)
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=4), recipe=recipes)
@pytest.mark.slow
def test_split_covers_all_shots_without_overlap(lengths, recipe):
    shots, needed = consecutive(lengths), recipe.least_shot
    spans, skipped = split('video', shots, recipe)
    assert len(skipped) == sum(len(shot) < needed for shot in shots)
    for part in ('train', 'test'):
        names = [span.clip for span in spans if span.part == part]
        assert len(names) == len(set(names))
    parts = {part: {n for span in spans if span.part == part for n in span.frames} for part in ('train', 'test')}
    assert not parts['train'] & parts['test']
    assert parts['train'] | parts['test'] == {n for shot in shots if len(shot) >= needed for n in shot}
    for shot in shots:
        in_shot = [span for span in spans if span.frames[0] in shot]
        assert all(span.frames[-1] in shot for span in in_shot)
        # each exposure length has its own clips, made from the same frames
        assert len(in_shot) == len(recipe.average) * len({span.part for span in in_shot})
        if len(shot) >= needed:
            assert 'train' in {span.part for span in in_shot}
            assert ('test' in {span.part for span in in_shot}) == (
                recipe.test_share > 0
                and len(shot) - max(round(len(shot) * recipe.test_share), max(recipe.average)) >= needed
            )


@settings(max_examples=100)
@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=3), recipe=recipes)
def test_exposures_are_complete_and_regular(lengths, recipe):
    """Exposures are complete, within their span, unique and one stride apart; each training span has a window."""
    spans, _ = split('video', consecutive(lengths), recipe)
    assume(spans)
    frames = (np.full((1, 1, 3), number, np.uint8) for number in range(sum(lengths)))
    made = {span: {} for span in spans}
    for exposure in exposures(frames, spans):
        assert exposure.index not in made[exposure.span]
        made[exposure.span][exposure.index] = [int(frame[0, 0, 0]) for frame in exposure.frames]
    for span, found in made.items():
        made_of = [found[index] for index in range(len(found))]
        assert all(exposure == list(range(exposure[0], exposure[0] + span.average)) for exposure in made_of)
        assert made_of[0][0] == span.frames[0] and made_of[-1][-1] <= span.frames[-1]
        strides = {second[0] - first[0] for first, second in itertools.pairwise(made_of)}
        assert len(strides) <= 1 and strides <= {recipe.stride, *(() if recipe.stride else range(1, span.average + 1))}
        assert len(made_of) >= (5 if span.part == 'train' else 1)


@given(segments=st.lists(st.tuples(st.integers(3, 30), st.integers(7, 200)), min_size=1, max_size=5), data=st.data())
def test_cuts_between_still_shots_are_found(segments, data):
    """Shots cover all frames; a still shot ends where the frame changes by more than the threshold."""
    level, levels = 0, []
    for count, jump in segments:
        level = (level + jump) % 256 if abs((level + jump) % 256 - level) > 6 else level + jump
        levels += [level] * count
    small = [np.full((18, 32), value, np.float32) for value in levels]
    shots = find_shots(small)
    assert [number for shot in shots for number in shot] == list(range(len(levels)))
    assert [len(shot) for shot in shots] == [count for count, _ in segments]


@given(levels=st.lists(st.integers(0, 255), max_size=40))
def test_shots_contain_all_frames(levels):
    shots = find_shots([np.full((18, 32), value, np.float32) for value in levels])
    assert [number for shot in shots for number in shot] == list(range(len(levels)))


@settings(max_examples=30)
@given(
    lengths=st.lists(st.integers(3, 14), min_size=1, max_size=2),
    recipe=st.builds(BlurSettings, average=st.sampled_from([(3,), (1, 3)]), stride=st.none() | st.integers(1, 3),
                     test_share=st.sampled_from([0.0, 0.3])),
)  # fmt: skip
def test_prepared_video_splits_share_no_frames(lengths, recipe):
    """A source frame that is averaged into a training frame is not in any test frame."""
    with tempfile.TemporaryDirectory() as folder:
        source, tree = Path(folder) / 'source', Path(folder) / 'tree'
        source.mkdir()
        # shots 0, 1, 2 ... and 100, 101, ...: each frame's brightness is its number
        levels = [100 * shot + number for shot, length in enumerate(lengths) for number in range(length)]
        for number, level in enumerate(levels):
            assert cv2.imwrite(str(source / f'{number:03d}.png'), np.full((8, 8, 3), level, np.uint8))
        if max(lengths) < recipe.least_shot:
            with pytest.raises(DBLRError, match='has no shot of'):
                prepare_video(source, tree, recipe)
            return
        prepare_video(source, tree, recipe)
        used = {'train': set(), 'test': set()}
        for path in sorted(tree.glob('*/gt/*/*.png')):
            part, clip = path.parts[-4], path.parts[-2]
            reach = int(clip.rpartition('average')[2]) // 2
            middle = int(cv2.imread(str(path))[0, 0, 0])
            used[part] |= set(range(middle - reach, middle + reach + 1))
            assert (tree / part / 'lq' / clip / path.name).is_file()
        assert not used['train'] & used['test'] and used['train'] <= set(levels) and used['test'] <= set(levels)
        assert used['train']


@pytest.mark.parametrize(
    'plan, clips, frames',
    [
        (lambda root: plan_dvd(root), {'train': 61, 'test': 10}, {'train': 5708, 'test': 1000}),
        (lambda root: plan_gopro(root, 'blur'), {'train': 22, 'test': 11}, {'train': 2103, 'test': 1111}),
        (lambda root: plan_reds(root, 'blur'), {'train': 240, 'test': 30}, {'train': 24000, 'test': 3000}),
    ],
)
def test_published_splits(tmp_path, plan, clips, frames):
    """Clip and frame counts are as published, and no folder is used twice."""
    planned = plan(tmp_path).clips
    assert Counter(clip.part for clip in planned) == clips
    assert {part: sum(c.frames for c in planned if c.part == part) for part in clips} == frames
    assert len({(clip.part, clip.name) for clip in planned}) == len(planned)
    folders = [folder for clip in planned for folder in clip.folders.values()]
    assert len(set(folders)) == len(folders)
