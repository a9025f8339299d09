"""Checkpoint files are written completely or not at all, and damaged ones are refused."""

import json
import pickle
import struct
import zipfile
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from dblr_plugin.errors import DBLRError
from dblr_plugin.weights.checkpoint import FORMAT_VERSION, read_checkpoint, save_atomically

PARAMS = {
    'conv.weight': torch.randn(8, 3, 3, 3, generator=torch.Generator().manual_seed(0)),
    'norm.num_batches_tracked': torch.tensor(7),
    'half': torch.tensor([1.5, -0.0, 6e-8], dtype=torch.float16),
    'empty': torch.zeros(0, 4),
}
CONTENT = {
    'params': PARAMS,
    'network': {'type': 'DBLRNet', 'num_feat': 8, 'init_std': None, 'single': True},
    'trained_on': 'GoPro, "blurred" färbig',
    'pad_multiple': 4,
}


class Refuses:
    """Fails while it is saved, like a full disk."""

    def __reduce__(self):
        raise OSError(28, 'No space left on device')


def test_failed_save_keeps_the_old_file_only(tmp_path):
    path = tmp_path / 'net.pth'
    save_atomically(CONTENT, path)
    before = path.read_bytes()
    with pytest.raises(DBLRError, match=r'net\.pth could not be written: the disk is full; make room'):
        save_atomically({'params': {'other': torch.ones(9)}, 'extra': Refuses()}, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors', '.SAFETENSORS'])
def test_checkpoint_round_trip_is_bit_identical(tmp_path, suffix):
    save_atomically(CONTENT, tmp_path / f'net{suffix}')
    found = read_checkpoint(tmp_path / f'net{suffix}')
    params = found.pop('params')
    assert found == {key: value for key, value in CONTENT.items() if key != 'params'}
    assert params.keys() == PARAMS.keys()
    for name, value in PARAMS.items():
        assert params[name].dtype == value.dtype and params[name].shape == value.shape
        assert params[name].flatten().view(torch.uint8).tolist() == value.flatten().view(torch.uint8).tolist()


def test_safetensors_store_the_network_in_their_metadata(tmp_path):
    save_atomically(CONTENT, tmp_path / 'net.safetensors')
    with safe_open(tmp_path / 'net.safetensors', 'pt') as file:
        assert json.loads(file.metadata()['network']) == CONTENT['network']
        assert file.metadata()['trained_on'] == CONTENT['trained_on']


def test_safetensors_without_our_metadata_are_read(tmp_path):
    other_meanings = {'network': 'resnet', 'format_version': '1.0', 'pad_multiple': '[8]'}
    for metadata in (None, {'format': 'pt'}, other_meanings):
        save_file(PARAMS, tmp_path / 'net.safetensors', metadata)
        found = read_checkpoint(tmp_path / 'net.safetensors')
        assert found['params'].keys() == PARAMS.keys() and not found.keys() & other_meanings.keys()


def test_tied_and_channels_last_weights_in_safetensors(tmp_path):
    weight = torch.rand(2, 3, 4, 5)
    params = {'first': weight, 'tied': weight, 'turned': weight.to(memory_format=torch.channels_last)}
    save_atomically({'params': params}, tmp_path / 'net.safetensors')
    found = read_checkpoint(tmp_path / 'net.safetensors')['params']
    assert found.keys() == params.keys() and all(torch.equal(value, weight) for value in found.values())


def test_save_error_other_than_of_the_disk_is_raised_unchanged(tmp_path):
    class Fails:
        def __reduce__(self):
            raise RuntimeError('cannot be saved')

    with pytest.raises(RuntimeError, match='cannot be saved') as caught:
        save_atomically({'params': Fails()}, tmp_path / 'net.pth')
    assert caught.value.__cause__ is None  # an error that is its own cause must not be followed forever
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('keep', [0, 1, 100, 0.5, 0.999])
@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_truncated_file_is_refused(tmp_path, suffix, keep):
    path = tmp_path / f'net{suffix}'
    save_atomically(CONTENT, path)
    content = path.read_bytes()
    path.write_bytes(content[: keep if isinstance(keep, int) else int(len(content) * keep)])
    refused(path)


def zeroed(data: bytes) -> bytes:
    return bytes(len(data))


def tensors_zeroed(data: bytes) -> bytes:
    return data[:-200] + bytes(200)


def one_bit_flipped(data: bytes) -> bytes:
    return data[:-300] + bytes([data[-300] ^ 1]) + data[-299:]


def more_behind(data: bytes) -> bytes:
    return data + b'more'


def a_web_page(data: bytes) -> bytes:
    return b'<!DOCTYPE html><html><title>404 Not Found</title></html>\n'


def header(text: str) -> bytes:
    return struct.pack('<Q', len(text)) + text.encode()


def other_json(data: bytes) -> bytes:
    return header('{"version": 3, "assets": ["a", "b"]}')


def plain_json(data: bytes) -> bytes:
    return b'{"version": 3, "assets": ["a", "b"]}'


def tensor_out_of_bounds(data: bytes) -> bytes:
    return header('{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}') + b'1234'


def unknown_type(data: bytes) -> bytes:
    return header('{"a": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}') + b'1234'


def of_network(data: bytes, text: str) -> bytes:
    end = 8 + int.from_bytes(data[:8], 'little')
    listed = json.loads(data[8:end])
    listed['__metadata__']['network'] = text
    return header(json.dumps(listed)) + data[end:]


def network_is_no_json(data: bytes) -> bytes:
    return of_network(data, 'DBLRNet')


def network_is_a_list(data: bytes) -> bytes:
    return of_network(data, '[1, 2]')


@pytest.mark.parametrize('damage', [
    zeroed, tensors_zeroed, one_bit_flipped, more_behind, a_web_page, other_json, plain_json, tensor_out_of_bounds,
    unknown_type, network_is_no_json, network_is_a_list,
])  # fmt: skip
def test_damaged_safetensors_are_refused(tmp_path, damage):
    path = tmp_path / 'net.safetensors'
    save_atomically(CONTENT, path)
    path.write_bytes(damage(path.read_bytes()))
    refused(path)


@pytest.mark.parametrize('text', ['hi\n', 'hello world', 'params', '404: Not Found', '\x80'])
def test_text_file_is_refused(tmp_path, text):
    """torch's unpickler runs the bytes as opcodes, which may raise any error."""
    path = tmp_path / 'net.pth'
    path.write_text(text, encoding='latin-1')
    refused(path)


def refused(path: Path) -> None:
    with pytest.raises(DBLRError, match=f'{path.name}: damaged, or not a checkpoint') as caught:
        read_checkpoint(path)
    assert '\n' not in str(caught.value)


def test_missing_files_and_other_pickles_are_refused(tmp_path):
    for name in ('missing.pth', 'missing.safetensors'):
        with pytest.raises(DBLRError, match=f'{name}: no such checkpoint'):
            read_checkpoint(tmp_path / name)
    torch.save([1, 2], tmp_path / 'list.pth')
    with pytest.raises(DBLRError, match='list.pth: not a checkpoint'):
        read_checkpoint(tmp_path / 'list.pth')
    (tmp_path / 'code.pth').write_bytes(pickle.dumps(Runs()))
    refused(tmp_path / 'code.pth')
    for other in (Runs(), Namespace(lr=1)):
        torch.save(CONTENT | {'args': other}, tmp_path / 'args.pth')
        message = (
            r'args.pth: besides tensors .* holds \S+, which could run code .*; ask for a file of the weights alone'
        )
        with pytest.raises(DBLRError, match=message) as caught:
            read_checkpoint(tmp_path / 'args.pth')
        assert any(name in str(caught.value) for name in ('eval', 'argparse.Namespace'))
    torch.save(CONTENT, tmp_path / 'renamed.safetensors')
    refused(tmp_path / 'renamed.safetensors')
    assert not (tmp_path / 'ran').exists()


class Runs:
    """A pickle that would run code when loaded."""

    def __reduce__(self):
        return eval, ("open('ran', 'w')",)


def test_compressed_file_is_refused_before_it_is_unpacked(tmp_path):
    save_atomically(CONTENT, tmp_path / 'net.pth')
    with (
        zipfile.ZipFile(tmp_path / 'net.pth') as old,
        zipfile.ZipFile(tmp_path / 'bomb.pth', 'w', zipfile.ZIP_DEFLATED) as new,
    ):
        for record in old.infolist():
            new.writestr(record.filename, old.read(record))
        new.writestr('net/data/9', bytes(1 << 24))
    with pytest.raises(DBLRError, match=r'bomb\.pth: damaged, .*compressed'):
        read_checkpoint(tmp_path / 'bomb.pth')


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_later_format_is_refused(tmp_path, suffix):
    path = tmp_path / f'net{suffix}'
    save_atomically({**CONTENT, 'format_version': FORMAT_VERSION + 1}, path)
    with pytest.raises(DBLRError, match=rf'format is version {FORMAT_VERSION + 1}.*update dblr_plugin'):
        read_checkpoint(path)
    save_atomically({**CONTENT, 'format_version': FORMAT_VERSION}, path)
    assert read_checkpoint(path)['format_version'] == FORMAT_VERSION
