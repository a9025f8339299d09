"""Are bf16 weight gradients of Conv3d right on this CPU? Run it: ``python scripts/speed/conv3d_bf16.py``

With torch 2.15 on a CPU with AMX they were not: depending on the shape, the backward pass hung, crashed, or silently
returned garbage (oneDNN's kernels). The same layer as Conv2d over time-stacked channels was right, so that is what
``DBLRNet`` computes. Each case runs in its own process, under a time limit, and is compared with float32.

On CPUs without AMX no errors were found; there, this only proves that the comparison works.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import torch
from torch.nn import functional as F

SECONDS = 120
# (batch, channels, frames, height, width), features: DBLRNet's two 3D layers and a plain one
CASES = [((4, 1, 5, 128, 128), 16), ((4, 16, 3, 128, 128), 64), ((2, 64, 5, 64, 64), 64)]


def as_conv3d(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Computes the layer with torch's Conv3d."""
    return F.conv3d(x, weight, padding=(0, 1, 1))


def as_conv2d(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Computes the same as a 2D convolution over time-stacked channels."""
    steps = x.shape[2] - 2
    banded = torch.stack([F.pad(weight, (0, 0, 0, 0, s, steps - 1 - s)) for s in range(steps)], dim=1)
    out = F.conv2d(x.flatten(1, 2), banded.reshape(len(weight) * steps, -1, 3, 3), padding=1)
    return out.unflatten(1, (len(weight), steps))


def compare(name: str, case: int) -> None:
    """Prints the cosine between the weight gradient in bf16 and that of Conv3d in float32."""
    shape, features = CASES[case]
    torch.manual_seed(0)
    x, weight = torch.randn(shape), torch.randn(features, shape[1], 3, 3, 3)
    target, gradients = torch.randn(shape[0], features, shape[2] - 2, *shape[3:]), []
    for layer, dtype in ((as_conv3d, torch.float32), (globals()[name], torch.bfloat16)):
        leaf = weight.to(dtype, copy=True).requires_grad_()
        layer(x.to(dtype), leaf).backward(target.to(dtype))
        gradients.append(leaf.grad.double().flatten())
    print(f'cosine {F.cosine_similarity(*gradients, dim=0):.5f}')


def outcome(name: str, case: int) -> str:
    """Runs a case in its own process and describes the outcome."""
    command = [sys.executable, __file__, name, str(case)]
    try:
        done = subprocess.run(command, timeout=SECONDS, capture_output=True, text=True)
    except subprocess.TimeoutExpired:
        return f'hung: stopped after {SECONDS} s'
    if done.returncode > 0:
        raise RuntimeError(done.stderr)
    return done.stdout.strip() if done.returncode == 0 else f'crashed: signal {-done.returncode}'


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('case', nargs='*', help=argparse.SUPPRESS)  # in its own process
    if given := parser.parse_args().case:
        compare(given[0], int(given[1]))
    else:
        cpuinfo = Path('/proc/cpuinfo')
        amx = 'amx_bf16' in cpuinfo.read_text() if cpuinfo.is_file() else 'unknown'
        print(f'torch {torch.__version__}, AMX: {amx}; 1 is right, bf16 rounding leaves at least 0.999')
        for case, (shape, features) in enumerate(CASES):
            for name in ('as_conv3d', 'as_conv2d'):
                print(f'{shape} to {features} features, {name}: {outcome(name, case)}')
