"""One optimisation step: accumulation, clipping, loss scaling and skipping of non-finite values."""

import os

import pytest
import torch
import torch.distributed as dist
from processes import warm
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from dblr_plugin.errors import DBLRError
from dblr_plugin.training.step import Step, move_average


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 1, 3, padding=1))


def batch(size: int = 4) -> torch.Tensor:
    return torch.rand(size, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def step_of(net: nn.Module, **kwargs) -> Step:
    return Step(net, torch.optim.SGD(net.parameters(), lr=0.1), **kwargs)


def run(step: Step, *micro_batches: torch.Tensor, factor: float = 1.0):
    step.begin()
    return step.run(micro_batches, lambda piece: {'l_pix': (step.net(piece) - 1).square().mean() * factor})


def state(net: nn.Module) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in net.state_dict().items()}


def unchanged(net: nn.Module, before: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_step_equals_a_plain_torch_step():
    ours, reference = network(), network()
    result = run(step_of(ours), batch())
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.1)
    loss = (reference(batch()) - 1).square().mean()
    loss.backward()
    optimizer.step()
    assert unchanged(ours, reference.state_dict()) and result.losses['l_pix'] == loss and not result.skipped
    gradients = torch.cat([p.grad.flatten() for p in reference.parameters()])
    torch.testing.assert_close(result.grad_norm, gradients.norm())


def test_micro_batches_equal_the_whole_batch():
    whole, micro_batches = (network().eval() for _ in range(2))  # in training mode, BatchNorm would see other batches
    first = run(step_of(whole), batch())
    second = run(step_of(micro_batches), *batch().chunk(4))
    torch.testing.assert_close(second.losses['l_pix'], first.losses['l_pix'])
    for a, b in zip(whole.parameters(), micro_batches.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_clipping_limits_the_size_of_the_step():
    net = network()
    before = state(net)
    result = run(step_of(net, clip_grad_norm=0.01), batch())
    moved = torch.cat([(p - before[n]).flatten() for n, p in net.named_parameters()]).norm()
    assert result.grad_norm > 0.01
    assert float(moved) == pytest.approx(0.1 * 0.01, rel=1e-3)  # learning rate times limit


@pytest.mark.parametrize('scaling', [False, True])
@pytest.mark.parametrize('bad', [float('nan'), float('inf')])
def test_non_finite_input_changes_nothing(bad, scaling):
    net = network()
    step = step_of(net, loss_scaling=scaling)
    run(step, batch())
    before = state(net)
    damaged = batch()
    damaged[0, 0, 0, 0] = bad
    result = run(step, damaged)
    assert result.skipped and not result.loss_is_finite
    assert unchanged(net, before)  # also BatchNorm's statistics, which the forward pass changed
    assert not run(step, batch()).skipped and not unchanged(net, before)


class Replacing(nn.Module):
    """Assigns a new tensor to its statistics in each pass, as many networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = network()
        self.register_buffer('mean', torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.mean = 0.9 * self.mean + 0.1 * x.detach().mean()
        return self.layers(x) * self.mean


def test_statistics_that_the_network_replaces_are_restored():
    """They stayed NaN after a skipped step, and with them all that the network returned."""
    net = Replacing()
    step = step_of(net)
    run(step, batch())
    before = state(net)
    assert run(step, batch() * float('nan')).skipped and unchanged(net, before)
    assert not run(step, batch()).skipped


def test_overflowing_gradient_changes_nothing():
    net = network()
    before = state(net)
    result = run(step_of(net), batch(), factor=1e38)
    assert result.skipped and result.loss_is_finite and unchanged(net, before)


def test_too_large_loss_scale_is_lowered_without_a_skip():
    net = network()
    step = step_of(net, loss_scaling=True)
    before = {n: p.clone() for n, p in net.named_parameters()}
    step.scaler.load_state_dict({**step.scaler.state_dict(), 'scale': 1e38})
    for _ in range(200):
        result = run(step, batch(), factor=1e3)
        assert not result.skipped
        if torch.isfinite(result.grad_norm):
            break
    assert step.scaler.get_scale() < 1e38
    assert any(not torch.equal(p, before[n]) for n, p in net.named_parameters())


def test_overflow_at_a_small_loss_scale_is_skipped():
    step = step_of(network(), loss_scaling=True)
    step.scaler.load_state_dict({**step.scaler.state_dict(), 'scale': 0.5})
    assert run(step, batch(), factor=3e38).skipped


def _skip_on_two(rank: int, folder: str) -> None:
    os.environ |= {'MASTER_ADDR': '127.0.0.1'}
    dist.init_process_group('gloo', init_method=f'file://{folder}/meeting', rank=rank, world_size=2)
    step = step_of(DistributedDataParallel(network()))
    run(step, batch())
    before = state(step.net)
    damaged = batch()
    damaged[:, :, :, :] = float('nan') if rank else damaged
    result = run(step, damaged)
    assert result.skipped and result.loss_is_finite == (rank == 0)
    assert unchanged(step.net, before)
    assert not run(step, *batch().chunk(2)).skipped
    gathered = [None, None]
    dist.all_gather_object(gathered, [p.detach().sum().item() for p in step.net.parameters()])
    assert gathered[0] == gathered[1]
    dist.destroy_process_group()


@pytest.mark.slow
def test_non_finite_input_of_one_process_skips_the_step_in_all(tmp_path):
    processes = [warm().Process(target=_skip_on_two, args=(rank, str(tmp_path))) for rank in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0


class Late(nn.Module):
    """Makes a buffer in its first forward pass, and enlarges another."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1)
        self.register_buffer('cache', None)
        self.register_buffer('seen', torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.cache, self.seen = torch.full((2,), 3.0), torch.zeros(len(x))
        return self.conv(x)


def test_buffers_made_in_the_first_pass_are_averaged():
    net, averaged = Late(), Late()
    run(step_of(net), batch())
    for _ in range(2):
        move_average(averaged, net, 0.9)
        assert torch.equal(averaged.cache, net.cache) and averaged.seen.shape == (4,)
    assert averaged.cache is not net.cache


def test_loss_that_does_not_depend_on_the_weights_is_refused():
    step = step_of(network())
    step.begin()
    with pytest.raises(DBLRError, match=r'l_pix: torch cannot tell how the weights affect it: .* detach'):
        step.run([batch()], lambda piece: {'l_pix': step.net(piece).detach().mean()})


def test_weights_made_in_the_first_pass_are_refused():
    class Lazy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(1, 1, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.second = nn.Conv2d(1, 1, 1)
            return self.second(self.first(x))

    with pytest.raises(DBLRError, match=r'second.weight: forward made it, .* make layers in __init__'):
        run(step_of(Lazy()), batch())
