"""Which frames are in a window, in training and at the ends of clips."""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from basicsr.data.data_util import generate_frame_indices
from hypothesis import given, settings
from hypothesis import strategies as st

from dblr_plugin.data.video_deblur_dataset import VideoDeblurDataset
from dblr_plugin.data.video_deblur_test_dataset import VideoDeblurTestDataset
from dblr_plugin.data.windows import window_indices
from dblr_plugin.errors import DBLRError

LONGEST = 24
PADDINGS = ['replicate', 'reflection', 'reflection_circle', 'circle']

odd = st.integers(0, 4).map(lambda half: 2 * half + 1)
lengths = st.lists(st.integers(1, LONGEST), min_size=1, max_size=3, unique=True)


@pytest.fixture(scope='module')
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips c1 to c24, named by their number of frames; each frame's brightness is its number."""
    root = tmp_path_factory.mktemp('clips')
    frames = [cv2.imencode('.png', np.full((4, 4, 3), number, np.uint8))[1].tobytes() for number in range(LONGEST)]
    for length in range(1, LONGEST + 1):
        (root / f'c{length}').mkdir()
        for number in range(length):
            (root / f'c{length}/{number:03d}.png').write_bytes(frames[number])
    return root


def options(root: Path, chosen: list[int], folder: str, **changes: object) -> dict:
    """Returns options of a data set with the clips of these lengths."""
    listed = Path(folder) / 'clips.txt'
    listed.write_text(''.join(f'c{length} {length} (4,4,3)\n' for length in chosen))
    return {'dataroot_lq': str(root), 'dataroot_gt': str(root), 'meta_info_file': str(listed), **changes}


@settings(max_examples=60)
@given(
    chosen=lengths,
    num_frame=odd,
    intervals=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    reverse=st.booleans(),
    seed=st.integers(0, 2**32),
)
@pytest.mark.slow
def test_training_windows_stay_within_their_clip(clips, chosen, num_frame, intervals, reverse, seed):
    half = num_frame // 2
    fitting = {
        (length, centre): {i for i in intervals if centre - half * i >= 0 and centre + half * i < length}
        for length in chosen
        for centre in range(length)
    }
    with tempfile.TemporaryDirectory() as folder:
        opt = options(clips, chosen, folder, gt_size=2, num_frame=num_frame, interval_list=intervals,
                      random_reverse=reverse)  # fmt: skip
        if any(not any(fitting[length, centre] for centre in range(length)) for length in chosen):
            with pytest.raises(DBLRError, match='too few frames'):
                VideoDeblurDataset(opt)
            return
        dataset = VideoDeblurDataset(opt)
    centres = Counter((len(clip.frames), centre) for clip, centre in dataset.centres)
    assert centres == Counter(place for place, fits in fitting.items() if fits)
    rng = random.Random(seed)
    for clip, centre in dataset.centres:
        window = dataset._window(rng, clip, centre)
        steps = set(np.diff(window).tolist())
        assert len(window) == num_frame and window[half] == centre
        assert all(0 <= index < len(clip.frames) for index in window)
        assert len(steps) <= 1 and {abs(step) for step in steps} <= fitting[len(clip.frames), centre]
        assert reverse or all(step > 0 for step in steps)


@settings(max_examples=40)
@given(length=st.integers(1, LONGEST), num_frame=odd, padding=st.sampled_from(PADDINGS))
@pytest.mark.slow
def test_test_set_reads_padded_windows(clips, length, num_frame, padding):
    with tempfile.TemporaryDirectory() as folder:
        dataset = VideoDeblurTestDataset(options(clips, [length], folder, num_frame=num_frame, padding=padding))
    for centre, sample in enumerate(dataset):
        read = (sample['lq'][:, 0, 0, 0] * 255).round().int().tolist()
        assert read == window_indices(centre, length, num_frame, padding)
        assert round(sample['gt'][0, 0, 0].item() * 255) == centre == read[num_frame // 2]
        assert sample['border'] == int(min(centre, length - 1 - centre) < num_frame // 2)


@given(length=st.integers(1, LONGEST), num_frame=odd, padding=st.sampled_from(PADDINGS), data=st.data())
def test_padded_windows_agree_with_basicsr(length, num_frame, padding, data):
    """Windows follow the definition of each padding, and BasicSR where its indices are within the clip."""
    centre, half = data.draw(st.integers(0, length - 1)), num_frame // 2
    window = window_indices(centre, length, num_frame, padding)
    inside = range(max(0, centre - half), min(length, centre + half + 1))
    assert len(window) == num_frame and all(0 <= index < length for index in window)
    assert [index for place, index in enumerate(window, centre - half) if place in inside] == list(inside)
    theirs = generate_frame_indices(centre, length, num_frame, padding)
    assert all(ours == index for ours, index in zip(window, theirs, strict=True) if 0 <= index < length)
    if padding == 'replicate' or (padding == 'reflection' and half < length):
        mode = {'replicate': 'edge', 'reflection': 'reflect'}[padding]
        assert window == np.pad(np.arange(length), half, mode=mode)[centre : centre + num_frame].tolist()
    elif length >= num_frame and padding != 'reflection':
        # num_frame different frames, those nearest to the clip's end
        first = min(max(0, centre - half), length - num_frame)
        assert sorted(window) == list(range(first, first + num_frame))
        missing = [index for index in window if index not in inside]
        assert missing == sorted(missing, reverse=padding == 'reflection_circle')
