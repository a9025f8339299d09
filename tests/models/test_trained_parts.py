"""``train.lr_mul`` and ``train.train_only`` in complete trainings of EDVR."""

import copy

import pytest
import torch
from basicsr.models import build_model
from processes import dblr, write_options
from running import parsed


@pytest.fixture
def options(train_options: dict) -> dict:
    """Two iterations train TSA only, two train everything; DCN has a tenth of the learning rate."""
    train_options['network_g'] = {
        'type': 'EDVR', 'num_feat': 8, 'deformable_groups': 1, 'num_extract_block': 1, 'num_reconstruct_block': 1,
        'hr_in': True, 'with_predeblur': True,
    }  # fmt: skip
    train_options['val'] |= {'pad_multiple': 16}
    train_options['datasets']['train'] |= {'batch_size_per_gpu': 2, 'dataset_enlarge_ratio': 2}
    train_options['train'] |= {'lr_mul': {'dcn': 0.1}, 'train_only': {'fusion': 3}, 'ema_decay': 0.9, 'total_iter': 4}
    train_options['logger'] = {'print_freq': 1, 'save_checkpoint_freq': 4, 'use_tb_logger': False}
    return train_options


def weights(model) -> dict[str, torch.Tensor]:
    nets = {'net_g': model.net_g, 'net_g_ema': model.net_g_ema}
    return {f'{n} {k}': v.clone() for n, net in nets.items() for k, v in net.state_dict().items()}


def steps(model, parts: range) -> None:
    generator = torch.Generator().manual_seed(0)
    data = {'lq': torch.rand(2, 5, 3, 32, 32, generator=generator), 'gt': torch.rand(2, 3, 32, 32, generator=generator)}
    for iteration in parts:
        model.update_learning_rate(iteration)
        model.feed_data(data)
        model.optimize_parameters(iteration)


@pytest.mark.slow
def test_frozen_weights_stay_and_resume_is_bit_identical(options, tmp_path):
    def build_edvr():
        torch.manual_seed(0)
        return build_model(parsed(copy.deepcopy(options), tmp_path))

    model = build_edvr()
    start = weights(model)
    for iteration in range(1, 5):
        steps(model, range(iteration, iteration + 1))
        model.save(0, iteration)
        changed = {name for name, value in weights(model).items() if not torch.equal(value, start[name])}
        if iteration == 2:
            assert changed and all('fusion' in name for name in changed)
    assert changed >= {name for name in start if name.startswith('net_g ')}
    expected = weights(model)

    for iteration in (3, 2, 1):  # after the switch, at it and before it; resuming sets later states aside
        options['path']['pretrain_network_g'] = str(tmp_path / f'net/models/net_g_{iteration}.pth')
        again = build_edvr()
        again.resume_training(torch.load(tmp_path / f'net/states/{iteration}.state', weights_only=True))
        steps(again, range(iteration + 1, 5))
        found = weights(again)
        assert all(torch.equal(found[name], value) for name, value in expected.items()), iteration


@pytest.mark.slow
def test_two_processes_equal_one(options, tmp_path):
    """Frozen parameters have no gradient, so that DDP needs find_unused_parameters."""
    del options['datasets']['val']
    ends = []
    for processes in (1, 2):
        options['datasets']['train']['batch_size_per_gpu'] = 2 // processes
        folder = tmp_path / str(processes)
        folder.mkdir()
        run = dblr('train', '-opt', write_options(folder / 'edvr.yml', options), cwd=folder, processes=processes)
        assert run.returncode == 0, run.stderr
        ends.append(torch.load(folder / 'experiments/net/models/net_g_4.pth', weights_only=True))
    for name, value in ends[0]['params'].items():
        torch.testing.assert_close(ends[1]['params'][name], value, rtol=1e-3, atol=2e-5)
