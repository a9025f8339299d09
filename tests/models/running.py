"""Builds and trains models step by step, as BasicSR's trainer does."""

import copy

import torch
from basicsr.data import build_dataset
from basicsr.models import build_model
from torch.utils.data import DataLoader


def parsed(options: dict, root) -> dict:
    """Adds what BasicSR's parse_options adds, and makes the folders."""
    folder = root / options['name']
    options |= {'dist': False, 'rank': 0, 'world_size': 1, 'is_train': True, 'auto_resume': False}
    options['iters_per_epoch'] = 100
    for phase, dataset in options['datasets'].items():
        dataset |= {'phase': phase.split('_')[0], 'scale': 1}
    for name, place in {'models': 'models', 'training_states': 'states', 'visualization': 'vis', 'log': '.'}.items():
        options['path'][name] = str(folder / place)
        (folder / place).mkdir(parents=True, exist_ok=True)
    return options


def batch(channels: int = 3) -> dict:
    generator = torch.Generator().manual_seed(0)
    return {
        'lq': torch.rand(4, 5, channels, 32, 32, generator=generator),
        'gt': torch.rand(4, channels, 32, 32, generator=generator),
    }


def train(model, steps: int = 3) -> None:
    for i in range(1, steps + 1):
        model.update_learning_rate(i)
        model.feed_data(batch())
        model.optimize_parameters(i)


def snapshot(net) -> dict:
    return {k: v.clone() for k, v in net.state_dict().items()}


def val_loader(options: dict, name: str = 'val') -> DataLoader:
    return DataLoader(build_dataset(options['datasets'][name]))


def trained(options: dict, root, steps: int = 3, **train_options) -> tuple[torch.nn.Module, dict]:
    """Returns a model after some steps from the same start, and its log."""
    options = copy.deepcopy(options)
    options['train'] |= train_options
    torch.manual_seed(0)
    model = build_model(parsed(options, root))
    train(model, steps)
    return model, model.get_current_log() if steps else {}
