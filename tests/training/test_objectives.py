"""Content losses of network outputs."""

import pytest
import torch
from basicsr.losses import build_loss
from torch import nn

from dblr_plugin.archs import DeepDeblur
from dblr_plugin.errors import DBLRError
from dblr_plugin.training.objectives import (
    check_batch,
    content_losses,
    discriminator_logits,
    generator_logits,
    restore_sizes,
    total_loss,
)


def test_losses_are_computed_in_full_precision():
    """MMEngine computes losses under autocast, where bf16 would round the smaller sizes of the ground truth."""
    net = DeepDeblur(num_feat=8, num_block=1, gaussian=True)
    gt = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    restored = net.pyramid(gt)
    pixel = build_loss({'type': 'MSELoss'})
    with torch.autocast('cpu', torch.bfloat16):
        losses = content_losses(restored, gt, pixel, pyramid=net.pyramid)
    assert losses['l_pix'] == 0


@pytest.mark.parametrize('shape', [(1, 5, 3, 16, 16), (1, 1, 16, 16), (1, 3, 64, 64)], ids=str)
def test_output_of_another_shape_is_refused(shape):
    """The mean squared error would broadcast outputs with all frames or with one channel."""
    with pytest.raises(DBLRError, match=r'the network returns .*, and the ground truth is \(1, 3, 16, 16\)'):
        content_losses([torch.rand(shape)], torch.rand(1, 3, 16, 16), build_loss({'type': 'MSELoss'}))


@pytest.mark.parametrize('output', [(torch.zeros(1), torch.zeros(1)), {'restored': torch.zeros(1)}, None], ids=str)
def test_output_that_is_no_tensor_is_refused(output):
    with pytest.raises(DBLRError, match=f'the network returns a {type(output).__name__}; let its forward return'):
        restore_sizes(lambda lq: output, torch.rand(1, 5, 3, 16, 16))


@pytest.mark.parametrize(
    ('loss', 'what'), [(torch.zeros(2, 3), r'a tensor of shape \(2, 3\)'), (0.5, 'float'), (None, 'NoneType')]
)
def test_loss_that_is_no_scalar_is_refused(loss, what):
    assert total_loss({'l_pix': torch.tensor(1.0), 'l_percep': torch.tensor(0.5)}) == 1.5
    with pytest.raises(DBLRError, match=f'l_percep: the loss returns {what}; it must be a scalar'):
        total_loss({'l_pix': torch.tensor(1.0), 'l_percep': loss})


def test_perceptual_loss_that_returns_one_is_refused():
    restored = torch.rand(1, 3, 16, 16)
    with pytest.raises(DBLRError, match='perceptual_opt: the loss must return two'):
        content_losses([restored], restored, None, build_loss({'type': 'MSELoss'}))


def test_network_may_change_its_input():
    """A GAN's step restores a batch more than once."""
    lq = torch.rand(1, 5, 3, 16, 16)
    first, second = (restore_sizes(lambda x: x.sub_(0.5)[:, 2], lq)[0] for _ in range(2))
    assert torch.equal(first, second)


def test_discriminator_may_change_its_input():
    """The content loss was computed of what D had made of the restored patches."""

    class Scaling(nn.Module):
        def forward(self, x):
            return x.mul_(2).sub_(1).mean((1, 2, 3))

    gt, restored, again = torch.rand(3, 2, 3, 16, 16).unbind()
    again.copy_(restored)
    discriminator_logits(Scaling(), gt, restored)
    assert torch.equal(generator_logits(Scaling(), restored), (again * 2 - 1).mean((1, 2, 3)))
    assert torch.equal(restored, again)


def _sample(**changes) -> dict:
    return {'lq': torch.rand(2, 5, 3, 16, 16), 'gt': torch.rand(2, 3, 16, 16)} | changes


def test_good_batches_are_accepted():
    check_batch(_sample(), 5)
    check_batch(_sample(lq=torch.rand(2, 3, 1, 16, 16), gt=torch.rand(2, 1, 16, 16), key=['a', 'b']), 3)


@pytest.mark.parametrize(
    ('batch', 'problem'),
    [
        ([torch.rand(2, 5, 3, 16, 16), torch.rand(2, 3, 16, 16)], 'its samples are no dicts'),
        ({'lq': torch.rand(2, 5, 3, 16, 16)}, 'its samples have no gt'),
        (_sample(lq=torch.rand(2, 5, 3, 16, 16).double()), 'lq is float64'),
        (_sample(gt=torch.zeros(2, 3, 16, 16, dtype=torch.uint8)), 'gt is uint8'),
        (_sample(lq=torch.rand(2, 3, 16, 16)), r'lq is \(3, 16, 16\)'),
        (_sample(lq=torch.rand(2, 5, 16, 16, 3)), r'lq is \(5, 16, 16, 3\)'),
        (_sample(lq=torch.rand(2, 3, 3, 16, 16)), r'lq is \(3, 3, 16, 16\), and gt \(3, 16, 16\)'),
        (_sample(gt=torch.rand(2, 3, 32, 32)), r'lq is \(5, 3, 16, 16\), and gt \(3, 32, 32\)'),
        (_sample(gt=torch.full((2, 3, 16, 16), 255.0)), 'gt reaches 255'),
    ],
    ids=lambda value: value if isinstance(value, str) else '',
)
def test_batch_that_nothing_can_be_trained_on_is_refused(batch, problem):
    with pytest.raises(DBLRError, match=rf'datasets.train: {problem}; a sample must be a dict with lq \(5, c, h, w\)'):
        check_batch(batch, 5)


def test_discriminator_that_returns_no_tensor_is_refused():
    frames = torch.rand(1, 3, 16, 16)
    with pytest.raises(DBLRError, match='the discriminator returns a list; let its forward return a tensor'):
        discriminator_logits(lambda x: [x], frames, frames)
