"""Networks as they are after training, for tests."""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def build_trained(make: Callable[[], nn.Module]) -> nn.Module:
    """A network with the same weights each time, in evaluation mode, its BatchNorm with statistics of some data."""
    torch.manual_seed(0)
    net = make().eval()
    for module in net.modules():
        if isinstance(module, nn.Conv2d) and not module.weight.any():  # where training starts as the identity
            nn.init.normal_(module.weight, std=0.1)
        if isinstance(module, _BatchNorm):
            if not module.weight.any():  # there too
                nn.init.ones_(module.weight)
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return net
