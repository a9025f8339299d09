"""Registration, data sets, checkpoints and fixes of MMEngine, without complete trainings."""

import copy
import functools
import os
from pathlib import Path

import lmdb
import mmengine
import pytest
import torch
from mmengine.config import Config
from mmengine.fileio import LmdbBackend
from mmengine.hooks import EMAHook
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.optim import AmpOptimWrapper
from mmengine.registry import DATASETS, HOOKS, METRICS, MODELS
from mmengine.runner import Runner
from runs import as_config
from yapf_third_party._ylib2to3 import pygram
from yapf_third_party._ylib2to3.pgen2.grammar import Grammar

from dblr_plugin.archs import DBLRNet
from dblr_plugin.data.video_deblur_dataset import VideoDeblurDataset
from dblr_plugin.errors import DBLRError
from dblr_plugin.losses import MinimaxGANLoss
from dblr_plugin.mmengine import DBLRGANModel, ResumableSampler, VideoDeblurModel
from dblr_plugin.mmengine.registry import build_part
from dblr_plugin.mmengine.train import newest_checkpoint
from dblr_plugin.weights.checkpoint import NETWORK_KEY, load_state_dict, read_checkpoint, save_atomically

NETWORK = {'type': 'DBLRNet', 'num_feat': 16, 'num_block': 1}


def test_classes_are_found_with_and_without_the_scope():
    for prefix in ('', 'dblr.'):
        assert isinstance(MODELS.build({**NETWORK, 'type': f'{prefix}DBLRNet'}), DBLRNet)
        assert isinstance(MODELS.build({'type': f'{prefix}MinimaxGANLoss'}), MinimaxGANLoss)
        assert METRICS.build({'type': f'{prefix}ProtocolScores', 'protocol': 'luma'}).prefix == 'luma'
        assert HOOKS.get(f'{prefix}ComparisonImagesHook') is not None
        assert MODELS.get(f'{prefix}DBLRGANModel') is DBLRGANModel
    assert MODELS.get('dblr.CharbonnierLoss').__module__.startswith('basicsr.')


def test_unknown_part_is_named():
    for name in ('DBLRNetz', 'dblr.DBLRNetz'):
        with pytest.raises(DBLRError, match=f"no class '{name}' is registered; did you mean 'DBLRNet'"):
            build_part({'type': name})
    with pytest.raises(DBLRError, match="no class 'DBLRNetz' is registered; did you mean 'DBLRNet'"):
        VideoDeblurModel({'type': 'DBLRNetz'})


def test_network_without_weights_predicts():
    windows = torch.rand(2, 5, 3, 32, 32)
    _, second = VideoDeblurModel({'type': 'BlurryInput'}).eval()(windows, mode='predict')
    assert torch.equal(second['restored'], windows[1, 2])


def test_installed_mmengine_is_imported():
    assert 'site-packages' in mmengine.__file__


def test_cache_of_yapf_is_whole_once_it_has_its_name(tmp_path, monkeypatch):
    named = []
    for name in ('rename', 'replace'):
        rename = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda source, to, rename=rename: named.append(Path(source).read_bytes()) or rename(source, to)
        )
    cache = tmp_path / 'Grammar.pickle'
    pygram.pattern_grammar.dump(str(cache))
    assert named == [cache.read_bytes()]
    read = Grammar()
    read.load(str(cache))
    assert read.keywords == pygram.pattern_grammar.keywords


class TestDataSets:
    def options(self, footage: Path, **changes) -> dict:
        roots = {f'dataroot_{side}': str(footage / f'train/{side}') for side in ('lq', 'gt')}
        return {'type': 'VideoDeblurDataset', **roots, 'gt_size': 32, **changes}

    def test_data_set_is_that_of_basicsr(self, footage):
        dataset = DATASETS.build(self.options(footage))
        assert isinstance(dataset, VideoDeblurDataset) and len(dataset) == 8

    def test_invalid_options_are_reported(self, footage):
        with pytest.raises(DBLRError) as caught:
            DATASETS.build(self.options(footage, use_hfilp=True, batch_size_per_gpu=4, num_frame=4))
        for text in (
            "no option 'use_hfilp'; did you mean 'use_hflip'?", 'write batch_size beside dataset',
            'num_frame is 4, and must be a whole number from 1 and odd',
        ):  # fmt: skip
            assert text in str(caught.value)

    def test_windows_of_another_network_are_reported(self, footage):
        VideoDeblurModel({**NETWORK, 'causal': True})
        try:
            with pytest.raises(DBLRError, match='VideoDeblurDataset.causal is false, unlike model.generator'):
                DATASETS.build(self.options(footage))
            assert len(DATASETS.build(self.options(footage, causal=True))) == 8
        finally:
            MessageHub.get_current_instance().pop_info(NETWORK_KEY)

    def test_sampler_resumes_where_it_stopped(self):
        indices = functools.partial(zip, range(30))
        whole = [int(i) for _, i in indices(ResumableSampler(range(7), batch_size=2, seed=3))]
        sampler = ResumableSampler(range(7), batch_size=2, seed=0)
        sampler.resume(5, seed=3)
        assert [int(i) for _, i in indices(sampler)][:20] == whole[10:]


def runner(options: dict, folder: Path, **changes) -> Runner:
    config = as_config(options)
    config.merge_from_dict({'work_dir': str(folder), 'experiment_name': folder.name, **changes})
    return Runner.from_cfg(config)


def train(options: dict, folder: Path, changes: dict) -> None:
    runner(options, folder, **changes).train()


class TestConflicts:
    @pytest.mark.parametrize(
        ('changes', 'message'),
        [
            (
                {'train_dataloader.sampler': {'type': 'InfiniteSampler', '_delete_': True}},
                'sampler is InfiniteSampler, and Resum.* leave it out',
            ),
            ({'model': {'type': 'VideoDeblurModel', 'generator': NETWORK, '_delete_': True}}, 'neither pixel_loss nor'),
        ],
    )
    def test_training_is_refused(self, train_options, tmp_path, changes, message):
        with pytest.raises(DBLRError, match=message):
            train(train_options, tmp_path / 'run', changes)

    @pytest.mark.parametrize(
        ('changes', 'message'),
        [
            ({'paramwise_cfg': {'bias_lr_mult': 2.0}}, 'paramwise_cfg has no effect here; move it into'),
            ({'discriminatr': {}}, "no network 'discriminatr'; did you mean 'discriminator'"),
            (
                {'_delete_': True, 'type': 'OptimWrapper', 'optimizer': {'type': 'SGD', 'lr': 1.0}},
                'needs one per network',
            ),
        ],
    )
    def test_optimisers_are_refused(self, gan_options, tmp_path, changes, message):
        with pytest.raises(DBLRError, match=message):
            train(gan_options, tmp_path / 'run', {'optim_wrapper': changes})


class TestCheckpoints:
    @pytest.mark.slow
    def test_checkpoint_contains_ema_weights(self, train_options, tmp_path):
        """The weights of EMAHook are in the Runner's file and are read by ``read_checkpoint``."""
        train_options['train']['total_iter'] = 2
        hooks = [{'type': 'EMAHook', 'momentum': 0.5}]
        trained = runner(train_options, tmp_path / 'ema', custom_hooks=hooks)
        trained.train()
        content = read_checkpoint(tmp_path / 'ema/iter_2.pth')
        averaged = next(hook for hook in trained._hooks if isinstance(hook, EMAHook)).ema_model.module.generator
        for key, net in (('params', trained.model.generator), ('params_ema', averaged)):
            assert all(torch.equal(value, content[key][name]) for name, value in net.state_dict().items())
        assert any(not torch.equal(v, content['params_ema'][k]) for k, v in content['params'].items())
        assert content['network'] == train_options['network_g']

    def test_network_is_named_if_the_model_was_built_before_its_runner(self):
        model = VideoDeblurModel(NETWORK)
        hub = MessageHub.get_instance('of a Runner')  # a Runner saves its hub
        model.train()
        assert hub.get_info(NETWORK_KEY) == {'network': NETWORK}

    def test_average_starts_from_weights_of_basicsr(self, train_options, tmp_path):
        trained = DBLRNet(num_feat=16, num_block=1, input_skip=True).state_dict()
        save_atomically({'params': trained}, tmp_path / 'net.pth')
        hooks = [{'type': 'EMAHook'}]
        run = runner(train_options, tmp_path / 'run', custom_hooks=hooks, load_from=str(tmp_path / 'net.pth'))
        run.call_hook('before_run')
        run.load_or_resume()
        (averaged,) = (hook.ema_model.module.generator for hook in run._hooks if isinstance(hook, EMAHook))
        for net in (averaged, run.model.generator):
            assert all(torch.equal(value, trained[name]) for name, value in net.state_dict().items())

    def test_weights_of_another_network_are_refused(self, train_options, tmp_path):
        save_atomically({'params': DBLRNet(num_feat=16, num_block=2).state_dict()}, tmp_path / 'net.pth')
        model = runner(train_options, tmp_path / 'run', load_from=str(tmp_path / 'net.pth'))
        with pytest.raises(DBLRError, match='load_from: not a checkpoint of this DBLRNet'):
            model.train()

    def test_copied_folder_resumes_from_its_own_checkpoint(self, tmp_path):
        for folder in (tmp_path / 'first', tmp_path / 'copy'):
            folder.mkdir()
            (folder / 'iter_2.pth').touch()
            (folder / 'last_checkpoint').write_text(str(tmp_path / 'first/iter_2.pth'))
        assert newest_checkpoint(str(tmp_path / 'copy')) == str(tmp_path / 'copy/iter_2.pth')
        (tmp_path / 'copy/iter_2.pth').unlink()
        assert newest_checkpoint(str(tmp_path / 'copy')) == str(tmp_path / 'first/iter_2.pth')

    def test_weights_without_metadata_are_loaded(self, tmp_path):
        """MMagic publishes weights in this form."""
        model = VideoDeblurModel(NETWORK)
        torch.save({'meta': {}, 'state_dict': model.state_dict()}, tmp_path / 'published.pth')
        weights = load_state_dict(tmp_path / 'published.pth')
        assert weights.keys() == model.generator.state_dict().keys()

    def test_log_in_a_checkpoint_runs_no_code(self, tmp_path):
        class Malicious:
            def __reduce__(self):
                return getattr, (Path, 'home')

        state = {'generator.weight': torch.ones(1)}
        for log in ([HistoryBuffer([1.0], [1]), Malicious()], [Malicious()]):
            torch.save({'state_dict': state, 'message_hub': log}, tmp_path / 'a.pth')
            with pytest.raises(DBLRError, match='it holds .*which could run code and is not read'):
                read_checkpoint(tmp_path / 'a.pth')

    def test_loss_that_is_not_finite_stops_the_run(self, train_options, tmp_path):
        run = runner(train_options, tmp_path / 'run', **{'model.pixel_loss.loss_weight': float('nan')})
        with pytest.raises(DBLRError, match=r'iteration 1: loss, l_pix not finite, with samples [ab]/'):
            run.train()
        assert not list((tmp_path / 'run').glob('*.pth'))


class TestFixes:
    def test_database_can_be_opened_twice(self, tmp_path):
        with lmdb.open(str(tmp_path / 'a.lmdb')) as environment, environment.begin(write=True) as transaction:
            transaction.put(b'clip/0', b'frame')
        one, two = LmdbBackend(tmp_path / 'a.lmdb'), LmdbBackend(tmp_path / 'a.lmdb')
        assert one.get('clip/0') == two.get('clip/0') == b'frame'
        del one
        assert two.get('clip/0') == b'frame'

    def test_configs_of_installed_packages_can_be_bases(self, tmp_path, monkeypatch):
        package = tmp_path / 'mmagic'  # MMEngine knows only OpenMMLab's packages
        (package / '.mim/configs/nets').mkdir(parents=True)
        (package / '__init__.py').touch()
        (package / '.mim/configs/nets/base.py').write_text('a = 1\n')
        (package / '.mim/model-index.yml').write_text('Import: []\n')
        (tmp_path / 'mine.py').write_text("_base_ = 'mmagic::nets/base.py'\nb = 2\n")
        monkeypatch.syspath_prepend(tmp_path)
        config = Config.fromfile(tmp_path / 'mine.py')
        assert (config.a, config.b) == (1, 2)

    def test_mixed_precision_works_without_gpus(self):
        net = torch.nn.Linear(2, 1)
        before, optimizer = net.weight.clone(), torch.optim.SGD(net.parameters(), lr=1.0)
        wrapper = AmpOptimWrapper(optimizer=optimizer, dtype='bfloat16', clip_grad={'max_norm': 0.5})
        with wrapper.optim_context(net):
            output = net(torch.ones(1, 2))
        assert output.dtype == torch.bfloat16
        wrapper.update_params(output.float().sum())
        # the gradients of both weights and the bias are 1, clipped to a norm of 0.5
        torch.testing.assert_close(before - net.weight, torch.full((1, 2), 0.5 / 3**0.5))
        AmpOptimWrapper(optimizer=optimizer).load_state_dict(wrapper.state_dict())

    def test_history_buffer_is_loaded_as_weights_only(self, tmp_path):
        history = HistoryBuffer([1.0, 2.0], [1, 1])
        torch.save(history, tmp_path / 'a.pth')
        assert torch.load(tmp_path / 'a.pth', weights_only=True).mean() == 1.5
        assert copy.deepcopy(history).max() == 2.0
