"""The comparison of networks: they have the published sizes, and a tiny run prints its table."""

import json
from functools import partial

import matplotlib.figure
import peers
import pytest
import tables
import torch
from inference import operations
from peer_networks import DMPHN, NAFNet, QuarterBasicVSR
from torch import nn

from dblr_plugin.benchmark.plots import LIGHT


@pytest.mark.slow
def test_nafnet_has_the_published_size():
    """17.1 million parameters, 16 billion multiply-adds for 256x256 (NAFNet, table 6 and its repository)."""
    net = NAFNet().eval()
    assert sum(p.numel() for p in net.parameters()) == pytest.approx(17.1e6, rel=0.01)
    assert operations(net, torch.zeros(1, 3, 256, 256)) / 2 == pytest.approx(16e9, rel=0.03)


def test_dmphn_has_the_published_size():
    """21.7 MB of float32 weights for four levels (DMPHN, table 1)."""
    net = DMPHN().eval()
    assert sum(p.numel() for p in net.parameters()) * 4 == pytest.approx(21.7e6, rel=0.35)
    with torch.no_grad():
        assert net(torch.rand(1, 3, 64, 48)).shape == (1, 3, 64, 48)


@pytest.mark.slow
def test_basicvsr_has_the_published_size_and_a_skip_connection():
    """6.3 million parameters (BasicVSR, table 2)."""
    net = QuarterBasicVSR().eval()
    assert sum(p.numel() for p in net.parameters()) == pytest.approx(6.3e6, rel=0.01)
    nn.init.zeros_(net.conv_last.weight)
    nn.init.zeros_(net.conv_last.bias)
    frames = torch.rand(1, 5, 3, 192, 192)
    with torch.no_grad():
        torch.testing.assert_close(net(frames), frames)


@pytest.mark.slow
def test_tiny_run_reports_and_prints_networks(bench, monkeypatch):
    monkeypatch.setattr(peers, 'peak_memory', lambda make, device: 1)
    monkeypatch.setattr(peers, 'nncf_installed', lambda: False)  # int8 has its own tests
    monkeypatch.setitem(
        peers.NETWORKS, 'of one frame', peers.Network(partial(nn.Conv2d, 3, 3, 3, padding=1), window=False)
    )
    report = bench('peers', '--size', '64x48', '--only', 'light, the shipped weights', 'of one frame')
    assert list(report['networks']) == ['light, the shipped weights', 'of one frame']
    light = report['networks']['light, the shipped weights']
    assert light['kmacs'] == pytest.approx(28.6, abs=1)  # with the zeros of the banded first layer
    assert light['ways']['openvino fp32']['decibels'] > 90
    assert all(way['frames_720p'] > 0 for way in light['ways'].values())


def test_every_variant_of_every_network_is_plotted():
    networks = json.loads((tables.RESULTS / 'peers.json').read_text())['networks']
    figure = matplotlib.figure.Figure()
    tables._paint(networks, figure, LIGHT)
    (axes,) = figure.axes
    assert [label.get_text().split('\n')[0] for label in axes.get_yticklabels()] == list(networks)
    speeds = sorted(way['frames_720p'] for network in networks.values() for way in network['ways'].values())
    assert sorted(bar.get_width() for bar in axes.patches) == speeds
