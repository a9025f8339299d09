"""DBLRGAN: DBLRNet trained against a discriminator."""

from __future__ import annotations

from collections import OrderedDict

import torch
from basicsr.models.srgan_model import SRGANModel
from basicsr.utils.registry import MODEL_REGISTRY
from torch import Tensor

from dblr_plugin.models.video_deblur_model import VideoDeblurModel

__all__ = ['DBLRGANModel']


@MODEL_REGISTRY.register()
class DBLRGANModel(VideoDeblurModel, SRGANModel):
    """Content loss plus alpha times the adversarial loss, D and G updated in turn on the same batch.

    D sees what G restores: Y for a one-channel network. ``train.pixel_opt`` is the content loss, ``train.gan_opt``
    the adversarial one with alpha as its ``loss_weight``, ``path.pretrain_network_g`` starts it from a trained
    DBLRNet. ``train.net_d_init_iters`` trains D alone at first, ``train.net_d_iters`` is D's steps for each of G's.

    Beyond BasicSR's ``SRGANModel``, whose networks, losses and optimisers it has: D scores sharp and restored patches
    in one batch. In batches of their own, BatchNorm would give both the same statistics and so take away what tells
    them apart, and with the few patches of video training D stays at chance. G meets D with its running statistics.
    """

    def optimize_parameters(self, current_iter: int) -> None:
        """One step of D and, unless it is D's turn alone, one of G."""
        update_g = current_iter % self.net_d_iters == 0 and current_iter > self.net_d_init_iters
        with torch.set_grad_enabled(update_g):
            self.output = self.net_g(self.lq)
        loss_dict = self._step_d()
        if update_g:
            loss_dict |= self._step_g()
        self.log_dict = self.reduce_loss_dict(loss_dict)
        if self.ema_decay > 0:
            self.model_ema(decay=self.ema_decay)

    def _step_d(self) -> OrderedDict[str, Tensor]:
        patches = torch.cat([self.gt, self.output.detach()])
        real, fake = self.net_d(patches).chunk(2)
        l_d_real = self.cri_gan(real, True, is_disc=True)
        l_d_fake = self.cri_gan(fake, False, is_disc=True)
        self.optimizer_d.zero_grad()
        (l_d_real + l_d_fake).backward()
        self.optimizer_d.step()
        return OrderedDict(
            l_d_real=l_d_real.detach(),
            out_d_real=real.detach().mean(),
            l_d_fake=l_d_fake.detach(),
            out_d_fake=fake.detach().mean(),
        )

    def _step_g(self) -> OrderedDict[str, Tensor]:
        losses = OrderedDict(l_g_gan=self.cri_gan(self._scores_for_g(), True, is_disc=False))
        if self.cri_pix:
            losses['l_g_pix'] = self.cri_pix(self.output, self.gt)
        if self.cri_perceptual:
            percep, style = self.cri_perceptual(self.output, self.gt)
            losses |= {k: v for k, v in (('l_g_percep', percep), ('l_g_style', style)) if v is not None}
        self.optimizer_g.zero_grad()
        sum(losses.values()).backward()
        self.optimizer_g.step()
        return OrderedDict((k, v.detach()) for k, v in losses.items())

    def _scores_for_g(self) -> Tensor:
        """D's logits of the restored batch; only G gets gradients, so D needs no distributed wrapper."""
        net_d = self.get_bare_model(self.net_d).eval().requires_grad_(False)
        scores = net_d(self.output)
        net_d.requires_grad_(True)
        self.train_mode()
        return scores
