"""Models for MMEngine's Runner to train, validate and test, with the networks, losses and steps of BasicSR's side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.logging import MessageHub
from mmengine.model import BaseModel, is_model_wrapper
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import Tensor, nn

from dblr_plugin.acceleration import prepare_network
from dblr_plugin.archs.traits import NetworkTraits
from dblr_plugin.colour import to_network_colour
from dblr_plugin.errors import DBLRError
from dblr_plugin.evaluation.validation import share_buffers
from dblr_plugin.mmengine.registry import MODELS, build_part, plain, register
from dblr_plugin.restore.frame_restorer import FrameRestorer, build_restorer
from dblr_plugin.training.objectives import (
    content_losses,
    discriminator_logits,
    discriminator_losses,
    generator_logits,
    logs_of_logits,
    output_is_probability,
    restore_sizes,
    total_loss,
)
from dblr_plugin.weights.checkpoint import NETWORK_KEY, matching_weights, named_weights, translated

__all__ = ['DBLRGANModel', 'VideoDeblurModel']

Config = Mapping[str, Any]


@register(MODELS)
class VideoDeblurModel(BaseModel):
    """Trains a network that restores one frame of RGB windows, such as DBLRNet, DBN or EDVR.

    A network with ``num_in_ch: 1`` is trained on Y and keeps the blurry frame's colour, one with 3 on RGB. Checkpoints
    name their network. ``load_from`` also accepts those of BasicSR's trainer, and rejects another network's.

    Args:
        generator: ``network_g`` of an option file.
        pixel_loss, perceptual_loss: ``pixel_opt`` and ``perceptual_opt``.
        multi_scale: The pixel loss is the sum over all sizes that the network restores.
        pad_multiple: Frames are padded to a multiple of this in validation, for networks that need it.
        data_preprocessor, init_cfg: As in MMEngine's ``BaseModel``.
    """

    def __init__(
        self,
        generator: Config,
        pixel_loss: Config | None = None,
        perceptual_loss: Config | None = None,
        multi_scale: bool = False,
        pad_multiple: int = 1,
        data_preprocessor: Config | nn.Module | None = None,
        init_cfg: Config | None = None,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        self.network = plain(generator)
        self.network['type'] = self.network['type'].removeprefix('dblr.')
        self.generator: Any = build_part(self.network)
        self.traits = NetworkTraits.of(self.network)
        prepare_network(self.generator)
        self.pixel_loss = build_part(pixel_loss)
        self.perceptual_loss = build_part(perceptual_loss)
        self.multi_scale = multi_scale
        self.pad_multiple = pad_multiple
        self._restorer: FrameRestorer | None = None
        self._describe_network()
        self.register_load_state_dict_pre_hook(_take_any_checkpoint)

    def forward(
        self, lq: Tensor | list[Tensor], gt: Tensor | list[Tensor] | None = None, mode: str = 'tensor', **sample: list
    ) -> Any:
        """Computes what MMEngine requests by ``mode``.

        Args:
            lq: Windows ``(b, t, 3, h, w)``, RGB in [0, 1] (Y from a data set with ``y_only``), or a list of ``b``.
            gt: The ground truth ``(b, 3, h, w)``, or a list of ``b``.
            mode: ``loss``: the losses by name. ``predict``: a list of samples, each with ``restored``
                ``(3, h, w)``, RGB, not clipped, and ``blurry``, the frame that was restored. ``tensor``: the
                network's output for the windows.
            sample: The data set's other entries, each a list of ``b``.
        """
        lq = torch.stack(lq) if isinstance(lq, list) else lq
        gt = torch.stack(gt) if isinstance(gt, list) else gt
        if mode == 'predict':
            return self._predict({'lq': lq, **({} if gt is None else {'gt': gt}), **sample})
        lq = to_network_colour(lq, self.traits.channels)
        if mode == 'tensor':
            return self.generator(lq)
        assert gt is not None  # losses need the ground truth
        restored = restore_sizes(self.generator, lq, self.multi_scale)
        return self._content_losses(restored, to_network_colour(gt, self.traits.channels))

    def parse_losses(self, losses: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the sum of all losses, and the log values; MMEngine only sums losses with ``loss`` in their name.

        Raises:
            DBLRError: If the model was built without losses.
        """
        if not losses:
            raise DBLRError("model has neither pixel_loss nor perceptual_loss; add pixel_loss=dict(type='MSELoss')")
        total = total_loss(losses)
        return total, {'loss': total, **losses}

    def train(self, mode: bool = True) -> VideoDeblurModel:
        """Changes the mode; the next prediction will use the weights at that time."""
        self._restorer = None
        if MessageHub.get_current_instance().get_info(NETWORK_KEY) is None:  # the model was built before its Runner
            self._describe_network()
        return super().train(mode)

    def _describe_network(self) -> None:
        """Records which network it is where the Runner's checkpoints take it from, in the message hub."""
        about = {'network': self.network} | ({'pad_multiple': self.pad_multiple} if self.pad_multiple > 1 else {})
        MessageHub.get_current_instance().update_info(NETWORK_KEY, about)

    def _content_losses(self, restored: list[Tensor], gt: Tensor) -> dict[str, Tensor]:
        pyramid = _bare(self.generator).pyramid if self.multi_scale else None
        return content_losses(restored, gt, self.pixel_loss, self.perceptual_loss, pyramid)

    def _predict(self, batch: dict[str, Any]) -> list[dict[str, Any]]:
        if self._restorer is None:
            net = _bare(self.generator)
            share_buffers(net)
            self._restorer = build_restorer(
                net,
                self.traits,
                batch['lq'].device,
                backend='torch',
                precision='fp32',
                size_multiple=self.pad_multiple,
            )
        batch['restored'] = self._restorer(batch['lq'])
        batch['blurry'] = batch['lq'][:, self.traits.restores]
        return [{key: entries[i] for key, entries in batch.items()} for i in range(len(batch['lq']))]


@register(MODELS)
class DBLRGANModel(VideoDeblurModel):
    """Trains on content loss plus alpha times the adversarial loss, updating D, then G, on the same batch.

    The step is the same as in the ``DBLRGANModel`` for BasicSR: first D, with sharp and restored patches in one batch,
    then G against D in evaluation mode. ``load_from`` starts from a trained DBLRNet. ``optim_wrapper`` has one entry
    per network (``MultiOptimWrapperConstructor``); several processes need
    ``model_wrapper_cfg = dict(type='MMSeparateDistributedDataParallel')``.

    Args:
        generator: ``network_g`` of an option file.
        discriminator: ``network_d``.
        gan_loss: ``gan_opt``; alpha is its ``loss_weight``.
        disc_steps: ``net_d_iters``: number of D steps per G step.
        disc_init_steps: ``net_d_init_iters``: number of iterations in which D is trained alone at first.
        kwargs: Further arguments of :class:`VideoDeblurModel`.

    Raises:
        DBLRError: If ``disc_steps`` is not positive.
    """

    def __init__(
        self,
        generator: Config,
        discriminator: Config,
        gan_loss: Config,
        disc_steps: int = 1,
        disc_init_steps: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(generator, **kwargs)
        if disc_steps < 1:
            raise DBLRError(f'model.disc_steps is {disc_steps}, but must be at least 1')
        self.discriminator: Any = build_part(discriminator)
        prepare_network(self.discriminator)
        self.gan_loss = build_part(gan_loss)
        self.disc_steps = disc_steps
        self.disc_init_steps = disc_init_steps
        self.register_state_dict_post_hook(_name_weights_without_wrappers)

    def train_step(self, data: dict[str, Any], optim_wrapper: OptimWrapperDict) -> dict[str, Tensor]:
        """Runs one step of D and, unless only D is due, one of G.

        Returns:
            The log values: losses, and D's mean logits and probabilities.

        Raises:
            DBLRError: If there is one optimiser for all networks.
        """
        if not isinstance(optim_wrapper, OptimWrapperDict):
            raise DBLRError(
                "optim_wrapper: DBLRGANModel needs one per network; write constructor='MultiOptimWrapperConstructor', "
                'generator=dict(...), discriminator=dict(...)'
            )
        data = self.data_preprocessor(data, True)
        lq, gt = (torch.stack(x) if isinstance(x, list) else x for x in (data['lq'], data['gt']))
        lq, gt = (to_network_colour(frames, self.traits.channels) for frames in (lq, gt))
        iteration = MessageHub.get_current_instance().get_info('iter') + 1
        update_g = iteration % self.disc_steps == 0 and iteration > self.disc_init_steps

        restored = self._restored(lq, optim_wrapper['generator'], update_g)
        log = self._step_of_d(restored, gt, optim_wrapper['discriminator'])
        return log | (self._step_of_g(restored, gt, optim_wrapper['generator']) if update_g else {})

    def _restored(self, lq: Tensor, wrapper: OptimWrapper, with_graph: bool) -> list[Tensor]:
        """Runs G on a batch; G's BatchNorm statistics stay unchanged if it runs for D only."""
        kept = [] if with_graph else [buffer.clone() for buffer in self.generator.buffers()]
        with torch.set_grad_enabled(with_graph), wrapper.optim_context(self.generator):
            restored = restore_sizes(self.generator, lq, self.multi_scale)
        for buffer, value in zip(self.generator.buffers(), kept, strict=False):
            buffer.copy_(value)
        return restored

    def _step_of_d(self, restored: list[Tensor], gt: Tensor, wrapper: OptimWrapper) -> dict[str, Tensor]:
        with wrapper.optim_context(self.discriminator):
            real, fake = discriminator_logits(self.discriminator, gt, restored[0])
        losses = discriminator_losses(self.gan_loss, real, fake)
        wrapper.update_params(total_loss(losses))
        return losses | logs_of_logits(real.detach(), fake.detach(), output_is_probability(self.gan_loss))

    def _step_of_g(self, restored: list[Tensor], gt: Tensor, wrapper: OptimWrapper) -> dict[str, Tensor]:
        with wrapper.optim_context(self.generator):
            logits = generator_logits(_bare(self.discriminator), restored[0])
        self.discriminator.train()
        losses = {'l_g_gan': self.gan_loss(logits, True, is_disc=False)}
        losses |= {name.replace('l_', 'l_g_', 1): loss for name, loss in self._content_losses(restored, gt).items()}
        wrapper.update_params(total_loss(losses))
        return losses


def _bare(net: Any) -> Any:
    """Returns a network without MMEngine's wrapper."""
    return net.module if is_model_wrapper(net) else net


def _name_weights_without_wrappers(
    model: nn.Module, state: dict[str, Tensor], prefix: str, local_metadata: dict
) -> None:
    """Renames ``generator.module.body...``, which the Runner saves on several processes and could not resume on one."""
    wrappers = {
        f'{prefix}{name}.module.': f'{prefix}{name}.' for name, net in model.named_children() if _bare(net) is not net
    }
    for name in list(state):  # all of them, to keep their order
        wrapper = next(filter(name.startswith, wrappers), '')
        state[wrappers.get(wrapper, '') + name.removeprefix(wrapper)] = state.pop(name)


def _take_any_checkpoint(model: VideoDeblurModel, state: dict[str, Any], prefix: str, *told: object) -> None:
    """Converts the checkpoint read by ``load_from`` to weights of the generator, and rejects those that do not fit.

    MMEngine itself loads weights with matching names and ignores the rest.
    """
    if prefix:  # part of another model, such as EMAHook's
        return
    if not any(name.startswith('generator.') for name in state):
        weights = translated(named_weights(dict(state), 'load_from', 'params_ema'))
        state.clear()
        state.update({f'generator.{name}': value for name, value in weights.items()})
    own = {name.removeprefix('generator.'): v for name, v in state.items() if name.startswith('generator.')}
    matching_weights(_bare(model.generator), own, 'load_from')
