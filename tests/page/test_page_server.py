"""What the page asks of its server, and what other pages must not get from it."""

from __future__ import annotations

import os
import re
import resource
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from basicsr.archs import build_network
from page.conftest import BRIGHTER, NETWORK, HeldRestorer, Page
from processes import Run
from video.made_videos import Made, make, packets, scene, times

from dblr_plugin import commands
from dblr_plugin.errors import DBLRError


def stored(page: Page, job: str, result: str, folder: Path) -> Path:
    """A result in a file."""
    answer = page.ask('GET', f'{job}/{result}')
    assert answer.status == 200
    suffix = answer.headers['content-type'].split('/')[1]
    (folder / f'{result}.{suffix}').write_bytes(answer.body)
    return folder / f'{result}.{suffix}'


def shown(path: Path) -> np.ndarray:
    """All frames of a video, RGB, as players show them."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format='rgb24') for frame in container.decode(video=0)])


@pytest.fixture
def held(restorer: HeldRestorer):
    """The restorer waits before its first picture; gives the way to let it go on."""
    restorer.go_on.clear()
    yield restorer.go_on
    restorer.go_on.set()


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """The system refuses to let files grow beyond a size, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_before_and_after_have_the_same_frames_at_the_same_times(page, tmp_path):
    """Of a part of a film with irregular times, 10 bits, 4:2:2, odd height, and sound."""
    pts = [0, 10, 20, 50, 60, 75, 80, 90, 100, 110]
    frames = [(frame * 0.5).astype(np.uint16) for frame in scene(10, (65, 96), high_bit_depth=True)]
    made = Made(frames, pix_fmt='yuv422p10le', pts=pts, time_base=Fraction(1, 100), audio=1)
    clip = make(tmp_path / 'my [clip] 1.mov', made)
    job = page.send(clip, start='0.15', length='0.7')
    status = page.ended(job)
    assert status['state'] == 'done', status
    expected = [0, 0.3, 0.4, 0.55, 0.6]  # of the pictures at 0.2, 0.5, 0.6, 0.75 and 0.8 s
    assert status['times'] == pytest.approx(expected) and status['aspect'] == 96 / 64 and status['done'] == 5
    before, after = (stored(page, job, result, tmp_path) for result in ('before', 'after'))
    for path in (before, after):
        assert [float(t) for t in times(path)] == pytest.approx(expected)
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            assert (stream.codec.name, stream.format.name) == ('h264', 'yuv420p')
    first = cv2.convertScaleAbs(frames[2], alpha=1 / 257)[:64]
    assert cv2.PSNR(shown(before)[0], first) > 30
    brighter = shown(after).mean() - shown(before).mean()
    assert brighter == pytest.approx(BRIGHTER, abs=4)
    download = page.ask('GET', f'{job}/download')
    assert 'my%20_clip_%201_restored.mov' in download.headers['content-disposition']
    (tmp_path / 'full.mov').write_bytes(download.body)
    with av.open(str(tmp_path / 'full.mov')) as container:
        assert container.streams.video[0].format.name == 'yuv422p10le' and container.streams.video[0].height == 65
    assert packets(tmp_path / 'full.mov')[0]  # the sound
    assert sorted(p.name for p in (page.folder / job[6:]).iterdir()) == [
        'after.mp4', 'before.mp4', 'my _clip_ 1_restored.mov'
    ]  # fmt: skip


def test_an_image(page, tmp_path):
    picture = (np.random.default_rng(0).random((33, 47, 3)) * 100).astype(np.uint8)
    cv2.imwrite(str(tmp_path / 'photo.bmp'), picture)
    job = page.send(tmp_path / 'photo.bmp', start='5')
    status = page.ended(job)
    assert (status['state'], status['times'], status['aspect'], status['total']) == ('done', [], 47 / 33, 1)
    assert np.array_equal(cv2.imread(str(stored(page, job, 'before', tmp_path))), picture)
    after = cv2.imread(str(stored(page, job, 'after', tmp_path)))
    assert after.mean() - picture.mean() == pytest.approx(BRIGHTER, abs=1)
    (tmp_path / 'restored.bmp').write_bytes(page.ask('GET', f'{job}/download').body)
    assert np.array_equal(cv2.imread(str(tmp_path / 'restored.bmp')), after)


def test_parts_of_a_file_are_served(page, tmp_path):
    job = page.send(make(tmp_path / 'clip.mp4', Made(6)))
    page.ended(job)
    whole = page.ask('GET', f'{job}/after').body
    part = page.ask('GET', f'{job}/after', headers={'Range': 'bytes=100-299'})
    assert part.status == 206 and part.body == whole[100:300]
    assert part.headers['content-range'] == f'bytes 100-299/{len(whole)}'
    assert page.ask('GET', f'{job}/after', headers={'Range': f'bytes={len(whole)}-'}).status == 416


def test_one_at_a_time_and_each_can_be_cancelled(page, held, tmp_path):
    clip = make(tmp_path / 'clip.mp4', Made(6))
    first, second, third = (page.send(clip) for _ in range(3))
    page.until(first, 'restoring')
    assert [page.ask('GET', job).json['state'] for job in (second, third)] == ['waiting', 'waiting']
    assert page.ask('GET', f'{first}/after').status == 404
    for job in (first, second):
        assert page.ask('DELETE', job).status == 200
        assert page.ask('GET', job).status == 404
    held.set()
    assert page.ended(third)['state'] == 'done'
    assert not (page.folder / first[6:]).exists() and not (page.folder / second[6:]).exists()
    page.ask('DELETE', third)
    assert not (page.folder / third[6:]).exists()


def test_progress_is_told(page, held, tmp_path):
    job = page.send(make(tmp_path / 'clip.mp4', Made(9)), length='0.2')
    page.until(job, 'restoring')
    held.set()
    status = page.ended(job)
    assert (status['done'], status['total'], status['seconds_left']) == (6, 6, 0) and status['rate'] > 0
    assert status['notes'] == []


@pytest.mark.parametrize(('name', 'content', 'part', 'sentence'), [
    ('notes.txt', b'no film at all', {}, 'notes.txt is no video, or is incomplete; give a whole video file'),
    ('empty.mp4', b'', {}, 'empty.mp4 is no video, or is incomplete; give a whole video file'),
    ('cut.png', b'\x89PNG\r\n\x1a\n', {}, 'cut.png has no readable image header; replace it with an intact copy'),
    ('../../etc/passwd', b'x', {}, '.._.._etc_passwd is no video'),
    ('clip.mp4', None, {'start': '99'}, 'clip.mp4 has no picture that can be decoded in the part that is wanted'),
])  # fmt: skip
def test_what_cannot_be_restored_is_one_sentence(page, tmp_path, name, content, part, sentence):
    clip = tmp_path / 'clip.mp4'
    data = make(clip, Made(3)).read_bytes() if content is None else content
    job = f'/jobs/{page.announce(name, len(data), **part).json["id"]}'
    page.ask('PUT', job, data)
    status = page.ended(job)
    assert status['state'] == 'failed' and status['error'].startswith(sentence.lstrip('.')), status
    assert not (page.folder / job[6:]).exists()


def test_what_the_disk_refuses_is_one_sentence(page, held, tmp_path):
    clip = make(tmp_path / 'clip.mp4', Made(6))
    job = page.send(clip)
    page.until(job, 'restoring')
    with files_of_at_most(1000):
        held.set()
        assert re.match(
            '(before|after|clip_restored).mp4 could not be written: .*give an output on another one',
            page.ended(job)['error'],
        )
        size = clip.stat().st_size
        job = f'/jobs/{page.announce("clip.mp4", size).json["id"]}'
        answer = page.ask('PUT', job, clip.read_bytes())
    assert answer.status == 400 and 'clip.mp4 could not be stored (File too large); make room' in answer.json['error']


def test_memory_that_ran_out_is_told_and_the_server_goes_on(page, restorer, monkeypatch, tmp_path):
    def exhausted(*args):
        raise MemoryError

    clip = make(tmp_path / 'clip.mp4', Made(3))
    with monkeypatch.context() as patch:
        patch.setattr(restorer.restorer, 'restore', exhausted)
        assert 'memory ran out; start dblr demo-page with --tile' in page.ended(page.send(clip))['error']
    assert page.ended(page.send(clip))['state'] == 'done'


def test_too_much_is_refused(page):
    answer = page.announce('film.mp4', 5_000_000)
    assert answer.status == 400 and 'film.mp4 has 5 MB, more than the 2 MB that are taken' in answer.json['error']
    job = f'/jobs/{page.announce("film.mp4", 1000).json["id"]}'
    answer = page.ask('PUT', job, bytes(2000))
    assert answer.status == 400 and 'more bytes than were announced' in answer.json['error']
    assert page.announce('film.mp4', 10, start='soon').json['error'].startswith("start 'soon' is no time")


@pytest.mark.parametrize('headers', [
    {'Host': 'evil.example'}, {'Host': 'evil.example:80'}, {'Host': '127.0.0.1.evil.example'}, {'Host': '[::1'},
    {'Origin': 'http://evil.example'}, {'Origin': 'null'}, {'Origin': 'http://localhost:1'},
    {'Origin': 'https://127.0.0.1'},
])  # fmt: skip
def test_other_pages_are_refused(page, headers):
    for method, path in (('GET', '/'), ('POST', '/jobs'), ('GET', '/static/page.js'), ('DELETE', '/jobs/x')):
        assert page.ask(method, path, headers=headers).status == 403


def test_its_own_page_is_not(page):
    for host in (f'127.0.0.1:{page.port}', f'localhost:{page.port}', f'[::1]:{page.port}'):
        answer = page.ask('GET', '/', headers={'Host': host, 'Origin': f'http://{host}'})
        assert answer.status == 200 and "default-src 'self'" in answer.headers['content-security-policy']


def test_an_upload_that_breaks_off_is_forgotten(page):
    job = f'/jobs/{page.announce("film.mp4", 1000).json["id"]}'
    with socket.create_connection(('127.0.0.1', page.port)) as connection:
        connection.send(f'PUT {job} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\nhalf'.encode())
        time.sleep(0.1)
    assert page.ask('GET', job).json['state'] == 'uploading'
    page.ask('DELETE', job)
    assert not (page.folder / job[6:]).exists()


def test_a_port_that_is_taken(page, tmp_path):
    with pytest.raises(DBLRError, match=f'port {page.port} of 127.0.0.1 cannot be had .another program has it'):
        commands.main(['demo-page', '--weights', str(tmp_path / 'no.pth'), '--port', str(page.port)])
    with pytest.raises(DBLRError, match=r'port 99999 of 127.0.0.1 cannot be had'):
        commands.main(['demo-page', '--weights', str(tmp_path / 'no.pth'), '--port', '99999'])


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, 'uvicorn', None)
    monkeypatch.delitem(sys.modules, 'dblr_plugin.page.server', raising=False)
    with pytest.raises(DBLRError, match=r"uvicorn.*pip install 'dblr_plugin\[page\]'"):
        commands.main(['demo-page', '--weights', 'net.pth'])


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_the_command_ends_at_once_and_leaves_nothing(tmp_path, number):
    """While a clip is restored, and somebody is sending another."""
    torch.save({'params': build_network(NETWORK).state_dict(), 'network': NETWORK}, tmp_path / 'net.pth')
    clip = make(tmp_path / 'clip.mp4', Made(scene(60, (360, 640))))
    run = Run('demo-page', '--weights', 'net.pth', '--port', 0, '--backend', 'torch', cwd=tmp_path)
    try:
        assert run.until(lambda: 'Ctrl-C' in run.stdout), run.stderr
        page = Page(int(re.search(r'http://127.0.0.1:(\d+) ', run.stdout)[1]))
        page.until(page.send(clip), 'restoring')
        job = page.announce('film.mp4', 1000).json['id']
        (folder,) = Path(tempfile.gettempdir()).glob(f'dblr_page_*/{job}')
        with socket.create_connection(('127.0.0.1', page.port)) as connection:
            connection.send(f'PUT /jobs/{job} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nhalf'.encode())
            os.kill(run.pid, number)
            began = time.monotonic()
            assert run.wait(60) == 0 and time.monotonic() - began < 10
    finally:
        run.kill()
    assert not folder.parent.exists() and 'Traceback' not in run.stderr, run.stderr
