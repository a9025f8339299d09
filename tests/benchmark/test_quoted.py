"""Quoted figures: those that come with the plugin, and what is refused in the users' own."""

from statistics import fmean

import pytest

from dblr_plugin.benchmark.plan import UNSTATED, read_quotes
from dblr_plugin.errors import DBLRError
from dblr_plugin.evaluation.protocols import PROTOCOLS
from dblr_plugin.link import option_files, options_folder

SHIPPED = options_folder() / 'quoted_DVD.yml'

GOOD = """\
dataset: Mine
tables:
  first:
    source: a paper
    protocol: basicsr
    figures:
      A: {psnr: 30}
      B: {psnr: 31.5, ssim: 0.9, clips: {x: 31, y: 32}}
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'quoted.yml'


@pytest.fixture(scope='module')
def tables():
    dataset, tables = read_quotes(SHIPPED)
    assert dataset == 'DVD'
    return {table.name: table for table in tables}


class TestShippedFile:
    def test_figures_of_su_et_al(self, tables):
        (dbn,) = tables['su2017'].figures
        assert tables['su2017'].protocol == 'dvd-official' and dbn.psnr == 30.05
        assert len(dbn.clips) == 10 and fmean(dbn.clips.values()) == pytest.approx(dbn.psnr, abs=0.005)

    def test_later_figures(self, tables):
        assert tables['vrt2022'].protocol == 'vrt-matlab' and tables['vrt2022'].figures[0].psnr == 34.27
        collected = {figure.method: (figure.psnr, figure.ssim) for figure in tables['collected'].figures}
        assert collected['DBLRNet'] == (30.08, 0.8845) and collected['EDVR'] == (31.82, 0.916)
        assert tables['collected'].protocol == UNSTATED and 'UNCONFIRMED' in tables['collected'].note

    def test_reproductions_of_dbn(self, tables):
        (theirs,), (simdeblur,) = tables['issue3'].figures, tables['simdeblur'].figures
        assert list(theirs.clips) == list(tables['su2017'].figures[0].clips) and theirs.ssim is None
        assert fmean(theirs.clips.values()) == pytest.approx(theirs.psnr, abs=0.005) and theirs.psnr == 29.85
        assert (simdeblur.psnr, simdeblur.ssim) == (30.84, 0.8978)
        for name in ('issue3', 'simdeblur'):  # no protocol of ours, and the note tells what is known
            assert tables[name].protocol == UNSTATED and 'not said' in tables[name].note

    def test_quotes_nothing_of_dblrgan(self, tables):
        """Its paper's figure was not found."""
        assert not [f for table in tables.values() for f in table.figures if 'GAN' in f.method]

    def test_is_no_option_file(self):
        assert SHIPPED not in option_files()


def test_own_file(path):
    path.write_text(GOOD)
    dataset, (table,) = read_quotes(path)
    assert dataset == 'Mine' and (table.name, table.source, table.note) == ('first', 'a paper', None)
    assert table.protocol in PROTOCOLS
    first, second = table.figures
    assert (first.method, first.psnr, first.ssim, first.clips) == ('A', 30, None, {})
    assert (second.psnr, second.ssim, second.clips) == (31.5, 0.9, {'x': 31, 'y': 32})


@pytest.mark.parametrize(('old', 'new', 'message'), [
    ('dataset: Mine', 'data: Mine', ":1: unknown key 'data'; did you mean 'dataset'"),
    ('dataset: Mine\n', '', 'the file lacks dataset'),
    ('source: a paper', 'sauce: a paper', ":4: unknown key 'tables.first.sauce'; did you mean 'source'"),
    ('source: a paper', "source: ' '", ':4: tables.first.source is .* must be text that is not empty'),
    ('protocol: basicsr', 'protocol: ours', ":5: tables.first.protocol is the text 'ours', and must be text among"),
    ('    protocol: basicsr\n', '', ':3: tables.first lacks protocol'),
    ('{psnr: 30}', '{psnr: 30, year: 3}', ":7: unknown key 'tables.first.figures.A.year'; known here: clips, psnr"),
    ('{psnr: 30}', '{ssim: 0.8}', ':7: tables.first.figures.A lacks psnr'),
    ('{psnr: 30}', "{psnr: '30'}", ':7: .*psnr is the text .*remove the quotes'),
    ('{psnr: 30}', '{psnr: .inf}', ':7: .*psnr is inf'),
    ('{psnr: 30}', '30', ':7: tables.first.figures.A must hold keys and values'),
    ('ssim: 0.9', 'ssim: 90', ':8: .*ssim is 90, and must be a number from -1 to 1'),
    ('y: 32', 'y: -32', ':8: tables.first.figures.B.clips.y is -32, and must be a number of dB above 0'),
    ('tables:', 'tables: 3\nother:', ':2: tables must hold keys and values'),
])  # fmt: skip
def test_refusals(path, old, new, message):
    assert GOOD.count(old) == 1
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(DBLRError, match=message) as error:
        read_quotes(path)
    faults = str(error.value).removeprefix('2 faults in the options:\n').splitlines()
    assert all(fault.strip().startswith(str(path)) for fault in faults)


def test_no_file(path):
    with pytest.raises(DBLRError, match='no such option file'):
        read_quotes(path)
