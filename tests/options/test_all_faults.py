"""All faults of an option file are reported at once; other data sets' missing keys are reported when they are read."""

import copy
import pickle

import pytest
from basicsr.utils import options as basicsr_options
from changes import changed
from processes import write_options

from dblr_plugin.errors import DBLRError
from dblr_plugin.hooks import parse_options
from dblr_plugin.options.option_file import check_option_file


def refusal(tmp_path, options: dict) -> list[str]:
    path = write_options(tmp_path / 'train.yml', options)
    with pytest.raises(DBLRError) as error:
        check_option_file(path, is_train=True)
    return [line.replace(str(path), '') for line in str(error.value).split('\n  ')]


def test_faults_of_all_sections_are_reported_at_once(full_options, tmp_path):
    options = full_options
    for trail, value in {
        'nmae': 'x', 'datasets.train.gt_size': 'large', 'datasets.val.paddin': 'circle', 'network_g.num_feat': -0.5,
        'train.optim_g.type': 'Adamm', 'logger.print_freq': 0, 'datasets.val.type': 'Other',
    }.items():  # fmt: skip
        options = changed(options, trail, value)
    first, *lines = refusal(tmp_path, options)
    assert first == f'{len(lines)} faults in the options:'
    for part in ("'nmae'", 'datasets.train.gt_size', 'Other', 'network_g.num_feat', 'Adamm', 'logger.print_freq'):
        assert sum(part in line for line in lines) == 1, (part, lines)
    assert len(set(lines)) == len(lines)


def test_misspelt_key_is_one_fault(full_options, tmp_path):
    options = {('nmae' if key == 'name' else key): value for key, value in full_options.items()}
    assert len(refusal(tmp_path, options)) == 1


def test_conflicts_are_reported_at_once(full_options, tmp_path):
    options = changed(full_options, 'datasets.train.num_frame', 7)
    options = changed(options, 'datasets.val.num_frame', 3)
    _first, *lines = refusal(tmp_path, options)
    assert {line.split()[1] for line in lines} >= {'datasets.train.num_frame', 'datasets.val.num_frame'}


def test_missing_key_of_another_data_set_is_reported_when_read(full_options, tmp_path):
    path = write_options(tmp_path / 'train.yml', changed(full_options, 'datasets.train.type', 'REDSDataset'))
    section = check_option_file(path, is_train=True)['datasets']['train']
    for found in (section, copy.deepcopy(section), pickle.loads(pickle.dumps(section))):
        assert found.get('val_partition') is None and 'val_partition' not in found
        with pytest.raises(DBLRError, match=r'train\.yml:\d+: datasets\.train lacks val_partition, which REDSDataset'):
            found['val_partition']
        with pytest.raises(KeyError):
            found['val_partition']


def test_option_file_of_any_model_runs_no_code(tmp_path, monkeypatch):
    path = tmp_path / 'train.yml'
    path.write_text(
        'name: x\nmodel_type: SRModel\nscale: 1\nnum_gpu: 0\ndatasets: {}\npath: {}\n'
        f'lr: !!python/object/apply:os.mkdir ["{tmp_path}/ran"]\n'
    )
    monkeypatch.setattr('sys.argv', ['train', '-opt', str(path)])
    with pytest.raises(DBLRError, match=r'train\.yml:7: not valid YAML: could not determine a constructor'):
        parse_options(str(tmp_path))
    assert not (tmp_path / 'ran').exists()


def test_options_of_basicsr_models_are_read_as_in_basicsr(tmp_path, monkeypatch):
    path = tmp_path / 'train.yml'
    path.write_text(
        'name: x\nmodel_type: SRModel\nscale: 1\nnum_gpu: 0\ndatasets: {}\npath: {}\ntrain: {lr: !!float 1e-4}\n'
    )
    monkeypatch.setattr('sys.argv', ['train', '-opt', str(path)])
    reader = basicsr_options.ordered_yaml
    opt, _ = parse_options(str(tmp_path))
    assert opt['train'] == {'lr': 1e-4} and opt['name'] == 'x'
    assert basicsr_options.ordered_yaml is reader
