"""What only a GPU shows: training in mixed precision, compiled and distributed, resuming, and memory that runs out.

scripts/gpu_check.sh runs these on a machine that has one; without CUDA they are skipped.
"""

import json

import pytest
import torch
from processes import dblr, write_options

from dblr_plugin.archs import DBLRNet
from dblr_plugin.restore.video_restorer import VideoRestorer

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device'),
]
# sums of a GPU come in any order: relative to the largest weight, after eight steps
RESUMED = 1e-3


def net_options(gan_options: dict, **changes) -> dict:
    options = {key: value for key, value in gan_options.items() if key != 'network_d'}
    options |= {'name': 'net', 'model_type': 'VideoDeblurModel', 'num_gpu': 'auto'}
    options['train'] |= {'total_iter': 8, 'warmup_iter': -1, 'optim_d': None, 'gan_opt': None, **changes}
    options['logger']['save_checkpoint_freq'] = 4
    return options


def train(options: dict, cwd, *arguments: str, processes: int = 1) -> dict[str, torch.Tensor]:
    path = write_options(cwd / 'net.yml', options)
    result = dblr('train', '-opt', path, *arguments, cwd=cwd, processes=processes)
    assert result.returncode == 0, result.stderr
    return torch.load(cwd / 'experiments/net/models/net_g_latest.pth', map_location='cpu')['params']


@pytest.mark.parametrize(
    'changes',
    [
        {},
        {'amp': 'bf16', 'channels_last': True},
        {'amp': 'fp16'},
        {'amp': 'bf16', 'compile': True},
        {'amp': 'bf16', 'compile': 'reduce-overhead'},
    ],
    ids=['fp32', 'bf16', 'fp16', 'compiled', 'graphs'],
)
def test_trains_and_validates(changes, gan_options, tmp_path):
    weights = train(net_options(gan_options, **changes), tmp_path)
    assert all(value.isfinite().all() for value in weights.values())
    assert json.loads((tmp_path / 'experiments/net/metrics.json').read_text())[-1]['mean']['psnr'] > 10


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason='one GPU')
def test_two_gpus_with_nccl(gan_options, tmp_path):
    weights = train(net_options(gan_options, amp='bf16'), tmp_path, processes=2)
    assert all(value.isfinite().all() for value in weights.values())


def test_resuming_continues_the_same_run(gan_options, tmp_path):
    options = net_options(gan_options)
    whole = train(options, tmp_path)
    models = tmp_path / 'experiments/net/models'
    for path in [*models.glob('*_latest.pth'), *models.glob('*_8.pth')]:
        path.unlink()
    (tmp_path / 'experiments/net/training_states/8.state').unlink(missing_ok=True)
    resumed = train(options, tmp_path, '--auto_resume')
    for key, value in whole.items():
        assert (resumed[key] - value).abs().max() <= RESUMED * max(value.abs().max(), 1), key


def test_tiles_where_memory_runs_out(caplog):
    torch.manual_seed(0)
    net = DBLRNet(num_feat=32, num_block=2).eval()
    options = {'type': 'DBLRNet', 'num_feat': 32, 'num_block': 2}
    frames = [torch.randint(0, 256, (720, 1280, 3), dtype=torch.uint8).numpy() for _ in range(5)]
    settings = {'device': 'cuda', 'backend': 'torch', 'precision': 'fp32'}
    expected = next(VideoRestorer(net, options, **settings, tile=256).restore(frames))
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 2**28) / total)
    try:
        restored = next(VideoRestorer(net, options, **settings).restore(frames))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert any('smaller tiles' in record.getMessage() for record in caplog.records)
    assert abs(restored.astype(int) - expected).max() <= 1
