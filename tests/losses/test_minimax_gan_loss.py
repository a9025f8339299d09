import pytest
import torch
from basicsr.losses.gan_loss import GANLoss

from dblr_plugin.losses import MinimaxGANLoss


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
