import importlib
import subprocess
import sys
from importlib.machinery import PathFinder
from pathlib import Path

import pytest
import scipy
from basicsr.data import degradations
from basicsr.metrics import niqe
from torchvision import transforms

from dblr_plugin.compat import deferred

pytestmark = pytest.mark.slow


def run(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=120)


def test_import_registers_everything_is_silent_and_defers_what_is_slow():
    result = run(
        'import gc, sys, dblr_plugin, dblr_plugin.commands.train\n'
        'import numpy as np\n'
        'assert gc.isenabled() and np.geterr()["divide"] == np.geterr()["invalid"] == "warn"\n'
        'late = {"mmengine", "torch._dynamo.eval_frame", "scipy.stats", "scipy.special", "scipy.ndimage"}\n'
        'assert not late & sys.modules.keys(), late & sys.modules.keys()\n'
        'from basicsr.utils.registry import ARCH_REGISTRY, DATASET_REGISTRY, LOSS_REGISTRY, MODEL_REGISTRY\n'
        'assert {"DBLRNet", "DBLRDiscriminator", "BlurryInput", "EDVR"} <= ARCH_REGISTRY.keys()\n'
        'assert {"VideoDeblurDataset", "VideoDeblurTestDataset"} <= DATASET_REGISTRY.keys()\n'
        'assert {"MinimaxGANLoss", "PSNRLoss"} <= LOSS_REGISTRY.keys()\n'
        'assert {"VideoDeblurModel", "DBLRGANModel"} <= MODEL_REGISTRY.keys()\n'
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, '', '')


def test_what_is_deferred_is_imported_when_it_is_used():
    asked = importlib.import_module('torchvision.ops.roi_align').is_compile_supported('cpu')
    expected_cdf = scipy.stats.multivariate_normal([0, 0], [[1, 0], [0, 1]]).cdf([0.5, 1])
    assert degradations.cdf2([[1, 0], [0, 1]], [0.5, 1]) == expected_cdf
    assert degradations.multivariate_normal.pdf(0.5) == scipy.stats.multivariate_normal.pdf(0.5)
    assert degradations.special.j1(0.5) == scipy.special.j1(0.5)
    assert niqe.gamma(5.0) == 24 and list(niqe.convolve([1, 2, 4], [1, 1, 1])) == [4, 7, 10]
    assert asked == importlib.import_module('torch._dynamo.utils').is_compile_supported('cpu')


def test_compiler_is_imported_once_something_is_compiled():
    result = run(
        'import importlib.util, sys, dblr_plugin, torch\n'
        'from dblr_plugin.training.step import build_optimizer\n'
        'from torch.optim.lr_scheduler import MultiStepLR\n'
        'torch.nn.Conv2d(1, 1, 3, device="meta")\n'
        'net = torch.nn.Conv2d(1, 1, 3)\n'
        'optimizer = build_optimizer("Adam", net.parameters(), lr=0.1)\n'
        'scheduler = MultiStepLR(optimizer, [1])\n'
        'def step():\n'
        '    optimizer.zero_grad()\n'
        '    net(torch.ones(1, 1, 4, 4)).sum().backward()\n'
        '    optimizer.step()\n'
        'step(), scheduler.step(), optimizer.load_state_dict(optimizer.state_dict())\n'
        'optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))]})\n'
        'torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)\n'
        'shared = torch.nn.parallel.DistributedDataParallel(net)\n'
        'shared(torch.ones(1, 1, 4, 4)).sum().backward()\n'
        'assert importlib.util.find_spec("torch._dynamo").submodule_search_locations\n'
        'assert "torch._dynamo.eval_frame" not in sys.modules\n'
        'assert torch._dynamo.utils.get_optimize_ddp_mode() == "ddp_optimizer"\n'
        'assert torch._dynamo.utils.counters is sys.modules["torch._dynamo.utils"].counters\n'
        'import torch._dynamo.config\n'
        'assert torch._dynamo.utils.get_optimize_ddp_mode() == "ddp_optimizer"\n'
        'assert torch._dynamo.eval_frame is sys.modules["torch._dynamo.eval_frame"]\n'
        'twice = torch.compile(lambda x: (optimizer.zero_grad(), 2 * x)[1], backend="eager")\n'
        'assert torch.equal(twice(torch.ones(3)), 2 * torch.ones(3)) and net.weight.grad is None\n'
        'step()\n'
        'torch.distributed.destroy_process_group()\n'
    )
    assert result.returncode == 0, result.stderr


def test_submodule_of_the_compiler_is_imported_once():
    """Of two copies, the compiler would not see the settings in one, nor recognise the classes of the other."""
    result = run(
        'import importlib, sys, dblr_plugin\n'
        'import torch._dynamo.config\n'
        'config = sys.modules["torch._dynamo.config"]\n'
        'assert torch._dynamo.config is torch._dynamo.convert_frame.config is config\n'
        'assert config.__spec__.origin == config.__file__ and not config.__spec__._initializing\n'
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize('wanted', ['one', 'other', 'whole'])
def test_anything_else_of_a_deferred_module_is_the_real_one(wanted, tmp_path, monkeypatch):
    (tmp_path / 'package').mkdir()
    (tmp_path / 'package/__init__.py').write_text('')
    (tmp_path / 'package/inner.py').write_text('def one(x):\n    return x + 1\nother = 5\n')
    monkeypatch.syspath_prepend(tmp_path)
    with deferred('package.inner', 'one'):
        if wanted == 'one':
            from package.inner import one
        elif wanted == 'other':
            from package.inner import other
        else:
            import package.inner as inner
    assert ('package.inner' in sys.modules) == (wanted == 'other')
    if wanted == 'one':
        assert one(2) == 3 and one.__name__ == 'one'
    elif wanted == 'other':
        assert other == 5
    else:
        assert inner.one(2) == 3 and inner.other == 5
    assert sys.modules['package.inner'].other == 5
    for name in ('package', 'package.inner'):
        del sys.modules[name]


def test_stock_basicsr_is_what_it_cures():
    """Should this ever fail, the alias for functional_tensor has become needless."""
    importing = Path(degradations.__file__).read_text()
    assert 'from torchvision.transforms.functional_tensor import' in importing
    assert PathFinder.find_spec('functional_tensor', transforms.__path__) is None


def test_distutils_alias_serves_basicsrs_one_use():
    """As on Python 3.12 and later, where distutils is gone."""
    result = run(
        'import importlib.util, sys\n'
        'spec = importlib.util.find_spec\n'
        'importlib.util.find_spec = lambda name, *a: None if name == "distutils" else spec(name, *a)\n'
        'from importlib.util import spec_from_file_location, module_from_spec\n'
        'path = spec("dblr_plugin").submodule_search_locations[0] + "/compat.py"\n'
        's = spec_from_file_location("compat", path); m = module_from_spec(s); s.loader.exec_module(m)\n'
        'm._alias_distutils()\n'
        'from distutils.version import LooseVersion\n'
        'assert LooseVersion("0.29.2+cu130") >= LooseVersion("0.9.0") > LooseVersion("0.8.2a0")\n'
        'assert sys.modules["distutils"].__spec__ is None\n'
    )
    assert result.returncode == 0, result.stderr
