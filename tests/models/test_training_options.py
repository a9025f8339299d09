"""Options of ``train`` that BasicSR does not have, tested with complete models."""

import pytest
import torch
from basicsr.data import build_dataset
from basicsr.models import build_model
from running import batch, parsed, snapshot, train, trained, val_loader
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from dblr_plugin.errors import DBLRError


def moved(one, two) -> float:
    """Distance between the parameters of two networks, relative to their norm."""
    a, b = (torch.cat([p.flatten() for p in m.net_g.parameters()]) for m in (one, two))
    return float((a - b).norm() / a.norm())


AT_ONCE = {'amp': 'bf16', 'channels_last': True, 'accumulate': 4, 'clip_grad_norm': 1.0, 'ema_decay': 0.9}


@pytest.mark.slow
@pytest.mark.parametrize(('kind', 'how'), [
    ('net', AT_ONCE), ('gan', AT_ONCE), ('gan', {'accumulate': 2, 'freeze_bn': True}),
])  # fmt: skip
def test_speed_options_do_not_change_training(request, tmp_path, kind, how):
    options = request.getfixturevalue('gan_options' if kind == 'gan' else 'train_options')
    options['train']['optim_g']['lr'] = 1e-4
    plain, expected = trained(options, tmp_path / 'plain', freeze_bn=how.get('freeze_bn', False))
    model, log = trained(options, tmp_path / 'fast', **how)
    loss = 'l_g_pix' if kind == 'gan' else 'l_pix'
    assert log[loss] == pytest.approx(expected[loss], rel=0.05) and log['grad_g'] > 0
    assert moved(plain, model) < 2e-3
    assert all(p.dtype == torch.float32 for p in model.net_g.parameters())
    model.save(0, 3)
    weights = torch.load(tmp_path / f'fast/{options["name"]}/models/net_g_3.pth', weights_only=True)['params']
    assert all(v.is_contiguous() for v in weights.values())  # as other tools expect them


@pytest.mark.slow
def test_accumulation_equals_the_whole_batch(gan_options, tmp_path):
    """BatchNorm is frozen, as its statistics are those of a micro-batch."""
    gan_options['train'] |= {'freeze_bn': True}
    gan_options['train']['optim_g'] |= {'eps': 1e-4}
    gan_options['train']['optim_d'] |= {'eps': 1e-4}
    whole, expected = trained(gan_options, tmp_path / 'whole')
    micro_batches, log = trained(gan_options, tmp_path / 'micro_batches', accumulate=4)
    assert log == pytest.approx(expected, rel=1e-3)
    for net in ('net_g', 'net_d'):
        for a, b in zip(getattr(whole, net).parameters(), getattr(micro_batches, net).parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)


def test_accumulation_of_a_summed_loss_equals_the_whole_batch(train_options, tmp_path):
    train_options['train'] |= {'pixel_opt': {'type': 'CharbonnierLoss', 'reduction': 'sum'}, 'freeze_bn': True}
    _, expected = trained(train_options, tmp_path / 'whole', 1)
    _, log = trained(train_options, tmp_path / 'micro_batches', 1, accumulate=4)
    assert log == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(('scheduler', 'factor'), [
    ({'type': 'MultiStepLR', 'milestones': [100]}, 1.0), ({'type': 'PlateauLR'}, 1.0),
    ({'type': 'MultiStepLR', 'milestones': [2], 'gamma': 0.5}, 0.5),
    ({'type': 'CosineAnnealingRestartLR', 'periods': [1000000]}, 1.0),
], ids=str)  # fmt: skip
def test_warm_up_ends_at_the_scheduled_rate(gan_options, tmp_path, scheduler, factor):
    gan_options['train']['scheduler'] = scheduler
    model = build_model(parsed(gan_options, tmp_path))
    rates = []
    for iteration in range(1, 7):
        model.update_learning_rate(iteration, warmup_iter=4)
        rates.append([optimizer.param_groups[0]['lr'] for optimizer in model.optimizers])
    expected = [0.25, 0.5, 0.75, factor, factor, factor]
    assert rates == [pytest.approx([1e-3 * share, 1e-4 * share]) for share in expected]


def test_ema_starts_as_the_network(train_options, tmp_path):
    """This includes weights that are missing in a file loaded without ``strict_load_g``."""
    model, _ = trained(train_options, tmp_path, 1)
    weights = {k: v for k, v in snapshot(model.net_g).items() if not k.startswith('reconstruction.2')}
    torch.save({'params': weights}, tmp_path / 'part.pth')
    train_options['path'] |= {'pretrain_network_g': str(tmp_path / 'part.pth'), 'strict_load_g': False}
    model, _ = trained(train_options, tmp_path, 0, ema_decay=0.999)
    trained_weights, averaged = snapshot(model.net_g), snapshot(model.net_g_ema)
    assert all(torch.equal(value, averaged[name]) for name, value in trained_weights.items())
    assert torch.equal(averaged['conv_l1.weight'], weights['conv_l1.weight'])


def test_schedule_that_ends_before_the_training_is_refused(train_options, tmp_path):
    """A resumed run uses the schedule in its state, and BasicSR's cosine schedule fails when its periods end."""
    cosine = {'type': 'CosineAnnealingRestartLR', 'periods': [3]}
    model, _ = trained(train_options, tmp_path, 2, scheduler=cosine, total_iter=3)
    model.save(0, 2)
    again, _ = trained(train_options, tmp_path, 0, scheduler={**cosine, 'periods': [10]}, total_iter=10)
    again.opt['path']['resume_state'] = '2.state'
    with pytest.raises(DBLRError, match=r'2.state: its train.scheduler.periods, .* add up to 3 .*total_iter is 10;'):
        again.resume_training(torch.load(tmp_path / 'net/states/2.state'))


@pytest.mark.parametrize(('how', 'moves'), [
    ({}, 3), ({'accumulate': 2}, 2 * 3), ({'net_d_iters': 3}, 1), ({'net_d_init_iters': 2}, 1),
    ({'net_d_init_iters': 5}, 0),
], ids=str)  # fmt: skip
def test_batchnorm_of_g_is_updated_only_in_its_own_steps(gan_options, tmp_path, how, moves):
    """``moves``: updates in three iterations, one per micro-batch that G is trained on, none when it restores for D."""
    model, _ = trained(gan_options, tmp_path, 3, **how)
    norm = model.net_g.body[0].convs[1]
    assert norm.num_batches_tracked == moves
    assert bool(norm.running_mean.any()) == bool(moves)


@pytest.mark.slow
def test_resume_with_loss_scaling_is_bit_identical(gan_options, tmp_path):
    """The step after resuming is bit-identical to that of the uninterrupted run."""
    gan_options['network_g']['num_feat'] = 8
    model, _ = trained(gan_options, tmp_path, 2, amp='fp16')
    model.step_g.scaler.update(1024.0)
    model.save(0, 2)
    gan_options['train']['amp'] = 'fp16'
    gan_options['path'] |= {f'pretrain_network_{n}': str(tmp_path / f'gan/models/net_{n}_2.pth') for n in 'gd'}
    again = build_model(parsed(gan_options, tmp_path))
    again.resume_training(torch.load(tmp_path / 'gan/states/2.state', weights_only=True))
    assert again.step_g.scaler.get_scale() == 1024.0
    for resumed in (model, again):
        resumed.feed_data(batch())
        resumed.optimize_parameters(3)
    for net in ('net_g', 'net_d'):
        one, two = snapshot(getattr(model, net)), snapshot(getattr(again, net))
        assert all(torch.equal(one[k], two[k]) for k in one)


def test_state_without_loss_scales_is_resumed_in_fp16(train_options, tmp_path):
    model, _ = trained(train_options, tmp_path, 1)
    model.save(0, 1)
    again, _ = trained(train_options, tmp_path, 0, amp='fp16')
    again.opt['path']['resume_state'] = '1.state'
    again.resume_training(torch.load(tmp_path / 'net/states/1.state'))
    assert again.step_g.scaler.get_scale() == 2**16


def test_another_seed_is_told_when_resuming(train_options, tmp_path, caplog):
    model, _ = trained(train_options, tmp_path, 1)
    model.save(0, 1)
    for seed, told in ((train_options['manual_seed'], False), (7, True)):
        again, _ = trained(train_options | {'manual_seed': seed}, tmp_path, 0)
        again.opt['path']['resume_state'] = '1.state'
        again.resume_training(torch.load(tmp_path / 'net/states/1.state'))
        assert ('manual_seed is 7 in the option file and was' in caplog.text) is told


def test_going_back_is_told_and_leaves_later_checkpoints_aside(train_options, tmp_path, caplog):
    model, _ = trained(train_options, tmp_path, 2)
    for iteration in (1, 2):
        model.save(0, iteration)
    state = torch.load(tmp_path / 'net/states/1.state')
    model.resume_training(state)
    assert '2.state: not of this training, which goes on from iteration 1' in caplog.text
    assert sorted(path.name for path in (tmp_path / 'net/states').iterdir()) == ['1.state', '2.state.old']
    model.resume_training(state)
    assert caplog.text.count('not of this training') == 1


def test_sync_bn_without_effect_is_reported(gan_options, tmp_path, caplog):
    model, _ = trained(gan_options, tmp_path, 1, sync_bn=True)
    assert caplog.text.count('train.sync_bn changes nothing: one process trains') == 2  # G and D
    assert type(model.net_g.body[0].convs[1]) is torch.nn.BatchNorm2d


@pytest.mark.parametrize('optimizer', ['AdamW', 'SGD', 'RAdam'])
def test_torch_optimisers_are_found_by_name(train_options, tmp_path, optimizer):
    train_options['train']['optim_g'] = {'type': optimizer, 'lr': 1e-3}
    model, _ = trained(train_options, tmp_path, 1)
    assert type(model.optimizer_g) is getattr(torch.optim, optimizer)


@pytest.mark.slow
def test_plateau_of_content_loss_lowers_both_rates(gan_options, tmp_path):
    gan_options['train']['scheduler'] = {'type': 'PlateauLR', 'window': 2, 'patience': 1, 'threshold': 0.99}
    gan_options['train']['warmup_iter'] = 2
    model, _ = trained(gan_options, tmp_path, 6)
    rates = [optimizer.param_groups[0]['lr'] for optimizer in model.optimizers]
    assert rates == [pytest.approx(1e-4), pytest.approx(1e-5)]


@pytest.mark.parametrize('alone', [{'net_d_init_iters': 20}, {'net_d_iters': 20}], ids=str)
def test_plateau_ignores_iterations_without_content_loss(gan_options, tmp_path, alone):
    """While only D is trained there is no content loss that could reach a plateau."""
    gan_options['train']['scheduler'] = {'type': 'PlateauLR', 'window': 2, 'patience': 1}
    model, log = trained(gan_options, tmp_path, 8, **alone)
    assert 'l_g_pix' not in log
    assert [optimizer.param_groups[0]['lr'] for optimizer in model.optimizers] == [pytest.approx(1e-3), 1e-4]
    assert [scheduler.count for scheduler in model.schedulers] == [0, 0]


class TestMultiScale:
    """``train.multi_scale``: DeepDeblur's published loss, a mean squared error for each size."""

    network = {'type': 'DeepDeblur', 'num_frame': 5, 'num_feat': 8, 'num_block': 1, 'gaussian': True}

    def test_loss_is_the_sum_over_sizes(self, train_options, tmp_path):
        train_options['network_g'] = self.network
        train_options['train']['multi_scale'] = True
        torch.manual_seed(0)
        model = build_model(parsed(train_options, tmp_path))
        data, net = batch(), model.net_g
        blurry, sharp = net.pyramid(data['lq'][:, 2]), net.pyramid(data['gt'])
        coarse = net.coarse(blurry[2] - 0.5)
        middle = net.middle(torch.cat([blurry[1] - 0.5, net.coarse_up(coarse)], 1))
        fine = net.fine(torch.cat([blurry[0] - 0.5, net.middle_up(middle)], 1))
        errors = zip((fine, middle, coarse), sharp, strict=True)
        loss = sum(((output + 0.5 - truth) ** 2).mean() for output, truth in errors)
        expected = torch.autograd.grad(loss, net.coarse[0].weight)[0]
        train(model, 1)
        assert model.get_current_log()['l_pix'] == pytest.approx(loss.item(), rel=1e-5)
        torch.testing.assert_close(net.coarse[0].weight.grad, expected)

    def test_multi_scale_works_with_gan_and_accumulation(self, gan_options, tmp_path):
        gan_options['network_g'] = self.network
        gan_options['network_d']['num_in_ch'] = 3
        _, expected = trained(gan_options, tmp_path / 'whole', 1, multi_scale=True, freeze_bn=True)
        _, log = trained(gan_options, tmp_path / 'micro_batches', 1, multi_scale=True, freeze_bn=True, accumulate=2)
        assert log == pytest.approx(expected, rel=1e-3)
        _, plain = trained(gan_options, tmp_path / 'plain', 1, freeze_bn=True)
        assert plain['l_g_gan'] == pytest.approx(expected['l_g_gan'], rel=1e-3)
        assert plain['l_g_pix'] < 0.9 * expected['l_g_pix']


def test_strips_show_input_output_and_ground_truth(train_options, tmp_path):
    """Strips are saved as files and in TensorBoard, for the middle frame of each clip."""
    options = parsed(train_options, tmp_path)
    model, loader = build_model(options), val_loader(options)
    with SummaryWriter(tmp_path / 'tb') as writer:
        model.nondist_validation(loader, 7, writer, False)
    strips = sorted(p.name for p in (tmp_path / 'net/vis/strips/V').iterdir())
    assert strips == ['v_00000003_7.png', 'w_00000003_7.png']
    events = EventAccumulator(str(tmp_path / 'tb')).Reload()
    image = events.Images('samples/V/v_00000003')[0]
    assert (image.width, image.height, image.step) == (3 * 48, 48, 7)


class TestCausal:
    def options(self, train_options: dict) -> dict:
        train_options['network_g'] |= {'causal': True}
        for dataset in train_options['datasets'].values():
            dataset['causal'] = True
        return train_options

    def test_windows_have_only_past_frames(self, train_options, tmp_path):
        """The ground truth is that of a window's last frame, in training and in validation."""
        options = parsed(self.options(train_options), tmp_path)
        train_set, val_set = (build_dataset(options['datasets'][phase]) for phase in ('train', 'val'))
        assert len(train_set) == 2 * (8 - 4)  # each frame with four before it
        assert sorted(train_set[i]['key'] for i in range(4)) == [f'a/{i:08d}' for i in range(4, 8)]
        assert len(val_set) == 12
        shown = [sample['lq'] for sample in (val_set[i] for i in range(6))]
        for later, earlier in zip(shown[1:], shown, strict=False):
            assert torch.equal(later[:-1], earlier[1:])  # one frame later, with the newest frame last
        assert all(torch.equal(shown[0][0], frame) for frame in shown[0])  # the first frame is repeated

    def test_identity_returns_the_last_frame(self, train_options, tmp_path):
        options = self.options(train_options)
        options['network_g'] = {'type': 'BlurryInput', 'causal': True}
        model = build_model(parsed(options | {'is_train': False}, tmp_path) | {'is_train': False})
        window = torch.rand(1, 5, 3, 16, 16)
        assert torch.equal(model.restorer().restorer(window), window[:, -1])

    def test_causal_training_starts_as_the_identity(self, train_options, tmp_path):
        _model, log = trained(self.options(train_options), tmp_path, 2)
        window = torch.rand(1, 5, 3, 16, 16)
        start = build_model(parsed(self.options(train_options), tmp_path / 'new'))
        torch.testing.assert_close(start.restorer().restorer(window), window[:, -1])
        assert log['grad_g'] > 0


def test_checkpoints_store_the_network_options(train_options, tmp_path):
    model, _ = trained(train_options, tmp_path, 1)
    model.save(0, 1)
    content = torch.load(tmp_path / 'net/models/net_g_1.pth', weights_only=True)
    assert content['network'] == train_options['network_g'] and content['network']['type'] == 'DBLRNet'
