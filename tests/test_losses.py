import numpy as np
import pytest
import torch
from basicsr.losses.gan_loss import GANLoss
from basicsr.metrics import calculate_psnr
from basicsr.utils import tensor2img

from dblr_plugin.losses import MinimaxGANLoss, PSNRLoss


def test_generator_loss_is_the_papers_formula():
    logits = torch.linspace(-8, 8, 101, dtype=torch.float64)
    formula = torch.log(1 - torch.sigmoid(logits)).mean()
    torch.testing.assert_close(MinimaxGANLoss()(logits, True), formula, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(MinimaxGANLoss(loss_weight=2e-4)(logits, True), 2e-4 * formula, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize('value', [-100.0, 100.0])
@pytest.mark.parametrize('is_disc', [False, True])
def test_finite_for_extreme_logits(value, is_disc):
    logits = torch.full((4, 1), value, requires_grad=True)
    loss = MinimaxGANLoss()(logits, True, is_disc=is_disc)
    loss.backward()
    assert loss.isfinite() and logits.grad.isfinite().all()


def test_exact_value_for_extreme_logits():
    # log(1 - sigmoid(100)) = -100 - log(1 + e^-100); a sigmoid rounded to 1 would give -inf
    assert MinimaxGANLoss()(torch.tensor([100.0]), True).item() == -100
    assert -1e-40 <= MinimaxGANLoss()(torch.tensor([-100.0]), True).item() <= 0


def test_generator_gradient_saturates_where_the_discriminator_wins():
    """What sets it apart from the non-saturating loss: d/dz log(1 - sigmoid(z)) = -sigmoid(z)."""
    logits = torch.tensor([-4.0, 0.0, 4.0], dtype=torch.float64, requires_grad=True)
    MinimaxGANLoss()(logits, True).backward()
    torch.testing.assert_close(logits.grad, -torch.sigmoid(logits.detach()) / 3)


@pytest.mark.parametrize('real', [True, False])
def test_discriminator_loss_is_cross_entropy(real):
    torch.manual_seed(0)
    logits = torch.randn(6, 1)
    vanilla = GANLoss('vanilla', loss_weight=2e-4)
    torch.testing.assert_close(
        MinimaxGANLoss(loss_weight=2e-4)(logits, real, is_disc=True), vanilla(logits, real, is_disc=True)
    )


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
