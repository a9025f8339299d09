"""Settings that a resumed state overrides are reported; states of other optimisers and networks are refused."""

import pytest
import torch
from basicsr.models.lr_scheduler import CosineAnnealingRestartLR, MultiStepRestartLR

from dblr_plugin.training.checkpoints import overruled, refuse_other_optimizers, refuse_other_schedulers
from dblr_plugin.training.step import PlateauLR, multiply_rates


def weights() -> list[torch.nn.Parameter]:
    return [torch.nn.Parameter(torch.ones(3, 3))]


def stepped(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    for group in optimizer.param_groups:
        group['params'][0].grad = torch.ones(3, 3)
    optimizer.step()
    return optimizer


OPTIMIZERS = {
    'Adam': lambda p: torch.optim.Adam(p, lr=1e-3), 'SGD': lambda p: torch.optim.SGD(p, lr=1e-3),
    'RMSprop': lambda p: torch.optim.RMSprop(p, lr=1e-3), 'Adamax': lambda p: torch.optim.Adamax(p, lr=1e-3),
}  # fmt: skip


@pytest.mark.parametrize('theirs', OPTIMIZERS)
@pytest.mark.parametrize('ours', OPTIMIZERS)
def test_state_of_another_optimiser_is_refused(ours, theirs):
    saved = stepped(OPTIMIZERS[theirs](weights()))
    state = {'optimizers': [saved.state_dict()], 'optimizer_types': [theirs]}
    optimizer = OPTIMIZERS[ours](weights())
    if ours == theirs:
        refuse_other_optimizers([optimizer], state)
        return
    with pytest.raises(ValueError, match=f'its optimiser is {theirs}, and that of the option file is {ours}'):
        refuse_other_optimizers([optimizer], state)


def test_other_number_of_optimisers_or_groups_is_refused():
    """With and without a discriminator, with and without ``train.lr_mul``."""
    one, two = (torch.optim.Adam(weights()) for _ in range(2))
    with pytest.raises(ValueError, match='it has 2 optimisers, and this training has 1'):
        refuse_other_optimizers([one], {'optimizers': [one.state_dict(), two.state_dict()]})
    parts = torch.optim.Adam([{'params': weights()}, {'params': weights()}])
    with pytest.raises(ValueError, match=r'its train.lr_mul makes 1 groups of parameters, and this one 2'):
        refuse_other_optimizers([parts], {'optimizers': [one.state_dict()]})


SCHEDULERS = {
    'MultiStepRestartLR': lambda o: MultiStepRestartLR(o, [4]), 'PlateauLR': PlateauLR,
    'CosineAnnealingRestartLR': lambda o: CosineAnnealingRestartLR(o, [9]),
}  # fmt: skip


@pytest.mark.parametrize('theirs', SCHEDULERS)
@pytest.mark.parametrize('ours', SCHEDULERS)
def test_state_of_another_scheduler_is_refused(ours, theirs):
    """torch would load it, and a cosine schedule would continue from the counter of a plateau schedule."""
    own, saved = (SCHEDULERS[name](torch.optim.Adam(weights())) for name in (ours, theirs))
    state = {'schedulers': [saved.state_dict()]}
    if ours == theirs:
        refuse_other_schedulers([own], state)
        return
    with pytest.raises(ValueError, match=f'its scheduler is another one, .*; that of the option file is {ours}'):
        refuse_other_schedulers([own], state)


def trained(lr: float = 1e-3, milestones: tuple[int, ...] = (4, 8), **settings) -> tuple[list, list]:
    optimizer = stepped(torch.optim.Adam(weights(), lr=lr, **settings))
    return [optimizer], [MultiStepRestartLR(optimizer, milestones, gamma=0.5)]


class TestOverruled:
    def differences(self, **settings) -> list[str]:
        optimizers, schedulers = trained()
        for _ in range(6):  # by then the learning rate has dropped
            stepped(optimizers[0])
            schedulers[0].step()
        state = {name: [part.state_dict() for part in parts] for name, parts in
                 (('optimizers', optimizers), ('schedulers', schedulers))}  # fmt: skip
        return list(overruled(*trained(**settings), state))

    def test_equal_settings_have_no_differences(self):
        assert self.differences() == []

    def test_each_setting_is_named_with_both_values(self):
        assert self.differences(lr=5e-5) == ['lr is 5e-05 in the option file and 0.001 in the state']
        told = self.differences(milestones=(4, 9))
        assert told == ['milestones is [4, 9] in the option file and [4, 8] in the state']
        assert 'betas is (0.5, 0.9)' in self.differences(betas=(0.5, 0.9))[0]
        assert len(self.differences(lr=1e-4, weight_decay=0.1)) == 2

    def test_changed_lr_mul_is_named(self):
        """Each entry of ``train.lr_mul`` makes a group of parameters."""

        def of(factor: float) -> torch.optim.Optimizer:
            net = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Linear(1, 1))
            optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
            multiply_rates(optimizer, net, {'1.': factor})
            MultiStepRestartLR(optimizer, (4,))
            return optimizer

        state = {'optimizers': [of(0.25).state_dict()], 'schedulers': []}
        assert list(overruled([of(0.25)], [], state)) == []
        assert list(overruled([of(0.5)], [], state)) == ['lr is 0.0005 in the option file and 0.00025 in the state']

    def test_plateau_settings_are_named_as_in_the_option_file(self):
        def of(**settings) -> PlateauLR:
            return PlateauLR(torch.optim.Adam(weights(), lr=1e-3), **settings)

        state = {'optimizers': [], 'schedulers': [of(patience=3, min_lr=1e-6).state_dict()]}
        assert list(overruled([], [of(patience=3, min_lr=1e-6)], state)) == []
        assert list(overruled([], [of(patience=5, min_lr=1e-5)], state)) == [
            'patience is 5 in the option file and 3 in the state',
            'min_lr is 1e-05 in the option file and 1e-06 in the state',
        ]

    def test_fused_kernels_do_not_count_as_a_difference(self):
        state = {'optimizers': [torch.optim.Adam(weights(), lr=1e-3, fused=True).state_dict()], 'schedulers': []}
        state['optimizers'][0]['param_groups'][0]['initial_lr'] = 1e-3
        own = torch.optim.Adam([{'params': weights(), 'initial_lr': 1e-3}], lr=1e-3)
        assert list(overruled([own], [], state)) == []


@pytest.mark.parametrize(('ours', 'theirs'), [('Adam', 'SGD'), ('SGD', 'Adam')])
def test_state_of_an_unnamed_other_optimiser_is_refused(ours, theirs):
    state = {'optimizers': [stepped(OPTIMIZERS[theirs](weights())).state_dict()]}
    with pytest.raises(ValueError, match='its optimiser is another one, without'):
        refuse_other_optimizers([OPTIMIZERS[ours](weights())], state)
    refuse_other_optimizers([OPTIMIZERS[theirs](weights())], state)


@pytest.mark.parametrize('name', OPTIMIZERS)
def test_state_of_parameters_of_other_shapes_is_refused(name):
    state = {'optimizers': [stepped(OPTIMIZERS[name](weights())).state_dict()]}
    refuse_other_optimizers([OPTIMIZERS[name](weights())], state)
    kept = state['optimizers'][0]['state'].get(0, {})
    if 'exp_avg' in kept:
        kept['exp_avg'] = kept['exp_avg'][:1]
        with pytest.raises(ValueError, match='exp_avg of parameter 0 has another shape'):
            refuse_other_optimizers([OPTIMIZERS[name](weights())], state)
