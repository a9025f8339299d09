"""Keys, classes, sections and types in option files are checked, and each fault is reported with its line."""

import functools
import re
from typing import get_args, get_type_hints

import basicsr
import pytest
import yaml
from basicsr.utils.registry import ARCH_REGISTRY, DATASET_REGISTRY, LOSS_REGISTRY, METRIC_REGISTRY
from changes import changed, leaves, line_of
from processes import write_options
from torch import nn

from dblr_plugin.acceleration import AMP_TYPES
from dblr_plugin.data.video_deblur_dataset import VideoDeblurDataset
from dblr_plugin.data.video_deblur_test_dataset import PADDINGS, VideoDeblurTestDataset
from dblr_plugin.errors import DBLRError
from dblr_plugin.link import option_files
from dblr_plugin.options.option_file import check_option_file
from dblr_plugin.options.schema import TEST_SETS
from dblr_plugin.weights.shipped import SHIPPED
from dblr_plugin.yaml_file import read_option_file


def refusal(tmp_path, options: dict) -> str:
    """Returns the error message for a training's options, without the path."""
    path = write_options(tmp_path / 'train.yml', options)
    with pytest.raises(DBLRError) as error:
        check_option_file(path, is_train=True)
    message = str(error.value)
    assert '\n' not in message and message.startswith(f'{path}:')
    return message.removeprefix(f'{path}:')


def test_valid_options_are_returned_unchanged(full_options, test_options, tmp_path):
    path = write_options(tmp_path / 'train.yml', full_options)
    assert check_option_file(path, is_train=True) == full_options == yaml.safe_load(path.read_text())
    path = write_options(tmp_path / 'test.yml', test_options)
    assert check_option_file(path, is_train=False) == test_options


@pytest.mark.parametrize('path', option_files(), ids=lambda p: p.name)
def test_shipped_option_files_pass(path):
    written = read_option_file(path).plain()
    weights = written['path'].get('pretrain_network_g')
    if weights in SHIPPED:
        written['path']['pretrain_network_g'] = str(SHIPPED[weights].path)
    assert check_option_file(path, is_train='test' not in path.name) == written


@pytest.mark.parametrize(('trail', 'nearest'), [
    ('nmae', 'name'),
    ('datasets.train.gt_siz', 'gt_size'),
    ('datasets.val.paddin', 'padding'),
    ('network_g.num_feats', 'num_feat'),
    ('network_d.num_features', 'num_feat'),
    ('path.pretrain_network', 'pretrain_network_g'),
    ('train.total_iters', 'total_iter'),
    ('train.acumulate', 'accumulate'),
    ('train.optim_d.beta', 'betas'),
    ('train.scheduler.milestone', 'milestones'),
    ('train.pixel_opt.loss_weigth', 'loss_weight'),
    ('train.gan_opt.weight', 'loss_weight'),
    ('val.val_frequ', 'val_freq'),
    ('val.protocols', 'protocol'),
    ('val.metrics.psnr.crop_boarder', 'crop_border'),
    ('logger.print_frequency', 'print_freq'),
    ('logger.max_keep_ckpt', 'max_keep_ckpts'),
])  # fmt: skip
def test_unknown_key_is_refused_with_the_nearest_known_one(gan_options, tmp_path, trail, nearest):
    message = refusal(tmp_path, changed(gan_options, trail, 1))
    line = line_of(tmp_path / 'train.yml', trail)
    assert message == f"{line}: unknown key '{trail}'; did you mean '{nearest}'?"


def test_unknown_key_without_similar_ones_lists_the_known_ones(gan_options, tmp_path):
    assert 'known here: loss_weight, type' in refusal(tmp_path, changed(gan_options, 'train.gan_opt.x', 1))


@pytest.mark.parametrize(('trail', 'value', 'nearest'), [
    ('model_type', 'DBLRGANModle', 'DBLRGANModel'),
    ('network_g.type', 'DBLRnet', 'DBLRNet'),
    ('network_d.type', 'DBLRDiscriminatr', 'DBLRDiscriminator'),
    ('datasets.train.type', 'VideoDeblurDatset', 'VideoDeblurDataset'),
    ('train.pixel_opt.type', 'MSELos', 'MSELoss'),
    ('train.gan_opt.type', 'MinimaxGanLoss', 'MinimaxGANLoss'),
    ('train.optim_g.type', 'Adan', 'Adam'),
    ('train.scheduler.type', 'PlatoLR', 'PlateauLR'),
    ('train.scheduler.type', 'MultiStepRestart', 'MultiStepRestartLR'),
    ('val.metrics.psnr.type', 'calculate_psn', 'calculate_psnr'),
])  # fmt: skip
def test_unknown_class_is_refused_with_the_nearest_known_one(gan_options, tmp_path, trail, value, nearest):
    message = refusal(tmp_path, changed(gan_options, trail, value))
    assert message.startswith(f'{line_of(tmp_path / "train.yml", trail)}: {trail}: no class ')
    assert f"no class '{value}'" in message and f"did you mean '{nearest}'?" in message
    assert basicsr.__version__ in message and basicsr.__path__[0] in message


@pytest.mark.parametrize('name', ['Optimizer', 'LBFGS', 'SparseAdam', 'Muon'])
def test_optimisers_that_cannot_train_a_network_are_unknown_classes(gan_options, tmp_path, name):
    assert f"no class '{name}'" in refusal(tmp_path, changed(gan_options, 'train.optim_g.type', name))


@pytest.mark.parametrize(('trail', 'section'), [
    ('network_g', 'the file'), ('logger', 'the file'), ('train.optim_g', 'train'), ('network_g.type', 'network_g'),
    ('datasets.train.gt_size', 'datasets.train'), ('datasets.train', 'datasets'), ('logger.use_tb_logger', 'logger'),
    ('val.val_freq', 'val'), ('val.save_img', 'val'), ('train.scheduler.milestones', 'train.scheduler'),
    ('train.optim_g.lr', 'train.optim_g'), ('val.metrics.psnr.type', 'val.metrics.psnr'),
])  # fmt: skip
def test_missing_key_is_refused(gan_options, tmp_path, trail, section):
    message = refusal(tmp_path, changed(gan_options, trail, ...))
    assert re.fullmatch(rf'\d+: {section} lacks {trail.split(".")[-1]}; add it', message)


def test_testing_needs_the_val_section(test_options, tmp_path):
    with pytest.raises(DBLRError, match=r'val is empty, and a test needs it; write val: \{save_img: true\}'):
        check_option_file(write_options(tmp_path / 'test.yml', test_options | {'val': None}), is_train=False)


def test_testing_needs_no_training_options(test_options, tmp_path):
    del test_options['val']['val_freq']
    check_option_file(write_options(tmp_path / 'test.yml', test_options), is_train=False)
    with pytest.raises(DBLRError, match='lacks val; add it'):
        check_option_file(write_options(tmp_path / 'test.yml', changed(test_options, 'val', ...)), is_train=False)


@pytest.mark.parametrize(('trail', 'value', 'message'), [
    ('train.total_iter', 1.5, 'is 1.5, and must be a whole number from 1'),
    ('train.total_iter', '10', "is the text '10', and must be a whole number from 1; remove the quotes"),
    ('train.total_iter', 0, 'is 0, and must be a whole number from 1'),
    ('train.total_iter', None, 'is empty, and must be a whole number from 1'),
    ('train.optim_g.lr', '0.1', "is the text '0.1', and must be a number from 0; remove the quotes"),
    ('train.optim_g.lr', -1, 'is -1, and must be a number from 0'),
    ('train.optim_g.betas', [0.9], r'is \[0.9\], and must be a list of 2 numbers'),
    ('train.optim_g.eps', 'small', "is the text 'small', and must be a number"),
    ('train.optim_g.amsgrad', 1, 'is 1, and must be true or false'),
    ('train.scheduler.milestones', 1000, r'is 1000, and must be a list of whole numbers from 0; write \[1000\]'),
    ('train.scheduler.gamma', True, 'is true, and must be a number'),
    ('train.pixel_opt.reduction', 'none', "is the text 'none', and must be one of mean, sum"),
    ('train.ema_decay', 1, 'is 1, and must be a number from 0 and below 1'),
    ('train.amp', 'bf61', "must be one of bf16, fp16 or empty; did you mean 'bf16'?"),
    ('train.amp', True, 'is true, and must be one of bf16, fp16 or empty'),
    ('train.accumulate', 0, 'must be a whole number from 1'),
    ('train.clip_grad_norm', 0, 'must be a number above 0 or empty'),
    ('train.compile', 'graphs', "is the text 'graphs', and must be true or false or reduce-overhead"),
    ('train.channels_last', 'yes', "is the text 'yes', and must be true or false; remove the quotes"),
    ('name', 2024, 'must be text that can name a folder; put it in quotes'),
    ('name', '..', 'must be text that can name a folder'),
    ('num_gpu', 'all', 'must be auto or a whole number from 0'),
    ('num_gpu', True, 'is true, and must be auto'),
    ('scale', 4, 'is 4, and must be 1'),
    ('network_g.num_feat', 64.5, 'is 64.5, and must be a whole number'),
    ('network_g.input_skip', 1, 'is 1, and must be true or false'),
    ('network_g.init_std', 'tiny', 'must be a number or empty'),
    ('datasets.train.num_frame', 4, 'is 4, and must be a whole number from 1 and odd'),
    ('datasets.train.interval_list', [], 'must be a list of whole numbers from 1 with at least one entry'),
    ('datasets.train.interval_list', [1, 0], 'must be a list of whole numbers from 1'),
    ('datasets.train.interval_list', 2, r'; write \[2\]'),
    ('datasets.train.io_backend', 'disk', 'must hold keys and values'),
    ('datasets.train.timeout', -1, 'must be a number of seconds from 0'),
    ('datasets.train.dataroot_lq', None, 'is empty, and must be text'),
    ('datasets.val.padding', 'replicat', "did you mean 'replicate'?"),
    ('datasets.val.persistent_workers', True, 'must be False'),
    ('val.val_freq', True, 'is true, and must be a whole number from 1'),
    ('val.metrics.psnr.crop_border', '4', 'remove the quotes'),
    ('val.metrics', ['psnr'], 'must hold keys and values'),
    ('logger.max_keep_ckpts', 0, 'must be a whole number from 1 or empty'),
    ('dist_params', {'port': 70000}, 'must be a whole number from 1 to 65535'),
    ('path.strict_load_g', None, 'is empty, and must be true or false'),
])  # fmt: skip
def test_wrong_types_are_refused_with_the_accepted_values(gan_options, tmp_path, trail, value, message):
    found = refusal(tmp_path, changed(gan_options, trail, value))
    assert re.match(rf'{line_of(tmp_path / "train.yml", trail)}: {trail}\b', found) or isinstance(value, dict)
    assert re.search(message.replace('?', r'\?'), found), found


@pytest.mark.slow
@pytest.mark.parametrize('wrong', [{'nonsense': 1}, 'nonsense', None], ids=str)
def test_wrong_type_at_any_key_is_refused_with_its_line(full_options, tmp_path, wrong):
    """Each key in turn gets a value of another type, or none; ``ACCEPTED`` lists the keys that allow it."""
    accepted = set()
    for trail in leaves(full_options):
        value = functools.reduce(dict.__getitem__, trail.split('.'), full_options)
        if type(value) is type(wrong) or {type(value), type(wrong)} == {int, float}:
            continue
        path = write_options(tmp_path / 'train.yml', changed(full_options, trail, wrong))
        try:
            check_option_file(path, is_train=True)
        except DBLRError as error:
            assert str(error).startswith(f'{path}:{line_of(path, trail)}: {trail}'), str(error)
        else:
            accepted.add(trail)
    assert accepted == ACCEPTED.get(str(wrong), set())


_TEXT_OR_NOTHING = {
    'path.pretrain_network_d', 'path.resume_state', 'val.suffix', 'logger.wandb.resume_id',
    'datasets.train.meta_info_file',
}  # fmt: skip
_SOMETHING_OR_NOTHING = {
    'datasets.train.prefetch_mode', 'datasets.val.dataroot_gt', 'datasets.val_2.dataroot_gt', 'manual_seed',
    'network_g.init_std', 'path.param_key_g', 'train.amp', 'train.clip_grad_norm', 'val.protocol',
    'logger.max_keep_ckpts',
}  # fmt: skip
ACCEPTED = {
    # the wandb project is accepted with TensorBoard, which full_options enables
    'nonsense': _TEXT_OR_NOTHING | {'path.pretrain_network_g', 'logger.wandb.project'},
    'None': _SOMETHING_OR_NOTHING,
}


def test_schema_lists_the_paddings_and_precisions_of_the_code():
    assert get_args(get_type_hints(TEST_SETS['VideoDeblurTestDataset'])['padding']) == PADDINGS
    assert AMP_TYPES.keys() == {'bf16', 'fp16'}


@pytest.mark.parametrize(('text', 'value'), [
    ('1e-4', 1e-4), ('1E5', 1e5), ('.5e-3', 5e-4), ('1.e-2', 0.01), ('2.0e-1', 0.2), ('!!float 1e-4', 1e-4), ('1', 1),
])  # fmt: skip
def test_numbers_with_an_exponent_need_no_tag(gan_options, tmp_path, text, value):
    path = write_options(tmp_path / 'train.yml', changed(gan_options, 'train.optim_g.lr', 'HERE'))
    path.write_text(path.read_text().replace('HERE', text))
    assert check_option_file(path, is_train=True)['train']['optim_g']['lr'] == value


def test_counts_written_as_floats_become_integers(gan_options, tmp_path):
    """BasicSR's own files write counts as floats, while the code needs whole numbers."""
    gan_options['train'] |= {'total_iter': 1e5}
    gan_options['train']['scheduler']['milestones'] = [1e4, 2e4]
    gan_options['network_g']['num_feat'] = 64.0
    options = check_option_file(write_options(tmp_path / 'train.yml', gan_options), is_train=True)
    train = options['train']
    found = train['total_iter'], *train['scheduler']['milestones'], options['network_g']['num_feat']
    assert [(type(value), value) for value in found] == [(int, 100_000), (int, 10_000), (int, 20_000), (int, 64)]


def test_yaml_aliases_and_merged_sections_are_read(gan_options, tmp_path):
    """Both optimisers share one section, and the second validation set differs only in its name."""
    path = write_options(tmp_path / 'train.yml', gan_options)
    text = path.read_text().replace('  optim_g:\n', '  optim_g: &adam\n').replace('  val:\n', '  val: &val\n', 1)
    text = text.replace('network_g:\n', '  val_2:\n    <<: *val\n    name: V2\nnetwork_g:\n', 1)
    start = text.index('  optim_d:')
    path.write_text(text[:start] + '  optim_d: *adam\n' + text[text.index('  gan_opt:') :])
    options = check_option_file(path, is_train=True)
    assert options['datasets']['val_2'] == options['datasets']['val'] | {'name': 'V2'}
    assert options['train']['optim_d'] == options['train']['optim_g']
    # separate dicts, as BasicSR removes the type from each
    assert options['train']['optim_d'] is not options['train']['optim_g']


@pytest.mark.parametrize(('text', 'message'), [
    ('name: [', 'not valid YAML'),
    ('name: a\nname: b\n', ":2: 'name' appears twice in the file; remove one"),
    ('logger:\n  wandb: {project: a, project: b}\n', ":2: 'project' appears twice in logger.wandb"),
    ('- a\n- b\n', 'must hold keys and values'),
    ('', 'lacks datasets'),
    ('name: !!python/object:os.system x', ':1: not valid YAML: could not determine a constructor'),
    ('path: &p\n  a: *p\n', 'contains itself'),
    ('path:\n  <<: 3\n', ':2: << takes a section'),
    ('? [a, b]\n: 3\n', 'is not a plain word'),
    ('name: a\nscale: !!bool maybe\n', r":2: scale cannot be read \('maybe'\); put it in quotes if it is text"),
    ('name: !!timestamp soon\n', ':1: name cannot be read'),
    ('name: a\n2024-99-99: 1\n', ':2: a key of the file cannot be read'),
    ('name: a\nscale:\t1\n', ':2: not valid YAML: .*; write spaces instead'),
    ('name: a\n# \x1b[31m\n', ':2: not valid YAML: special characters are not allowed'),
    ('name: a\n---\nname: b\n', ':2: not valid YAML: expected a single document in the stream, but found another'),
    ('name: &a b\nscale: &a 1\n', ":2: not valid YAML: found duplicate anchor 'a'"),
])  # fmt: skip
def test_invalid_yaml_is_refused_in_one_line(tmp_path, text, message):
    path = tmp_path / 'train.yml'
    path.write_text(text)
    with pytest.raises(DBLRError, match=message) as error:
        check_option_file(path, is_train=True)
    assert '\n' not in str(error.value)


def test_missing_or_unreadable_file_is_refused(tmp_path):
    with pytest.raises(DBLRError, match='no such option file'):
        check_option_file(tmp_path / 'none.yml', is_train=True)
    with pytest.raises(DBLRError, match='cannot be read as text'):
        check_option_file(tmp_path, is_train=True)
    for encoding in ('latin-1', 'utf-16'):
        (tmp_path / 'train.yml').write_text('# für GoPro\n', encoding=encoding)
        with pytest.raises(DBLRError, match=r'train\.yml: cannot be read as text, .*; save it as UTF-8'):
            check_option_file(tmp_path / 'train.yml', is_train=True)


@pytest.mark.parametrize('change', [
    lambda text: b'\xef\xbb\xbf' + text, lambda text: text.replace(b'\n', b'\r\n'), lambda text: text + b'...\n',
])  # fmt: skip
def test_files_of_other_editors_are_read(train_options, tmp_path, change):
    path = write_options(tmp_path / 'train.yml', train_options)
    path.write_bytes(change(path.read_bytes()))
    assert check_option_file(path, is_train=True) == train_options


def test_images_that_are_no_clips_cannot_be_validated_on(train_options, tmp_path):
    images = {'name': 'images', 'type': 'PairedImageDataset', 'dataroot_lq': 'lq', 'dataroot_gt': 'gt'}
    said = refusal(tmp_path, changed(train_options, 'datasets.val', images))
    assert 'datasets.val.type is PairedImageDataset, which has no clips to restore; write VideoDeblurTest' in said


def test_test_set_whose_samples_nobody_would_read_is_refused(train_options, tmp_path):
    """Networks get frames, not samples: its change would have no effect, and the scores would not tell."""

    @DATASET_REGISTRY.register()
    class NoisySamples(VideoDeblurTestDataset):
        def __getitem__(self, index):
            return super().__getitem__(index) | {'lq': 0}

    @DATASET_REGISTRY.register()
    class NoisyFrames(NoisySamples):
        def read_blurry(self, clip, number):
            return super().read_blurry(clip, number) // 2

    options = changed(train_options, 'datasets.val.type', 'NoisySamples')
    assert 'datasets.val.type is NoisySamples, which changes __getitem__, and' in refusal(tmp_path, options)
    options['datasets']['val']['type'] = 'NoisyFrames'
    check_option_file(write_options(tmp_path / 'train.yml', options), is_train=True)


def test_misspelt_keys_of_other_data_sets_are_told(train_options, tmp_path, caplog):
    """A class of someone else may read any key, so these are no faults; its optional keys were ignored in silence."""

    @DATASET_REGISTRY.register()
    class WithOwnKeys(VideoDeblurDataset):
        def __init__(self, opt):
            super().__init__({key: value for key, value in opt.items() if key != 'use_rots'})

    own = {'type': 'WithOwnKeys', 'use_hfilp': False, 'use_rots': 3, 'sigma': 0.1}
    options = train_options | {
        'datasets': train_options['datasets'] | {'train': train_options['datasets']['train'] | own}
    }
    check_option_file(write_options(tmp_path / 'train.yml', options), is_train=True)
    (said,) = caplog.messages
    assert said.endswith("datasets.train.use_hfilp is not read by WithOwnKeys; did you mean 'use_hflip'?")


def test_unknown_class_without_a_similar_name_is_one_sentence(train_options, tmp_path):
    options = changed(train_options, 'network_g.type', 'Xyzzy')
    assert "network_g.type: no class 'Xyzzy' is registered. Registered: " in refusal(tmp_path, options)


def test_a_class_without_a_constructor_takes_no_arguments(train_options, tmp_path):
    @LOSS_REGISTRY.register()
    class LossWithoutConstructor(nn.Module):
        pass

    options = changed(train_options, 'train.pixel_opt', {'type': 'LossWithoutConstructor', 'loss_weight': 1.0})
    assert "unknown key 'train.pixel_opt.loss_weight'" in refusal(tmp_path, options)


def test_options_of_other_models_are_left_to_basicsr(tmp_path):
    path = tmp_path / 'train.yml'
    path.write_text('model_type: SRModel\ntheir_own_key: 1\nlr: 1e-4\n')
    assert check_option_file(path, is_train=True) is None


def test_other_models_get_classes_of_imported_files(tmp_path):
    """Networks, and models that are not derived from ours."""
    source = tmp_path / 'mine.py'
    source.write_text(
        'from basicsr.utils.registry import ARCH_REGISTRY, MODEL_REGISTRY\n'
        '@ARCH_REGISTRY.register()\nclass MyNetworkForBasicSR: pass\n'
        '@MODEL_REGISTRY.register()\nclass MyModelForBasicSR: pass\n'
    )
    path = tmp_path / 'train.yml'
    path.write_text(f'model_type: MyModelForBasicSR\nimports: [{source}]\n')
    assert check_option_file(path, is_train=True) is None
    assert 'MyNetworkForBasicSR' in ARCH_REGISTRY


def test_imported_script_that_exits_is_refused(train_options, tmp_path):
    """The command ended at once, without a word and with success."""
    (tmp_path / 'script.py').write_text('raise SystemExit(0)\n')
    said = refusal(tmp_path, train_options | {'imports': [str(tmp_path / 'script.py')]})
    assert 'script.py fails: SystemExit: 0 (line 1)' in said


def test_fault_of_an_imported_file_is_told_with_its_line(train_options, tmp_path):
    (tmp_path / 'own.py').write_text('def f():\n    import json\n    return json.loads("")\n\n\nf()\n')
    said = refusal(tmp_path, train_options | {'imports': [str(tmp_path / 'own.py')]})
    assert 'own.py fails: JSONDecodeError: Expecting value: line 1 column 1 (char 0) (line 3)' in said


@pytest.mark.parametrize('empty', ['path', 'val.metrics', 'network_d', 'train.perceptual_opt', 'val'])
def test_optional_sections_may_be_empty(train_options, tmp_path, empty):
    options = changed(train_options, empty, None)
    found = check_option_file(write_options(tmp_path / 'train.yml', options), is_train=True)
    # BasicSR reads path unconditionally, and val with --debug
    expected = {'path': options | {'path': {}}, 'val': {k: v for k, v in options.items() if k != 'val'}}
    assert found == expected.get(empty, options)


def test_loss_that_is_a_function_is_refused(train_options, tmp_path, monkeypatch):
    """Its arguments, which the trainer gives, were said to be missing."""

    def own_loss(pred, target):
        return (pred - target).abs().mean()

    monkeypatch.setitem(LOSS_REGISTRY._obj_map, 'own_loss', own_loss)
    options = changed(train_options, 'train.pixel_opt', {'type': 'own_loss'})
    assert 'is own_loss, a function; write a class with forward(pred, target)' in refusal(tmp_path, options)


def test_metric_without_images_is_refused(train_options, tmp_path, monkeypatch):
    """The same for images that have other names."""

    def calculate_own(pred, target):
        return 1.0

    monkeypatch.setitem(METRIC_REGISTRY._obj_map, 'calculate_own', calculate_own)
    options = changed(train_options, 'val.metrics', {'x': {'type': 'own'}})
    assert 'has no argument img; name the images of a metric img and img2' in refusal(tmp_path, options)
