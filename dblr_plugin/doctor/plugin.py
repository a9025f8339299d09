"""BasicSR and the plugin together: which basicsr it is, which classes are registered, which operators run."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from dblr_plugin.doctor.findings import Finding, fault, note, ok, pip, reason
from dblr_plugin.doctor.software import import_quietly

__all__ = ['find_basicsr', 'find_operators', 'find_registered']

_MANIFEST = '.dblr_link.json'


def find_basicsr() -> Iterator[Finding]:
    """Which of several BasicSRs is imported, and whether its checkout knows the plugin."""
    basicsr = import_quietly('basicsr')
    home = Path(basicsr.__path__[0]).resolve()
    checkout = home.parent if (home.parent / 'VERSION').is_file() else None
    kind = 'a checkout' if checkout else 'installed'
    yield ok(f'basicsr {basicsr.__version__} is imported from {home} ({kind})')
    if checkout is not None:
        yield from _linked(checkout, imported=True)
    here = Path.cwd().resolve()
    if (here / 'basicsr' / 'train.py').is_file() and here / 'basicsr' != home:
        yield from _linked(here, imported=False)


def _linked(checkout: Path, imported: bool) -> Iterator[Finding]:
    """Whether ``python basicsr/train.py`` works in a checkout."""
    try:
        names = list(json.loads((checkout / _MANIFEST).read_text()))
    except FileNotFoundError:
        text = f'the checkout {checkout} is not linked: there, python basicsr/train.py does not know the plugin'
        if not imported:
            text += ', and takes the basicsr named above'
        yield note(text, 'dblr train works all the same; for the stock command:', f'dblr link {checkout}')
        return
    except (OSError, ValueError) as error:
        yield fault(
            f'{checkout / _MANIFEST} cannot be read ({reason(error)})',
            'delete it and the files dblr_*.py in basicsr/, then link anew:',
            f'dblr link {checkout}',
        )
        return
    missing = [name for name in names if not (checkout / name).is_file()]
    if missing:
        yield fault(
            f'the checkout {checkout} is linked, but lacks {", ".join(missing)}',
            'link anew:',
            f'dblr link --unlink {checkout} && dblr link {checkout}',
        )
    else:
        yield ok(f'the checkout {checkout} is linked: python basicsr/train.py there uses its basicsr and the plugin')


def find_registered() -> Iterator[Finding]:
    """The plugin's classes in BasicSR's registries."""
    try:
        import_quietly('dblr_plugin')
    except AssertionError as error:
        yield fault(
            f'a class could not be registered: {reason(error)}',
            'another package has taken its name, or the plugin is imported twice from two places; uninstall the other:',
            pip('list'),
        )
        return
    from basicsr.utils import registry

    for kind in ('arch', 'dataset', 'loss', 'model'):
        entries = getattr(registry, f'{kind.upper()}_REGISTRY')
        ours = sorted(name for name, entry in entries if entry.__module__.startswith('dblr_plugin.'))
        if ours:
            yield ok(f'registered, {kind}: {", ".join(ours)}')
        else:
            yield fault(
                f'no {kind} of the plugin is registered in {registry.__file__}',
                'two copies of basicsr are imported; start in another folder, or uninstall one:',
                pip('uninstall', 'basicsr'),
            )
    yield ok(f'dblr_plugin {sys.modules["dblr_plugin"].__version__} ({Path(__file__).resolve().parents[1]})')


def find_operators() -> Iterator[Finding]:
    """Torchvision's compiled operators, run on each kind of device: nothing has to be compiled here."""
    import torch

    for device in ['cpu', 'cuda'] if torch.cuda.is_available() else ['cpu']:
        for name, run in (('nms', _run_nms), ('deform_conv2d', _run_deform_conv)):
            try:
                difference = run(device)
            except (RuntimeError, NotImplementedError, AttributeError) as error:
                yield _operator_fault(name, device, reason(error))
                continue
            if difference > 1e-3:
                yield _operator_fault(name, device, f'its result is off by {difference:.2g}')
            else:
                yield ok(f'torchvision.ops.{name} runs on {device}')


def _run_nms(device: str) -> float:
    """Two boxes that overlap and one apart; returns how far the result is from what it must be."""
    import torch
    from torchvision.ops import nms

    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30]], device=device)
    kept = nms(boxes, torch.tensor([0.9, 0.8, 0.7], device=device), 0.5).tolist()
    return float(kept != [0, 2])


def _run_deform_conv(device: str) -> float:
    """Without offsets it is an ordinary convolution; returns the largest difference from that."""
    import torch
    from torchvision.ops import deform_conv2d

    generator = torch.Generator().manual_seed(0)
    image, weight = (torch.rand(shape, generator=generator).to(device) for shape in ((1, 2, 8, 8), (3, 2, 3, 3)))
    offset = torch.zeros(1, 18, 8, 8, device=device)
    # a GPU may round what it multiplies
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        expected = torch.nn.functional.conv2d(image, weight, padding=1)
    return (deform_conv2d(image, offset, weight, padding=1) - expected).abs().max().item()


def _operator_fault(name: str, device: str, why: str) -> Finding:
    place = 'torch and torchvision are of different builds; install both at once, from the same place:'
    return fault(
        f'torchvision.ops.{name} does not run on {device}: {why}',
        place,
        pip('install', '--upgrade', '--force-reinstall', 'torch', 'torchvision'),
    )
