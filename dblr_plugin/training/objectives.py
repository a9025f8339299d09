"""The losses of a training step, for restored frames and for a discriminator.

Networks may be wrapped for distributed training unless stated otherwise. Both trainers use these functions.
"""

from __future__ import annotations

import operator
import random
from collections.abc import Callable
from functools import reduce

import numpy as np
import torch
from torch import Tensor, nn

from dblr_plugin.archs.traits import restored_of
from dblr_plugin.errors import DBLRError
from dblr_plugin.losses import MinimaxGANLoss

__all__ = [
    'check_batch', 'content_losses', 'discriminator_logits', 'discriminator_losses', 'generator_logits',
    'logs_of_logits', 'output_is_probability', 'restore_sizes', 'seed_iteration', 'total_loss',
]  # fmt: skip


def seed_iteration(seed: int, iteration: int, rank: int = 0, world_size: int = 1) -> None:
    """Seeds all randomness in networks and losses by the iteration, so that checkpoints need no random state."""
    seed = (seed * 1_000_003 + iteration) * world_size + rank
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


def check_batch(batch: object, num_frame: int) -> None:
    """Rejects what networks cannot be trained on, or would be trained on wrongly; only a third-party set returns it.

    Args:
        batch: What a data loader returns.
        num_frame: The number of frames in a window.

    Raises:
        DBLRError: If it has no ``lq`` (b, t, c, h, w) or ``gt`` (b, c, h, w), or they are not float32 in [0, 1].
    """
    problem = _problem(batch, num_frame)
    if problem is not None:
        raise DBLRError(
            f'datasets.train: {problem}; a sample must be a dict with lq ({num_frame}, c, h, w) and gt (c, h, w), '
            'float32 tensors of RGB in [0, 1]'
        )


def _problem(batch: object, num_frame: int) -> str | None:
    if not isinstance(batch, dict):
        return 'its samples are no dicts'
    for key in ('lq', 'gt'):
        frames = batch.get(key)
        if not isinstance(frames, Tensor):
            return f'its samples have no {key}'
        if frames.dtype != torch.float32:
            return f'{key} is {str(frames.dtype).removeprefix("torch.")}'
        if frames.ndim != (5 if key == 'lq' else 4) or frames.shape[-3] not in (1, 3):
            return f'{key} is {tuple(frames.shape[1:])}'
        if frames.abs().max() > 2:  # augmentation may leave [0, 1] by a little
            return f'{key} reaches {frames.abs().max().item():.0f}'
    lq, gt = batch['lq'], batch['gt']
    if lq.shape[1] != num_frame or lq.shape[-2:] != gt.shape[-2:]:
        return f'lq is {tuple(lq.shape[1:])}, and gt {tuple(gt.shape[1:])}'
    return None


def restore_sizes(net: nn.Module, lq: Tensor, multi_scale: bool = False) -> list[Tensor]:
    """Restores windows ``(b, t, c, h, w)``, in mixed precision if autocast is on.

    Returns:
        The restored batch ``(b, c, h, w)``, float32, and, with ``multi_scale``, its smaller sizes.

    Raises:
        DBLRError: If the network returns something else than a tensor.
    """
    # a copy, as third-party networks may change their input, and a GAN's step restores it again
    restored = net(lq, sizes=True) if multi_scale else [restored_of(net(lq.clone()))]
    return [size.float() for size in restored]


def content_losses(
    restored: list[Tensor],
    gt: Tensor,
    pixel: nn.Module | None,
    perceptual: nn.Module | None = None,
    pyramid: Callable[[Tensor], list[Tensor]] | None = None,
) -> dict[str, Tensor]:
    """Returns the losses that compare restored frames with the ground truth.

    Args:
        restored: The result of :func:`restore_sizes`.
        gt: The ground truth ``(b, c, h, w)``.
        pixel, perceptual: BasicSR's losses, or others with the same interface.
        pyramid: Returns the ground truth at all sizes, if several were restored.

    Returns:
        ``l_pix``, ``l_percep`` and ``l_style``, as far as they are configured.

    Raises:
        DBLRError: If the network returns another shape, which losses would broadcast or reject.
    """
    if restored[0].shape != gt.shape:
        raise DBLRError(
            f'the network returns {tuple(restored[0].shape)}, and the ground truth is {tuple(gt.shape)}; a network '
            'that is trained must return (b, c, h, w), as large as the frames'
        )
    losses = {}
    with torch.autocast(gt.device.type, enabled=False):  # MMEngine computes losses within its autocast
        if pixel:
            losses['l_pix'] = reduce(operator.add, map(pixel, restored, [gt] if pyramid is None else pyramid(gt)))
        if perceptual:
            both = perceptual(restored[0], gt)
            if not (isinstance(both, tuple | list) and len(both) == 2):
                raise DBLRError(
                    'perceptual_opt: the loss must return two, of content and of style, of which one may be None; '
                    'others belong into pixel_opt'
                )
            losses |= {k: v for k, v in zip(('l_percep', 'l_style'), both, strict=True) if v is not None}
    return losses


def total_loss(losses: dict[str, Tensor]) -> Tensor:
    """Returns the sum of all losses.

    Raises:
        DBLRError: If one is not a scalar, as those with ``reduction: none``.
    """
    for name, loss in losses.items():
        if not isinstance(loss, Tensor) or loss.ndim:
            what = f'a tensor of shape {tuple(loss.shape)}' if isinstance(loss, Tensor) else type(loss).__name__
            raise DBLRError(f'{name}: the loss returns {what}; it must be a scalar tensor, such as the mean of pixels')
    return reduce(operator.add, losses.values())


def discriminator_logits(net_d: nn.Module, gt: Tensor, restored: Tensor) -> tuple[Tensor, Tensor]:
    """Scores sharp and restored patches ``(b, c, h, w)`` in one batch; returns float32 logits ``(b, 1)`` of each.

    In separate batches, BatchNorm would give both the same statistics, and so remove what distinguishes them.
    """
    real, fake = _logits(net_d(torch.cat([gt, restored.detach()]))).chunk(2)
    return real, fake


def discriminator_losses(gan_loss: nn.Module, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
    """Returns D's losses for its logits: ``l_d_real`` and ``l_d_fake``."""
    return {'l_d_real': gan_loss(real, True, is_disc=True), 'l_d_fake': gan_loss(fake, False, is_disc=True)}


def generator_logits(net_d: nn.Module, restored: Tensor) -> Tensor:
    """Returns D's logits of a restored batch, with its running statistics; D itself gets no gradients.

    ``net_d`` is the bare network, as it has no gradients to synchronise, and is left in evaluation mode.
    """
    trained = [parameter for parameter in net_d.parameters() if parameter.requires_grad]  # D may have frozen others
    for parameter in trained:
        parameter.requires_grad_(False)
    net_d.eval()
    logits = _logits(net_d(restored.clone()))  # D may change its input, which content losses compare afterwards
    for parameter in trained:
        parameter.requires_grad_(True)
    return logits


def _logits(output: object) -> Tensor:
    if not isinstance(output, Tensor):
        raise DBLRError(
            f'the discriminator returns a {type(output).__name__}; let its forward return a tensor of logits'
        )
    return output.float()


def output_is_probability(gan_loss: nn.Module) -> bool:
    """Whether the sigmoid of D's output is a probability."""
    return isinstance(gan_loss, MinimaxGANLoss) or getattr(gan_loss, 'gan_type', None) == 'vanilla'


def logs_of_logits(real: Tensor, fake: Tensor, is_probability: bool) -> dict[str, Tensor]:
    """Returns D's log values: its mean outputs and, if their sigmoid is a probability, its mean probabilities."""
    logs = {'out_d_real': real.mean(), 'out_d_fake': fake.mean()}
    if is_probability:
        logs |= {'p_d_real': real.sigmoid().mean(), 'p_d_fake': fake.sigmoid().mean()}
    return logs
