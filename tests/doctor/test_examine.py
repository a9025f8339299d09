"""Whatever a check does, it becomes a finding, and the others go on."""

import faulthandler
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from dblr_plugin.doctor import FAULT, NOTE, OK, Check, Finding, examine
from dblr_plugin.doctor.findings import fault, ok
from dblr_plugin.errors import DBLRError


def found(*checks: Check) -> list[tuple[str, Finding]]:
    return [(check.name, finding) for check, finding in examine(checks)]


def check(name: str, look: Callable[[], Iterator[Finding]], **options) -> Check:
    return Check('subject', name, look, **options)


def fine() -> Iterator[Finding]:
    print('not for the report')
    yield ok('fine')


def raise_ours() -> Iterator[Finding]:
    yield ok('begins well')
    raise DBLRError('x.png is empty; replace it')


def raise_foreign() -> Iterator[Finding]:
    raise RuntimeError('first line\nsecond line')
    yield


def lack_module() -> Iterator[Finding]:
    import no_such_package.inside  # noqa: F401

    yield


def leave() -> Iterator[Finding]:
    sys.exit('gone')
    yield


def crash() -> Iterator[Finding]:
    faulthandler.disable()  # pytest's, which writes where the doctor does not look
    sys.stderr.write('last words\n')
    sys.stderr.flush()
    os.kill(os.getpid(), signal.SIGILL)
    yield


def hang() -> Iterator[Finding]:
    yield ok('begins well')
    time.sleep(60)


@pytest.mark.parametrize(
    'look, text, cure',
    [
        (raise_ours, 'x.png is empty', 'replace it'),
        (raise_foreign, 'bad: RuntimeError: first line', 'report it'),
        (lack_module, "bad: ModuleNotFoundError: No module named 'no_such_package'", 'a package is missing'),
        (leave, 'bad: SystemExit: gone', 'report it'),
        (crash, 'bad: ended the process (SIGILL): last words', 'an older release'),
        (hang, 'bad: no answer within 0.5 seconds', 'run dblr doctor again'),
    ],
)
def test_nothing_stops_the_others(look, text, cure, capfd):
    results = found(check('bad', look, seconds=0.5), check('next', fine))
    name, finding = results[-2]
    assert (name, finding.level, finding.text) == ('bad', FAULT, text)
    assert cure in finding.cure
    assert results[-1] == ('next', ok('fine'))
    assert capfd.readouterr() == ('', '')


def test_what_a_fault_makes_senseless_is_left_out():
    results = found(
        check('torch', lambda: iter([fault('no torch', 'install it')])),
        check('torchvision', crash, needs=('torch',)),
        check('operators', crash, needs=('torchvision',)),
        check('disk', fine),
    )
    assert [(name, finding.level) for name, finding in results] == [
        ('torch', FAULT), ('torchvision', NOTE), ('operators', NOTE), ('disk', OK),
    ]  # fmt: skip
    assert results[1][1].text == 'torchvision: not checked, as there is a fault in torch'


def test_checks_share_a_process():
    """Importing torch once is enough."""
    results = found(check('a', lambda: iter([ok(str(os.getpid()))])), check('b', lambda: iter([ok(str(os.getpid()))])))
    assert results[0][1] == results[1][1] != ok(str(os.getpid()))


def test_no_process_is_left_when_the_report_is_broken_off():
    report = examine([check('a', lambda: iter([ok(str(os.getpid()))])), check('b', hang)])
    pid = int(next(report)[1].text)
    report.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
