import copy
import re
from pathlib import Path

import basicsr
import pytest
import yaml
from processes import write_options

from dblr_plugin.errors import DBLRError
from dblr_plugin.link import option_files
from dblr_plugin.options import check_option_file, check_options


def changed(options: dict, trail: str, value: object) -> dict:
    """A copy with the value at ``a.b.c`` set, or removed if it is ``...``."""
    options = copy.deepcopy(options)
    *sections, key = trail.split('.')
    section = options
    for name in sections:
        section = section[name]
    if value is ...:
        del section[key]
    else:
        section[key] = value
    return options


def line_of(path: Path, text: str) -> int:
    return next(i for i, line in enumerate(path.read_text().splitlines(), 1) if f' {text}' in f' {line}')


def test_good_options_pass(gan_options, test_options, tmp_path):
    check_option_file(str(write_options(tmp_path / 'train.yml', gan_options)), is_train=True)
    check_option_file(str(write_options(tmp_path / 'test.yml', test_options)), is_train=False)


@pytest.mark.parametrize('path', option_files(), ids=lambda p: p.name)
def test_option_files_we_ship_pass(path):
    assert option_files()
    check_option_file(str(path), is_train='test' not in path.name)


@pytest.mark.parametrize(('trail', 'nearest'), [
    ('nmae', 'name'),
    ('datasets.train.gt_siz', 'gt_size'),
    ('datasets.val.paddin', 'padding'),
    ('network_g.num_feats', 'num_feat'),
    ('network_d.num_features', 'num_feat'),
    ('path.pretrain_network', 'pretrain_network_g'),
    ('train.total_iters', 'total_iter'),
    ('train.optim_g.learning', None),
    ('train.optim_d.beta', 'betas'),
    ('train.scheduler.milestone', 'milestones'),
    ('train.pixel_opt.loss_weigth', 'loss_weight'),
    ('train.gan_opt.weight', 'loss_weight'),
    ('val.val_frequ', 'val_freq'),
    ('val.protocols', 'protocol'),
    ('val.metrics.psnr.crop_boarder', 'crop_border'),
    ('logger.print_frequency', 'print_freq'),
])  # fmt: skip
def test_unknown_key(gan_options, tmp_path, trail, nearest):
    path = write_options(tmp_path / 'train.yml', changed(gan_options, trail, 1))
    with pytest.raises(DBLRError) as error:
        check_option_file(str(path), is_train=True)
    key = trail.split('.')[-1]
    assert f'train.yml:{line_of(path, key + ":")}: unknown key' in str(error.value)
    assert f"'{trail}'" in str(error.value)
    if nearest:
        assert f"did you mean '{nearest}'?" in str(error.value)


@pytest.mark.parametrize(('trail', 'value', 'nearest'), [
    ('model_type', 'DBLRGANModle', 'DBLRGANModel'),
    ('network_g.type', 'DBLRnet', 'DBLRNet'),
    ('network_d.type', 'DBLRDiscriminatr', 'DBLRDiscriminator'),
    ('datasets.train.type', 'VideoDeblurDatset', 'VideoDeblurDataset'),
    ('train.pixel_opt.type', 'MSELos', 'MSELoss'),
    ('train.gan_opt.type', 'MinimaxGanLoss', 'MinimaxGANLoss'),
    ('train.optim_g.type', 'Adan', 'Adam'),
    ('train.scheduler.type', 'MultiStepRestart', 'MultiStepRestartLR'),
    ('val.metrics.psnr.type', 'calculate_psn', 'calculate_psnr'),
])  # fmt: skip
def test_unknown_class(gan_options, tmp_path, trail, value, nearest):
    path = write_options(tmp_path / 'train.yml', changed(gan_options, trail, value))
    with pytest.raises(DBLRError) as error:
        check_option_file(str(path), is_train=True)
    message = str(error.value)
    assert f"no class '{value}'" in message and f"did you mean '{nearest}'?" in message
    assert f'train.yml:{line_of(path, value)}' in message
    assert basicsr.__version__ in message and basicsr.__path__[0] in message


@pytest.mark.parametrize('protocol', ['kair', 'all', ['basicsr', 'dvd-official'], None])
def test_protocols(gan_options, tmp_path, protocol):
    path = write_options(tmp_path / 'train.yml', changed(gan_options, 'val.protocol', protocol))
    check_option_file(str(path), is_train=True)


@pytest.mark.parametrize('protocol', ['kiar', ['basicsr', 'kiar'], []])
def test_unknown_protocol(gan_options, tmp_path, protocol):
    path = write_options(tmp_path / 'train.yml', changed(gan_options, 'val.protocol', protocol))
    with pytest.raises(DBLRError) as error:
        check_option_file(str(path), is_train=True)
    assert re.search(rf'train.yml:({line_of(path, "protocol:")}|\d+): val.protocol: no protocol is', str(error.value))
    assert not protocol or "did you mean 'kair'?" in str(error.value)


@pytest.mark.parametrize(('trail', 'section'), [
    ('network_g', 'the file'), ('logger', 'the file'), ('train.optim_g', 'train'), ('network_g.type', 'network_g'),
    ('datasets.train.gt_size', 'datasets.train'), ('datasets.train', 'datasets'), ('logger.use_tb_logger', 'logger'),
])  # fmt: skip
def test_missing_key(gan_options, tmp_path, trail, section):
    path = write_options(tmp_path / 'train.yml', changed(gan_options, trail, ...))
    with pytest.raises(DBLRError, match=rf'{section}.*(lacks|needs).*{trail.split(".")[-1]}'):
        check_option_file(str(path), is_train=True)


@pytest.mark.parametrize(('text', 'message'), [
    ('name: [', 'not valid YAML'),
    ('name: a\nname: b\n', ":2: 'name' stands twice"),
    ('- a\n- b\n', 'must hold keys and values'),
    ('', 'lacks datasets'),
])  # fmt: skip
def test_broken_files(tmp_path, text, message):
    path = tmp_path / 'train.yml'
    path.write_text(text)
    with pytest.raises(DBLRError, match=message):
        check_option_file(str(path), is_train=True)


def test_missing_file(tmp_path):
    with pytest.raises(DBLRError, match='no such option file'):
        check_option_file(str(tmp_path / 'none.yml'), is_train=True)


def test_other_models_are_left_to_basicsr(tmp_path):
    path = write_options(tmp_path / 'train.yml', {'model_type': 'SRModel', 'their_own_key': 1})
    check_option_file(str(path), is_train=True)


@pytest.mark.parametrize(('trail', 'value', 'message'), [
    ('num_gpu', 99, 'num_gpu is 99, but 0 CUDA devices'),
    ('datasets.train.prefetch_mode', 'cpu', 'hangs'),
    ('datasets.train.prefetch_mode', 'cuda', 'needs a GPU'),
    ('datasets.val.num_frame', 7, 'val.num_frame is 7, but network_g takes windows of 5'),
    ('network_g.num_frame', 3, 'num_frame is 5, but network_g takes windows of 3'),
    ('datasets.val.dataroot_gt', 'nowhere', 'datasets.val.dataroot_gt: nowhere does not exist'),
    ('path.pretrain_network_g', 'none.pth', 'path.pretrain_network_g: none.pth does not exist'),
    ('val.protocol', 'lume', "no protocol is called 'lume'; did you mean 'luma'?"),
])  # fmt: skip
def test_impossible_combinations(gan_options, trail, value, message, monkeypatch):
    monkeypatch.setattr('torch.cuda.device_count', lambda: 0)
    gan_options['auto_resume'] = False
    check_options(gan_options)
    with pytest.raises(DBLRError, match=message):
        check_options(changed(gan_options, trail, value))


def test_dumped_options_are_plain_yaml(gan_options, tmp_path):
    path = write_options(tmp_path / 'train.yml', gan_options)
    assert yaml.safe_load(path.read_text()) == gan_options
