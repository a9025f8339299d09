"""Networks that behave as after training."""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def build_trained(make: Callable[[], nn.Module]) -> nn.Module:
    """Builds a network in evaluation mode, with reproducible weights and BatchNorm statistics as after training."""
    torch.manual_seed(0)
    net = make().eval()
    for module in net.modules():
        if isinstance(module, nn.Conv2d) and not module.weight.any():  # zero where training starts from the identity
            nn.init.normal_(module.weight, std=0.1)
        if isinstance(module, _BatchNorm):
            if not module.weight.any():  # the same
                nn.init.ones_(module.weight)
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return net
