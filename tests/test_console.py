"""What a terminal can show."""

import io
import logging
import os
import re
import subprocess
import sys

import pytest
from processes import Run
from tqdm import tqdm

from dblr_plugin import commands
from dblr_plugin.console import never_fail_to_print, printable


def test_characters_that_a_console_lacks(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, 'stdout', io.TextIOWrapper(written, encoding='ascii'))
    never_fail_to_print()
    print('café.mp4: 2 frames restored', flush=True)
    assert written.getvalue() == b'caf\\xe9.mp4: 2 frames restored\n'


def test_streams_that_know_no_encoding(monkeypatch):
    monkeypatch.setattr(sys, 'stdout', io.StringIO())
    never_fail_to_print()


def test_messages_that_cannot_be_written_end_nothing(monkeypatch):
    """SLURM's output file on a full disk, ``2>&1 | head``: a progress bar would end a training."""
    reading, writing = os.pipe()
    os.close(reading)
    for output in ('/dev/full', writing):
        with open(output, 'w') as stream:
            monkeypatch.setattr(sys, 'stderr', stream)
            never_fail_to_print()
            for _ in tqdm(range(2)):
                print('a message', file=sys.stderr, flush=True)


@pytest.mark.parametrize('text', ['\x1b[2J', '\x1b]0;title\x07', '\x9b31m', 'a\rb', '\u202egpj.exe', 'a\x08'])
def test_what_steers_terminals_is_written_out(text):
    assert printable(text) != text and printable(printable(text)) == printable(text)
    assert printable(text).isprintable()


def test_warnings_do_not_steer_terminals(capsys, monkeypatch):
    monkeypatch.setattr(logging, 'lastResort', logging.lastResort)
    never_fail_to_print()
    record = logging.LogRecord('dblr_plugin', logging.WARNING, '', 0, 'attachment %s is left out', ('\x1b[2J',), None)
    logging.lastResort.emit(record)
    assert capsys.readouterr().err == 'attachment \\x1b[2J is left out\n'


def test_warnings_do_not_share_a_line_with_a_progress_bar(capsys, monkeypatch):
    monkeypatch.setattr(logging, 'lastResort', logging.lastResort)
    never_fail_to_print()
    with tqdm(total=2):
        logging.lastResort.handle(logging.makeLogRecord({'msg': 'it is odd', 'levelno': logging.WARNING}))
    lines = re.split('[\r\n]', capsys.readouterr().err)
    assert 'it is odd' in lines and sum('0/2' in line for line in lines) == 3  # before, after, and when it is closed


def test_other_text_stays():
    assert printable('GoPro, "blurred" färbig\n  日本\t') == 'GoPro, "blurred" färbig\n  日本\t'


def test_streams_that_the_caller_has_closed(footage, tmp_path):
    """The next file to be opened would take their numbers: the output would hold a library's messages."""
    code = """
import os, sys
sys.orig_argv = ['python', '-m', 'dblr_plugin']
from dblr_plugin.commands import main
main(sys.argv[1:])
print('written by Python')
assert all(os.path.samefile(f'/proc/self/fd/{number}', os.devnull) for number in range(3))
"""
    command = [sys.executable, '-c', code, 'prepare', 'lmdb', str(footage / 'val/lq'), str(tmp_path / 'val.lmdb')]
    result = subprocess.run(['sh', '-c', 'exec "$@" <&- >&- 2>&-', 'sh', *command], timeout=60)
    assert result.returncode == 0 and (tmp_path / 'val.lmdb/data.mdb').exists()


def main():
    """The command, with a standard output that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    os.dup2(writing, 1)
    sys.stdout = open(1, 'w', closefd=False)  # noqa: SIM115  (until the process ends)
    commands.main()


@pytest.mark.slow
def test_a_reader_that_has_enough_ends_a_command_without_a_word(tmp_path):
    run = Run('weights', cwd=tmp_path, program='test_console')
    assert (run.wait(), run.stderr) == (1, '')
