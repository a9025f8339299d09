"""VideoDeblurModel and DBLRGANModel: training, checkpoints and validation."""

import importlib.util
import json
import logging

import numpy as np
import pytest
import torch
from basicsr.data import build_dataset
from basicsr.metrics import calculate_psnr
from basicsr.models import build_model
from basicsr.utils import tensor2img
from running import batch, parsed, snapshot, train, val_loader
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import default_collate
from torch.utils.tensorboard import SummaryWriter

from dblr_plugin.errors import DBLRError
from dblr_plugin.evaluation.protocols import PROTOCOLS
from dblr_plugin.evaluation.scores import format_table
from dblr_plugin.restore.frame_restorer import FrameRestorer, SelfEnsemble


class TestTraining:
    @pytest.mark.parametrize('channels', [1, 3])
    def test_network_gets_its_number_of_channels(self, train_options, tmp_path, channels):
        train_options['network_g'] |= {'num_in_ch': channels, 'num_out_ch': channels}
        model = build_model(parsed(train_options, tmp_path))
        model.feed_data(batch())
        assert model.lq.shape == (4, 5, channels, 32, 32) and model.gt.shape == (4, channels, 32, 32)
        before = snapshot(model.net_g)
        train(model, 1)
        assert not torch.equal(before['reconstruction.4.weight'], model.net_g.reconstruction[4].weight)

    def test_ema_includes_batchnorm_statistics(self, train_options, tmp_path):
        """BasicSR's EMA leaves them at their initial values."""
        train_options['train']['ema_decay'] = 0.9
        model = build_model(parsed(train_options, tmp_path))
        start = snapshot(model.net_g)['conv_l1.weight']
        train(model, 1)
        current, averaged = model.net_g.state_dict(), model.net_g_ema.state_dict()
        assert averaged['body.0.convs.1.num_batches_tracked'] == 1
        assert torch.equal(averaged['body.0.convs.1.running_mean'], current['body.0.convs.1.running_mean'])
        torch.testing.assert_close(averaged['conv_l1.weight'], 0.9 * start + 0.1 * current['conv_l1.weight'])

    def test_faulty_first_batch_is_refused(self, train_options, tmp_path):
        model = build_model(parsed(train_options, tmp_path))
        with pytest.raises(DBLRError, match=r'datasets.train: lq reaches \d+; a sample must be a dict'):
            model.feed_data({key: frames * 255 for key, frames in batch().items()})

    def test_network_without_weights_is_refused(self, train_options, tmp_path):
        train_options['network_g'] = {'type': 'BlurryInput'}
        with pytest.raises(DBLRError, match=r'network_g.type is BlurryInput, which has no weights to train'):
            build_model(parsed(train_options, tmp_path))

    @pytest.mark.parametrize(('name', 'told'), [('DBN', True), ('BlurryInput', False)])
    def test_untrained_network_is_told_in_a_test(self, train_options, tmp_path, name, told, caplog):
        options = parsed(train_options | {'network_g': {'type': name}}, tmp_path) | {'is_train': False}
        build_model(options)
        assert (f'{name} is tested with its initial weights' in caplog.text) is told

    def test_frozen_batchnorm_keeps_its_statistics(self, gan_options, tmp_path):
        gan_options['train']['freeze_bn'] = True
        model = build_model(parsed(gan_options, tmp_path))
        model.nondist_validation(val_loader(gan_options), 1, None, False)  # must not unfreeze it
        before = snapshot(model.net_g), snapshot(model.net_d)
        train(model)
        for net, old in zip((model.net_g, model.net_d), before, strict=True):
            for name, module in net.named_modules():
                if isinstance(module, _BatchNorm):
                    assert torch.equal(module.running_mean, old[f'{name}.running_mean'])
        assert not torch.equal(before[0]['reconstruction.4.weight'], model.net_g.reconstruction[4].weight)

    def test_gan_updates_both_networks_in_turn(self, gan_options, tmp_path):
        model = build_model(parsed(gan_options, tmp_path))
        before = snapshot(model.net_g), snapshot(model.net_d)
        train(model, 1)
        assert not torch.equal(before[0]['reconstruction.4.weight'], model.net_g.reconstruction[4].weight)
        assert not torch.equal(before[1]['features.0.weight'], model.net_d.features[0].weight)
        log = model.get_current_log()
        assert {'l_g_pix', 'l_g_gan', 'l_d_real', 'l_d_fake', 'out_d_real', 'out_d_fake'} <= log.keys()
        assert log['l_g_gan'] < 0  # alpha * log(1 - D)

    @pytest.mark.slow
    def test_discriminator_learns_from_few_patches(self, gan_options, tmp_path):
        """With sharp and restored patches in separate batches, the loss stays at chance level, log(2) = 0.693."""
        gan_options['network_d'] |= {'negative_slope': 0.2}
        gan_options['train'] |= {'net_d_init_iters': 1000, 'optim_d': {'type': 'Adam', 'lr': 1e-3}}
        options = parsed(gan_options, tmp_path)
        torch.manual_seed(0)
        model, dataset = build_model(options), build_dataset(options['datasets']['train'])
        losses = []
        for i in range(60):
            model.feed_data(default_collate([dataset[i % len(dataset)], dataset[(i + 5) % len(dataset)]]))
            model.optimize_parameters(i)
            losses.append((model.get_current_log()['l_d_real'] + model.get_current_log()['l_d_fake']) / 2)
        assert np.mean(losses[-20:]) < 0.6

    def test_net_d_init_iters_trains_d_alone_first(self, gan_options, tmp_path):
        gan_options['train']['net_d_init_iters'] = 3
        model = build_model(parsed(gan_options, tmp_path))
        start = snapshot(model.net_g)
        train(model, 3)
        assert all(torch.equal(p, start[n]) for n, p in model.net_g.named_parameters())
        model.feed_data(batch())
        model.optimize_parameters(4)
        assert not torch.equal(start['reconstruction.4.weight'], model.net_g.reconstruction[4].weight)

    def test_vanilla_gan_loss_is_supported(self, gan_options, tmp_path):
        gan_options['train']['gan_opt'] = {'type': 'GANLoss', 'gan_type': 'vanilla', 'loss_weight': 2e-4}
        model = build_model(parsed(gan_options, tmp_path))
        train(model, 1)
        assert model.get_current_log()['l_g_gan'] > 0

    def test_basicsrs_edvr_trains_and_validates(self, train_options, tmp_path):
        """EDVR is RGB, has deformable convolutions and needs multiples of 16, so that 48x40 is padded."""
        train_options['network_g'] = {
            'type': 'EDVR', 'num_feat': 8, 'deformable_groups': 1, 'num_extract_block': 1, 'num_reconstruct_block': 1,
            'hr_in': True, 'with_predeblur': True,
        }  # fmt: skip
        model = build_model(parsed(train_options, tmp_path))
        train(model, 1)
        assert model.restorer().restorer(torch.rand(1, 5, 3, 48, 40)).shape == (1, 3, 48, 40)


class TestCheckpoints:
    def test_saved_networks_load_again(self, train_options, tmp_path):
        train_options['train']['ema_decay'] = 0.9
        options = parsed(train_options, tmp_path)
        model = build_model(options)
        train(model)
        model.save(0, 3)
        options['path']['pretrain_network_g'] = str(tmp_path / 'net/models/net_g_3.pth')
        again = build_model(options)
        for name in ('net_g', 'net_g_ema'):
            old, new = snapshot(getattr(model, name)), snapshot(getattr(again, name))
            assert all(torch.equal(old[k], new[k]) for k in old)

    def test_failed_save_is_reported_but_the_last_one_is_an_error(self, train_options, tmp_path, caplog):
        model = build_model(parsed(train_options, tmp_path))
        (tmp_path / 'net/models').rmdir()
        model.save(0, 3)  # training continues
        assert 'iteration 3 could not be saved' in caplog.text
        with pytest.raises(DBLRError, match='could not be saved'):
            model.save(0, -1)


class TestValidation:
    def test_scores_equal_those_of_single_frames(self, train_options, tmp_path):
        options = parsed(train_options, tmp_path)
        model = build_model(options)
        train(model)
        loader = val_loader(options)
        model.nondist_validation(loader, 3, None, False)
        restore = model.restorer().restorer
        by_clip: dict[str, list[float]] = {}
        for sample in loader:
            images = [tensor2img(restore(sample['lq'])), tensor2img(sample['gt'])]
            by_clip.setdefault(sample['folder'][0], []).append(calculate_psnr(*images, crop_border=0))
        entry = json.loads((tmp_path / 'net/metrics.json').read_text())[0]
        assert entry['protocol'] == 'basicsr' and entry['iter'] == 3 and entry['dataset'] == 'V'
        assert {c: f['psnr'] for c, f in entry['clips'].items()} == {c: np.mean(v) for c, v in by_clip.items()}
        assert entry['mean']['psnr'] == np.mean([np.mean(v) for v in by_clip.values()])

    def test_blurry_input_is_scored_once(self, train_options, tmp_path, caplog, monkeypatch):
        monkeypatch.setattr(logging.getLogger('basicsr'), 'propagate', True)  # other tests may have turned it off
        caplog.set_level(logging.INFO, 'basicsr')
        options = parsed(train_options, tmp_path)
        model = build_model(options)
        loader = val_loader(options)
        for iteration in (1, 2):
            model.nondist_validation(loader, iteration, None, False)
        first, second = json.loads((tmp_path / 'net/metrics.json').read_text())
        by_clip: dict[str, list[float]] = {}
        for sample in loader:
            images = [tensor2img(sample['lq'][:, 2]), tensor2img(sample['gt'])]
            by_clip.setdefault(sample['folder'][0], []).append(calculate_psnr(*images, crop_border=0))
        assert {c: f['psnr'] for c, f in first['input']['clips'].items()} == {c: np.mean(v) for c, v in by_clip.items()}
        assert first['input'] == second['input']
        assert f'Blurry input: {first["input"]["mean"]["psnr"]:.4f}' in caplog.text
        assert f'{first["input"]["mean"]["psnr"]:.4f}' in format_table(first).splitlines()[-1]

    @pytest.mark.parametrize(
        ('backend', 'precision', 'tolerance'),
        [
            ('torch', 'fp32', 2e-3),
            pytest.param('torch', 'bf16', 0.2, marks=pytest.mark.slow),
            pytest.param('openvino', 'fp32', 2e-3, marks=pytest.mark.slow),
            pytest.param('mnn', 'fp32', 2e-3, marks=pytest.mark.slow),
            pytest.param('openvino', 'int8', 0.2, marks=pytest.mark.slow),
            pytest.param('auto', 'auto', 0.2, marks=pytest.mark.slow),
        ],
    )
    def test_fast_backends_score_like_the_plain_network(self, train_options, tmp_path, backend, precision, tolerance):
        if backend in ('openvino', 'mnn'):
            pytest.importorskip({'mnn': 'MNN'}.get(backend, backend))
        if precision == 'int8':
            pytest.importorskip('nncf')
        train_options['val'] |= {'backend': backend, 'precision': precision}
        options = parsed(train_options, tmp_path)
        model = build_model(options)
        for parameter in model.net_g.reconstruction[-1].parameters():  # initialised to zero
            torch.nn.init.normal_(parameter, std=0.02)
        train(model)
        loader = val_loader(options)
        model.nondist_validation(loader, 3, None, False)
        assert all(module.training for module in model.net_g.modules())  # folding must not change this network
        plain, by_clip = FrameRestorer(model.net_g.eval(), model.traits), {}
        for sample in loader:
            images = [tensor2img(plain(sample['lq'])), tensor2img(sample['gt'])]
            by_clip.setdefault(sample['folder'][0], []).append(calculate_psnr(*images, crop_border=0))
        entry = json.loads((tmp_path / 'net/metrics.json').read_text())[0]
        for clip, values in by_clip.items():
            assert entry['clips'][clip]['psnr'] == pytest.approx(np.mean(values), abs=tolerance)

    def test_a_test_takes_the_weights_that_validation_scored(self, train_options, tmp_path):
        """BasicSR's takes those under ``params``, which no validation scored if there is EMA."""
        train_options['train']['ema_decay'] = 0.9
        model = build_model(parsed(train_options, tmp_path))
        train(model, 1)
        model.save(0, 1)
        options = parsed(train_options, tmp_path) | {'is_train': False}
        options['path']['pretrain_network_g'] = str(tmp_path / options['name'] / 'models/net_g_1.pth')
        for given, net in (({}, model.net_g_ema), ({'param_key_g': 'params'}, model.net_g)):
            tested = build_model(options | {'path': options['path'] | given})
            assert all(torch.equal(value, net.state_dict()[name]) for name, value in tested.net_g.state_dict().items())

    def test_self_ensemble_is_scored(self, train_options, tmp_path):
        train_options['val']['self_ensemble'] = True
        options = parsed(train_options, tmp_path)
        model = build_model(options)
        for parameter in model.net_g.reconstruction[-1].parameters():  # initialised to zero
            torch.nn.init.normal_(parameter, std=0.02)
        loader = val_loader(options)
        model.nondist_validation(loader, 3, None, False)
        restore = FrameRestorer(SelfEnsemble(model.net_g.eval(), reverse=True), model.traits)
        by_clip: dict[str, list[float]] = {}
        for sample in loader:
            images = [tensor2img(restore(sample['lq'])), tensor2img(sample['gt'])]
            by_clip.setdefault(sample['folder'][0], []).append(calculate_psnr(*images, crop_border=0))
        entry = json.loads((tmp_path / 'net/metrics.json').read_text())[0]
        found = {clip: figures['psnr'] for clip, figures in entry['clips'].items()}
        assert found == pytest.approx({clip: np.mean(values) for clip, values in by_clip.items()})

    def test_missing_backend_is_refused_before_training(self, train_options, tmp_path, monkeypatch):
        train_options['val']['backend'] = 'openvino'
        monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
        with pytest.raises(DBLRError, match='val: backend openvino needs: pip install openvino'):
            build_model(parsed(train_options, tmp_path))

    @pytest.mark.slow
    def test_sets_with_the_same_clips_are_recorded_separately(self, train_options, tmp_path):
        second = {**train_options['datasets']['val'], 'name': 'W', 'padding': 'circle'}
        train_options['datasets']['val_2'] = second
        options = parsed(train_options, tmp_path)
        model = build_model(options)
        for parameter in model.net_g.reconstruction[-1].parameters():  # initialised to zero
            torch.nn.init.normal_(parameter, std=0.02)
        with SummaryWriter(tmp_path / 'tb') as writer:
            for name in ('val', 'val_2'):
                model.nondist_validation(val_loader(options, name), 3, writer, False)
        events = EventAccumulator(str(tmp_path / 'tb')).Reload()
        entries = json.loads((tmp_path / 'net/metrics.json').read_text())
        assert [e['dataset'] for e in entries] == ['V', 'W']
        assert entries[0]['mean']['psnr'] != entries[1]['mean']['psnr']
        for tag, value in (
            ('metrics/V/psnr', entries[0]['mean']['psnr']),
            ('metrics/W/psnr/v', entries[1]['clips']['v']['psnr']),
        ):
            assert events.Scalars(tag)[0].value == pytest.approx(value, rel=1e-6)

    def test_images_of_a_validation_have_the_iteration_in_their_name(self, train_options, tmp_path):
        options = parsed(train_options, tmp_path)
        build_model(options).nondist_validation(val_loader(options), 7, None, True)
        folder = tmp_path / 'net/vis'
        images = sorted(p.relative_to(folder).as_posix() for p in (folder / 'V').rglob('*.png'))
        assert images == [f'V/{c}/{i:08d}_7.png' for c in 'vw' for i in range(6)]

    @pytest.mark.parametrize('remove', ['metrics', 'dataroot_gt'])
    def test_images_are_saved_without_metrics_or_ground_truth(self, train_options, tmp_path, remove):
        options = parsed(train_options, tmp_path)
        options['val'].pop(remove, None)
        options['datasets']['val'].pop(remove, None)
        build_model(options).nondist_validation(val_loader(options), 1, None, True)
        assert len(list((tmp_path / 'net/vis/V').rglob('*.png'))) == 12
        assert not (tmp_path / 'net/metrics.json').exists()

    def test_last_validation_is_not_repeated(self, train_options, tmp_path):
        """BasicSR validates again at the end, with an iteration beyond total_iter."""
        options = parsed(train_options, tmp_path)
        model, loader = build_model(options), val_loader(options)
        for current_iter in (5, 10, 12):
            model.nondist_validation(loader, current_iter, None, False)
        path = tmp_path / 'net/metrics.json'
        assert [entry['iter'] for entry in json.loads(path.read_text())] == [5, 10]
        model.iteration = 12  # resumed with a lower total_iter, which would get the scores of later weights
        model.nondist_validation(loader, 13, None, False)
        assert [entry['iter'] for entry in json.loads(path.read_text())] == [5, 10, 12]

    def test_luma_metrics_are_recorded_as_protocol_luma(self, train_options, tmp_path):
        for metric in train_options['val']['metrics'].values():
            metric['test_y_channel'] = True
        options = parsed(train_options, tmp_path)
        build_model(options).nondist_validation(val_loader(options), 1, None, False)
        assert json.loads((tmp_path / 'net/metrics.json').read_text())[0]['protocol'] == 'luma'


class TestProtocols:
    def validate(self, options: dict, root, protocol=None, writer=None):
        """Validates a network after a little training; returns it and the entries of metrics.json."""
        if protocol:
            options['val']['protocol'] = protocol
        torch.manual_seed(0)
        model = build_model(parsed(options, root))
        train(model)  # an untrained network returns its input
        model.nondist_validation(val_loader(options), 3, writer, False)
        return model, json.loads((root / 'net/metrics.json').read_text())

    @pytest.mark.slow
    def test_protocol_basicsr_equals_the_default_metrics(self, train_options, tmp_path):
        named, configured = (
            self.validate(train_options, tmp_path / folder, protocol)[1]
            for folder, protocol in (('metrics', None), ('protocol', 'basicsr'))
        )
        assert named == configured and named[0]['protocol'] == 'basicsr'

    @pytest.mark.slow
    def test_all_protocols_are_scored_in_one_pass(self, train_options, tmp_path):
        with SummaryWriter(tmp_path / 'tb') as writer:
            model, entries = self.validate(train_options, tmp_path, 'all', writer)
        assert [e['protocol'] for e in entries] == list(PROTOCOLS)
        assert {(e['dataset'], e['iter']) for e in entries} == {('V', 3)}
        assert len({(e['mean']['psnr'], e['mean']['ssim']) for e in entries}) == len(PROTOCOLS)
        # the first protocol has plain names; the others have their own prefix
        names = {e['protocol']: '' if i == 0 else f'{e["protocol"]}/' for i, e in enumerate(entries)}
        events = EventAccumulator(str(tmp_path / 'tb')).Reload()
        for entry in entries:
            label = names[entry['protocol']]
            for metric, value in entry['mean'].items():
                assert model.best_metric_results['V'][label + metric] == {'better': 'higher', 'val': value, 'iter': 3}
                assert events.Scalars(f'metrics/V/{label}{metric}')[0].value == pytest.approx(value, rel=1e-6)
                tag = f'metrics/V/{label}{metric}/v'
                assert events.Scalars(tag)[0].value == pytest.approx(entry['clips']['v'][metric], rel=1e-6)

    @pytest.mark.slow
    def test_list_of_protocols_keeps_order_and_scores(self, train_options, tmp_path):
        several = self.validate(train_options, tmp_path / 'list', ['vrt-matlab', 'cdvd-tsp'])[1]
        alone = self.validate(train_options, tmp_path / 'alone', 'cdvd-tsp')[1]
        assert [e['protocol'] for e in several] == ['vrt-matlab', 'cdvd-tsp'] and several[1:] == alone
        assert alone[0]['frames'] == {'v': 2, 'w': 2}

    @pytest.mark.slow
    def test_best_scores_are_kept_per_metric(self, train_options, tmp_path):
        """Each metric of each protocol has its own best score, by its ``better``."""
        train_options['val']['metrics']['psnr']['better'] = 'lower'
        model, _entries = self.validate(train_options, tmp_path)
        train(model, 5)
        model.nondist_validation(val_loader(train_options), 5, None, False)
        first, second = (e['mean'] for e in json.loads((tmp_path / 'net/metrics.json').read_text()))
        best = model.best_metric_results['V']
        assert best['psnr']['val'] == min(first['psnr'], second['psnr'])
        assert best['ssim']['val'] == max(first['ssim'], second['ssim'])
