import numpy as np
import pytest
import torch
from basicsr.metrics import calculate_psnr
from basicsr.utils import tensor2img

from dblr_plugin.losses import PSNRLoss


@pytest.fixture
def batch():
    rng = torch.Generator().manual_seed(0)
    truth = torch.randint(0, 256, (3, 3, 16, 20), generator=rng)
    noise = torch.randint(-9, 10, truth.shape, generator=rng) * torch.tensor([1, 2, 5]).view(3, 1, 1, 1)
    return (truth + noise).clamp(0, 255) / 255, truth / 255


def test_is_minus_the_mean_psnr_of_basicsr(batch):
    restored, truth = batch
    pairs = zip(restored, truth, strict=True)
    figures = [calculate_psnr(tensor2img(a), tensor2img(b), crop_border=0) for a, b in pairs]
    assert PSNRLoss()(restored, truth).item() == pytest.approx(-np.mean(figures), abs=0.01)
    assert PSNRLoss(loss_weight=0.5)(restored, truth).item() == pytest.approx(-np.mean(figures) / 2, abs=0.01)


def test_a_decibel_counts_the_same_for_every_sample(batch):
    """The gradient of a sample is inverse to its error: scaling an error scales its gradient down."""
    restored, truth = batch
    gradients = []
    for scale in (1, 0.1):
        pred = (truth + scale * (restored - truth)).requires_grad_()
        PSNRLoss()(pred, truth).backward()
        gradients.append(pred.grad.flatten(1).norm(dim=1))
    torch.testing.assert_close(gradients[1], 10 * gradients[0], rtol=0.02, atol=0)


def test_equal_frames_give_a_finite_loss_and_gradient(batch):
    pred = batch[1].clone().requires_grad_()
    loss = PSNRLoss(eps=1e-4)(pred, batch[1])
    loss.backward()
    assert loss.item() == pytest.approx(-40, abs=1e-3)
    assert not pred.grad.any()
