"""Gradients of an iteration of DBLRGAN, batches that are not finite, and what is logged of the discriminator."""

import copy

import pytest
import torch
from basicsr.models import build_model
from running import batch, parsed, snapshot, train, trained

from dblr_plugin.errors import DBLRError


class TestOneIterationOfTheGan:
    """The gradients of both networks equal the paper's formulas, computed with our networks only."""

    ALPHA = 1000.0  # both losses have gradients of similar size, so that an error in either shows

    @pytest.fixture
    def networks(self, gan_options, tmp_path):
        """G and D before an iteration, and the model after it, with the batch as Y."""
        gan_options['train']['gan_opt']['loss_weight'] = self.ALPHA
        gan_options['train']['optim_d'] = {'type': 'Adam', 'lr': 1e-2}
        gan_options['network_d']['negative_slope'] = 0.2
        torch.manual_seed(0)
        model = build_model(parsed(gan_options, tmp_path))
        train(model, 1)  # moves the BatchNorm statistics away from their start
        before = copy.deepcopy(model.net_g).train(), copy.deepcopy(model.net_d).train()
        train(model, 1)
        return *before, model

    def generator_gradient(self, net_g, net_d, model) -> torch.Tensor:
        restored = net_g(model.lq)
        probability = 1 / (1 + torch.exp(-net_d.eval()(restored)))
        loss = ((model.gt - restored) ** 2).mean() + self.ALPHA * torch.log(1 - probability).mean()
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(net_g.parameters()))])

    def test_generator_uses_the_updated_discriminator(self, networks):
        """MSE + alpha log(1 - D(G)), with D after its own step and with its running statistics."""
        net_g, net_d, model = networks
        found = torch.cat([p.grad.flatten() for p in model.net_g.parameters()])
        expected = self.generator_gradient(copy.deepcopy(net_g), copy.deepcopy(model.net_d), model)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
        too_early = self.generator_gradient(copy.deepcopy(net_g), copy.deepcopy(net_d), model)
        assert (found - too_early).norm() > 0.01 * found.norm() > 10 * (found - expected).norm()

    def test_discriminator_uses_the_generator_before_its_step(self, networks):
        """-log D(sharp) - log(1 - D(G)), both in one batch."""
        net_g, net_d, model = networks
        with torch.no_grad():
            restored = net_g(model.lq)
        real, fake = (1 / (1 + torch.exp(-z)) for z in net_d(torch.cat([model.gt, restored])).chunk(2))
        loss = -torch.log(real).mean() - torch.log(1 - fake).mean()
        expected = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(net_d.parameters()))])
        found = torch.cat([p.grad.flatten() for p in model.net_d.parameters()])
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


class TestBadNumbers:
    def bad_batch(self) -> dict:
        data = batch() | {'key': ['a/0', 'a/1', 'b/0', 'b/1']}
        data['lq'][0, 0, 0, 0, 0] = float('nan')
        return data

    def test_bad_batch_is_skipped_and_named(self, gan_options, tmp_path, caplog):
        model, _ = trained(gan_options, tmp_path, 2)
        before = snapshot(model.net_g), snapshot(model.net_d)
        model.feed_data(self.bad_batch())
        model.optimize_parameters(3)
        for net, state in zip((model.net_g, model.net_d), before, strict=True):
            assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())
        assert 'iteration 3' in caplog.text and 'a/0, a/1, b/0, b/1' in caplog.text
        train(model, 1)
        assert all(torch.isfinite(p).all() for p in model.net_g.parameters())

    def test_bad_batch_changes_nothing_while_d_is_trained_alone(self, gan_options, tmp_path):
        """G only restores then, but in training mode, where BatchNorm updates its statistics."""
        model, _ = trained(gan_options, tmp_path, 2, net_d_init_iters=10)
        before = snapshot(model.net_g)
        model.feed_data(self.bad_batch())
        model.optimize_parameters(3)
        assert all(torch.equal(v, before[k]) for k, v in model.net_g.state_dict().items())

    def test_too_many_bad_batches_in_a_row_stop_the_run(self, train_options, tmp_path):
        model, _ = trained(train_options, tmp_path, 1, max_skipped_steps=3)
        for iteration, data in enumerate([self.bad_batch(), self.bad_batch(), batch(), self.bad_batch()], 2):
            model.feed_data(data)
            model.optimize_parameters(iteration)
        model.feed_data(self.bad_batch())
        model.optimize_parameters(6)
        model.feed_data(self.bad_batch())
        with pytest.raises(DBLRError, match='iteration 7.*a/0.*3 in a row.*lower the learning rate'):
            model.optimize_parameters(7)


class TestDiscriminatorsHealth:
    def test_probabilities_and_gradient_norms_are_logged(self, gan_options, tmp_path):
        _, log = trained(gan_options, tmp_path, 1)
        assert 0 < log['p_d_fake'] < 1 and 0 < log['p_d_real'] < 1
        assert log['grad_d'] > 0 and log['grad_g'] > 0

    def test_lsgan_logs_no_probability(self, gan_options, tmp_path):
        gan_options['train']['gan_opt'] = {'type': 'GANLoss', 'gan_type': 'lsgan', 'loss_weight': 1e-3}
        _, log = trained(gan_options, tmp_path, 1)
        assert 'p_d_real' not in log and 'out_d_real' in log

    @pytest.mark.slow
    def test_won_discriminator_is_reported(self, gan_options, tmp_path, caplog):
        """Black restored patches are easy to distinguish from noise."""
        gan_options['network_d']['negative_slope'] = 0.2
        gan_options['train'] |= {'net_d_init_iters': 1000, 'optim_d': {'type': 'Adam', 'lr': 3e-3}}
        torch.manual_seed(0)
        model = build_model(parsed(gan_options, tmp_path))
        model.d_monitor.memory = 20
        for i in range(1, 100):
            data = {name: frames[..., :16, :16] for name, frames in batch().items()}
            model.feed_data(data | {'lq': 0 * data['lq']})
            model.optimize_parameters(i)
        assert caplog.text.count('The discriminator has won') == 1

    @pytest.mark.slow
    def test_collapsed_discriminator_is_reported(self, gan_options, tmp_path, caplog):
        gan_options['train'] |= {'net_d_init_iters': 1000, 'optim_d': {'type': 'Adam', 'lr': 1e-9}}
        model = build_model(parsed(gan_options, tmp_path))
        model.d_monitor.memory = 5
        train(model, 15)
        assert caplog.text.count('The discriminator has collapsed') == 1
