"""Every protocol is compared with float64 formulas written here and with scikit-image."""

import numpy as np
import pytest
from scipy import ndimage
from skimage.metrics import structural_similarity

from dblr_plugin.errors import DBLRError
from dblr_plugin.evaluation.protocols import PROTOCOLS, choose_protocols, with_metrics
from dblr_plugin.evaluation.psnr_ssim import ms_ssim, shifted


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    error = a.astype(np.float64) - b.astype(np.float64)
    return 20 * np.log10(255) - 10 * np.log10((error * error).mean())


def ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Wang et al. (2004): 11x11 Gaussian window, sigma 1.5, population covariance, without borders."""
    settings = {'gaussian_weights': True, 'sigma': 1.5, 'use_sample_covariance': False, 'data_range': 255}
    a, b = a.astype(np.float64), b.astype(np.float64)
    return structural_similarity(a, b, **settings, channel_axis=2 if a.ndim == 3 else None)


def matlab_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """MATLAB's ``ssim`` of an array of any dimension, from its three factors, with SciPy's Gaussian of 11 taps."""

    def blurred(x: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(x, 1.5, radius=5, mode='nearest')

    a, b = a.astype(np.float64), b.astype(np.float64)
    c1, c2 = 2.55**2, 7.65**2
    mean_a, mean_b = blurred(a), blurred(b)
    sigma_a, sigma_b = (np.sqrt(blurred((x - 128) ** 2) - (m - 128) ** 2) for x, m in ((a, mean_a), (b, mean_b)))
    covariance = blurred((a - 128) * (b - 128)) - (mean_a - 128) * (mean_b - 128)
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    contrast = (2 * sigma_a * sigma_b + c2) / (sigma_a**2 + sigma_b**2 + c2)
    structure = (covariance + c2 / 2) / (sigma_a * sigma_b + c2 / 2)
    return float((luminance * contrast * structure).mean())


def expected(restored: np.ndarray, truth: np.ndarray) -> dict:
    return {'psnr': pytest.approx(psnr(restored, truth), abs=1e-9), 'ssim': pytest.approx(ssim(restored, truth))}


SSIMS = {name: {'type': name} for name in ('ssim_2d', 'ssim_3d', 'ms_ssim')}


class TestScores:
    def test_basicsr_rounds_and_scores_rgb(self, frame_pair):
        restored, truth = frame_pair
        assert PROTOCOLS['basicsr'].score(restored, truth) == expected(np.round(restored), truth)

    def test_vrt_matlab_has_matlabs_ssim(self, frame_pair):
        """MATLAB's psnr is the same; its ssim also filters along the channels."""
        restored, truth = np.round(frame_pair[0]), frame_pair[1]
        figures = PROTOCOLS['vrt-matlab'].score(*frame_pair)
        assert figures == {
            'psnr': pytest.approx(psnr(restored, truth), abs=1e-9),
            'ssim': pytest.approx(matlab_ssim(restored, truth), abs=1e-7),
        }
        assert abs(figures['ssim'] - ssim(restored, truth)) > 1e-3

    def test_luma_scores_y(self, frame_pair):
        restored, truth = (f.round() @ np.array([24.966, 128.553, 65.481]) / 255 + 16 for f in frame_pair)
        assert PROTOCOLS['luma'].score(*frame_pair) == {
            'psnr': pytest.approx(psnr(restored, truth), abs=1e-4),  # BasicSR's Y is float32
            'ssim': pytest.approx(ssim(restored, truth), abs=1e-6),
        }

    def test_cdvd_tsp_crops(self, frame_pair):
        restored, truth = frame_pair
        assert truth.shape == (201, 263, 3)
        restored, truth = restored.round()[4:196, 4:256], truth[4:196, 4:256]
        assert PROTOCOLS['cdvd-tsp'].score(*frame_pair) == expected(restored, truth)

    def test_dvd_official_aligns(self, frame_pair):
        blurry, truth = (frame.astype(np.float64) for frame in frame_pair)
        moved = shifted(blurry * 0.8, (-2, 3)).round()
        aligned, cut = np.zeros_like(truth), np.zeros_like(truth)
        aligned[2:, :-3], cut[2:, :-3] = moved[:-2, 3:], truth[2:, :-3]
        aligned *= (truth * moved).sum() / (moved * moved).sum()  # before the shift
        weights = np.array([0.114, 0.587, 0.299])
        assert PROTOCOLS['dvd-official'].score(moved, frame_pair[1]) == expected(aligned @ weights, cut @ weights)
        assert PROTOCOLS['basicsr'].score(moved, frame_pair[1])['psnr'] < psnr(aligned, cut) - 5

    @pytest.mark.parametrize('protocol', PROTOCOLS.values(), ids=lambda p: p.name)
    def test_all_kinds_of_ssim(self, frame_pair, protocol):
        """All kinds score the same image as the protocol's own SSIM, which is one of them."""
        figures = with_metrics([protocol], SSIMS)[0].score(*frame_pair)
        assert list(figures) == ['psnr', 'ssim', 'ssim_2d', 'ssim_3d', 'ms_ssim']
        assert {name: figures[name] for name in ('psnr', 'ssim')} == protocol.score(*frame_pair)
        assert figures['ssim'] == figures['ssim_3d' if protocol.name == 'vrt-matlab' else 'ssim_2d']
        assert len({figures['ssim_2d'], figures['ssim_3d'], figures['ms_ssim']}) == 3

    def test_ms_ssim_of_dvd_official_uses_luminance(self, frame_pair):
        figures = with_metrics(choose_protocols('dvd-official'), SSIMS)[0].score(*frame_pair)
        restored, truth = (frame.round() @ np.array([0.114, 0.587, 0.299]) for frame in frame_pair)
        gain = (frame_pair[0].round() * frame_pair[1]).sum() / (frame_pair[0].round().astype(np.float64) ** 2).sum()
        assert figures['ms_ssim'] == pytest.approx(ms_ssim(gain * restored, truth), abs=1e-6)

    @pytest.mark.parametrize('protocol', PROTOCOLS.values(), ids=lambda p: p.name)
    def test_equal_frames_have_perfect_scores(self, frame_pair, protocol):
        truth = frame_pair[1]
        assert protocol.score(truth, truth) == {'psnr': np.inf, 'ssim': pytest.approx(1)}

    @pytest.mark.parametrize('protocol', PROTOCOLS.values(), ids=lambda p: p.name)
    def test_uint8_and_float_frames_score_alike(self, frame_pair, protocol):
        restored, truth = frame_pair
        written = restored.round().astype(np.uint8)
        assert protocol.score(written, truth) == protocol.score(restored.round(), truth)
        assert {type(value) for value in protocol.score(written, truth).values()} == {float}

    @pytest.mark.parametrize('protocol', PROTOCOLS.values(), ids=lambda p: p.name)
    @pytest.mark.parametrize('size', [(200, 263), (210, 263)])
    def test_frames_of_unequal_size_are_refused(self, frame_pair, protocol, size):
        restored = np.zeros((*size, 3), np.uint8)
        with pytest.raises(DBLRError, match=rf'is 263x{size[0]} \(w x h\), the sharp one 263x201; both must have one'):
            protocol.score(restored, frame_pair[1])


class TestFrames:
    def test_most_protocols_score_all_frames(self):
        for name in ('basicsr', 'vrt-matlab', 'luma'):
            assert list(PROTOCOLS[name].frames(4)) == [0, 1, 2, 3]

    def test_cdvd_tsp_leaves_out_two_frames_at_each_end(self):
        frames = PROTOCOLS['cdvd-tsp'].frames
        assert list(frames(100)) == list(range(2, 98))
        assert list(frames(5)) == [2]
        assert list(frames(4)) == [0, 1, 2, 3]  # no frame has two neighbours on both sides

    def test_dvd_official_scores_30_frames(self):
        frames = PROTOCOLS['dvd-official'].frames
        assert list(frames(100)) == [
            2, 5, 8, 11, 15, 18, 21, 24, 28, 31, 34, 38, 41, 44, 47, 51, 54, 57, 60, 64, 67, 70, 74, 77, 80, 83, 87,
            90, 93, 97,
        ]  # fmt: skip
        for count in (34, 35, 63, 120):
            chosen = list(frames(count))
            assert len(set(chosen)) == 30 and chosen == sorted(chosen) and (chosen[0], chosen[-1]) == (2, count - 3)
        assert list(frames(20)) == list(range(2, 18))
        assert list(frames(3)) == [0, 1, 2]


class TestChoice:
    def test_protocols_are_chosen_by_name(self):
        assert [p.name for p in choose_protocols('vrt-matlab')] == ['vrt-matlab']
        assert [p.name for p in choose_protocols(['luma', 'basicsr', 'luma'])] == ['luma', 'basicsr']
        assert choose_protocols('all') == choose_protocols(['luma', 'all']) == list(PROTOCOLS.values())

    def test_unknown_protocol_is_refused(self):
        with pytest.raises(DBLRError, match="no protocol is called 'dvd-oficial'; did you mean 'dvd-official'?"):
            choose_protocols(['vrt-matlab', 'dvd-oficial'])
        with pytest.raises(DBLRError, match='choose from basicsr, dvd-official'):
            choose_protocols([])
