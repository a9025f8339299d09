"""Windows of a stream of frames, which do not cross cuts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dblr_plugin.data.windows import StreamFrame, window_indices, windows

SCENES = (0.0, 60.0, 140.0, 220.0)


def stream(*shots: int, noise: float = 0.5) -> list[StreamFrame[int]]:
    """Numbered frames of shots of these lengths; grey levels vary a little within a shot."""
    rng = np.random.default_rng(0)
    scenes = [SCENES[i % len(SCENES)] for i, length in enumerate(shots) for _ in range(length)]
    return [
        StreamFrame(number, (scene + noise * rng.standard_normal((18, 32))).astype(np.float32))
        for number, scene in enumerate(scenes)
    ]


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.lists(st.integers(3, 12), min_size=1, max_size=4), st.sampled_from([3, 5, 7]))
@pytest.mark.slow
def test_windows_stay_within_their_shot(shots, num_frame):
    """Validation, where each shot is a clip, has the same windows."""
    found = list(windows(stream(*shots), num_frame))
    expected, start = [], 0
    for length in shots:
        for centre in range(length):
            indices = window_indices(centre, length, num_frame, 'replicate')
            expected.append([start + index for index in indices])
        start += length
    assert found == expected


@settings(deadline=None, derandomize=True, max_examples=40)
@given(st.integers(0, 15), st.sampled_from([3, 5]))
def test_causal_windows_end_with_their_frame(length, num_frame):
    expected = [window_indices(centre, length, num_frame, 'replicate', causal=True) for centre in range(length)]
    assert list(windows(stream(length), num_frame, causal=True)) == expected


def test_causal_window_does_not_wait_for_later_frames():
    """It is returned before the next frame is read."""
    taken = []

    def frames():
        for frame in stream(6, 6):
            taken.append(frame.item)
            yield frame

    for number, window in enumerate(windows(frames(), 5, causal=True)):
        assert taken[-1] == number == window[-1]
        assert min(window) >= (6 if number >= 6 else 0)  # and does not reach across the cut


@pytest.mark.parametrize('causal', [False, True])
def test_few_frames_are_held_in_memory(causal):
    held, most = set(), 0

    class Frame:
        def __init__(self, number: int) -> None:
            self.number = number
            held.add(number)

        def __del__(self) -> None:
            held.discard(self.number)

    def frames():
        for shown in stream(200):
            yield StreamFrame(Frame(shown.item), shown.small)

    for _ in windows(frames(), 5, causal):
        most = max(most, len(held))
    assert most <= 12


def test_noise_and_starting_motion_keep_windows_in_order():
    """Every frame has a window, in order, even where frames look like cuts."""
    rng = np.random.default_rng(1)
    small = [rng.uniform(0, 255, (18, 32)).astype(np.float32) for _ in range(50)]
    found = list(windows((StreamFrame(i, s) for i, s in enumerate(small)), 5))
    assert [window[2] for window in found] == list(range(50))
    moving = [np.full((18, 32), max(0, i - 20) * 8, np.float32) for i in range(40)]  # a pan that begins at frame 20
    assert list(windows((StreamFrame(i, s) for i, s in enumerate(moving)), 5))[20] == [18, 19, 20, 21, 22]
