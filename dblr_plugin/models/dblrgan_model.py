"""DBLRGAN: DBLRNet trained against a discriminator."""

from __future__ import annotations

import torch
from basicsr.models.srgan_model import SRGANModel
from basicsr.utils.registry import MODEL_REGISTRY
from torch import Tensor, nn

from dblr_plugin.models.video_deblur_model import VideoDeblurModel
from dblr_plugin.training.monitors import DiscriminatorMonitor
from dblr_plugin.training.objectives import (
    discriminator_logits,
    discriminator_losses,
    generator_logits,
    logs_of_logits,
    output_is_probability,
)
from dblr_plugin.training.step import StepResult

__all__ = ['DBLRGANModel']


@MODEL_REGISTRY.register()
class DBLRGANModel(VideoDeblurModel, SRGANModel):
    """Trains on content loss plus alpha times the adversarial loss, updating D, then G, on the same batch.

    D sees G's output: Y for a one-channel network. ``train.pixel_opt`` is the content loss, ``train.gan_opt`` the
    adversarial one with alpha as its ``loss_weight``, ``path.pretrain_network_g`` starts from a trained DBLRNet.
    ``train.net_d_init_iters`` trains D alone at first, ``train.net_d_iters`` is the number of D steps per G step.

    Differences from BasicSR's ``SRGANModel``, which provides networks, losses and optimisers: D scores sharp and
    restored patches in one batch; in separate ones, with BatchNorm, it would stay at chance. In G's step, D uses its
    running statistics. G's own running statistics change only in G's steps, once per micro-batch, not when G restores
    for D. D's mean probabilities (``p_d_real``, ``p_d_fake``) are logged, with a warning when D has won or collapsed.
    """

    content_names = ('l_g_pix', 'l_g_percep', 'l_g_style')

    def init_training_settings(self) -> None:
        """Also builds the discriminator monitor."""
        super().init_training_settings()
        self.step_d = self.steps[1]
        self.d_monitor = DiscriminatorMonitor()
        self.d_is_probability = output_is_probability(self.cri_gan)

    def train_step(self, current_iter: int) -> list[StepResult]:
        """Runs one step of D and, unless only D is due, one of G."""
        update_g = current_iter % self.net_d_iters == 0 and current_iter > self.net_d_init_iters
        micro_batches = self.micro_batches()
        # one forward pass of G serves both, except with micro-batches, as keeping all their graphs would fill memory
        shared = self.forward_g(self.lq) if update_g and len(micro_batches) == 1 else None

        self.log_values = {}
        results = [self.step_d.run(micro_batches, lambda part: self._losses_of_d(part, shared))]
        self.log_values |= results[0].losses | {'grad_d': results[0].grad_norm}
        if shared is None:  # G ran for D only
            self.step_g.restore_buffers()
        if update_g:
            results.append(self.step_g.run(micro_batches, lambda part: self._losses_of_g(part, shared)))
            self.log_values |= results[1].losses | {'grad_g': results[1].grad_norm}
        return results

    def _losses_of_d(self, part: tuple[Tensor, Tensor], shared: list[Tensor] | None) -> dict[str, Tensor]:
        lq, gt = part
        with torch.no_grad():
            restored = self.forward_g(lq) if shared is None else shared
        with self.autocast():
            real, fake = discriminator_logits(self.net_d, gt, restored[0])
        self._log_logits(real.detach(), fake.detach())
        return discriminator_losses(self.cri_gan, real, fake)

    def _losses_of_g(self, part: tuple[Tensor, Tensor], shared: list[Tensor] | None) -> dict[str, Tensor]:
        lq, gt = part
        restored = self.forward_g(lq) if shared is None else shared
        with self.autocast():
            logits = generator_logits(self.get_bare_model(self.net_d), restored[0])
        self.train_mode()
        losses = {'l_g_gan': self.cri_gan(logits, True, is_disc=False)}
        return losses | {k.replace('l_', 'l_g_', 1): v for k, v in self.content_losses(restored, gt).items()}

    def _log_logits(self, real: Tensor, fake: Tensor) -> None:
        for name, value in logs_of_logits(real, fake, self.d_is_probability).items():
            self.log_values[name] = self.log_values.get(name, 0) + value / self.accumulate

    def trained_networks(self) -> dict[str, dict[str, nn.Module]]:
        """Returns G and D."""
        return super().trained_networks() | {'net_d': {'params': self.net_d}}

    def _log_step(self, current_iter: int, results: list[StepResult]) -> None:
        super()._log_step(current_iter, results)
        if self.d_is_probability:
            self.d_monitor.record(self.log_dict['p_d_real'], self.log_dict['p_d_fake'])
