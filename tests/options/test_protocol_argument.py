"""``--protocol`` where users type it, and the table that ``dblr test`` ends with."""

import json

import pytest
from processes import dblr, write_options

from dblr_plugin import hooks
from dblr_plugin.errors import DBLRError
from dblr_plugin.evaluation.protocols import PROTOCOLS


@pytest.mark.slow
def test_all_protocols_alone_and_distributed(test_options, tmp_path):
    """Two processes get the figures of one to the last bit, and the table is printed once."""
    path = write_options(tmp_path / 'test.yml', test_options)
    command = ['test', '-opt', path, '--force_yml', 'val:pbar=false', '--protocol', 'all']
    entries = []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        folder.mkdir()
        result = dblr(*command, cwd=folder, processes=processes)
        assert result.returncode == 0, result.stderr
        entries.append(json.loads((folder / 'results/tested/metrics.json').read_text()))
        for entry in entries[-1]:
            title = f'V, protocol {entry["protocol"]}: {PROTOCOLS[entry["protocol"]].meaning}'
            assert result.stdout.count(title) == 1
            assert f'{entry["frame_mean"]["psnr"]:.4f}' in result.stdout
    assert entries[0] == entries[1] and [e['protocol'] for e in entries[0]] == list(PROTOCOLS)


@pytest.mark.slow
def test_an_unknown_one_is_refused(test_options, tmp_path):
    path = write_options(tmp_path / 'test.yml', test_options)
    result = dblr('test', '-opt', path, '--protocol', 'lume', cwd=tmp_path)
    assert result.returncode == 1 and 'Traceback' not in result.stderr
    assert (
        "dblr: error: --protocol lume: val.protocol cannot be used: no protocol is called 'lume'; did you mean"
        in result.stderr
    )
    assert not (tmp_path / 'results').exists()


@pytest.mark.parametrize(('change', 'message'), [
    ({'model_type': 'SRModel'}, 'SRModel of .* scores by val.metrics alone'),
    ({'val': None}, 'has no val section'),
])  # fmt: skip
def test_is_refused_where_nothing_would_heed_it(train_options, tmp_path, monkeypatch, change, message):
    path = write_options(tmp_path / 'train.yml', train_options | change)
    monkeypatch.setattr('sys.argv', ['train', '-opt', str(path), '--protocol', 'vrt-matlab'])
    with pytest.raises(DBLRError, match=message):
        hooks.parse_options(str(tmp_path), is_train=True)
