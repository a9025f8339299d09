"""The server restores clips for its own page, limits resources, and refuses requests of other sites."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
import signal
import socket
import struct
import sys
import tempfile
import time
import uuid
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest
from page.conftest import BRIGHTER, Page, file
from processes import run_python
from video.made_videos import Made, make, packets, scene, times

from dblr_plugin import commands
from dblr_plugin.errors import DBLRError

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def client(page: Page, tmp_path_factory: pytest.TempPathFactory):
    from gradio_client import Client

    # its own folder is shared by all users of a computer, who cannot write into each other's
    return Client(page.address, verbose=False, download_files=tmp_path_factory.mktemp('results'))


@pytest.fixture(scope='module')
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip that takes about a minute to restore."""
    options = {'crf': '40', 'preset': 'ultrafast'}
    return make(tmp_path_factory.mktemp('clips') / 'long.mp4', Made(scene(8, (720, 1280)) * 12, options=options))


def shown(path: str) -> np.ndarray:
    """Returns all frames of a video as RGB (n, h, w, 3), as players show them."""
    with av.open(path) as container:
        return np.stack([frame.to_ndarray(format='rgb24') for frame in container.decode(video=0)])


def test_before_and_after_have_the_same_frames_at_the_same_times(client, tmp_path):
    """The input is a part of a clip with irregular times, 10 bits, 4:2:2, odd height, and sound."""
    from gradio_client import handle_file

    pts = [0, 10, 20, 50, 60, 75, 80, 90, 100, 110]
    frames = [(frame * 0.5).astype(np.uint16) for frame in scene(10, (65, 96), high_bit_depth=True)]
    made = Made(frames, pix_fmt='yuv422p10le', pts=pts, time_base=Fraction(1, 100), audio=1)
    clip = handle_file(make(tmp_path / 'my [clip] 1.mov', made))
    pair, _, before, after, result = client.predict(clip, '0.15', '0.7', api_name='/restore')
    for path in (before, after):
        assert [float(t) for t in times(Path(path))] == pytest.approx([0, 0.3, 0.4, 0.55, 0.6])
        with av.open(path) as container:
            stream = container.streams.video[0]
            assert (stream.codec.name, stream.format.name, stream.height) == ('h264', 'yuv420p', 64)
    assert shown(after).mean() - shown(before).mean() == pytest.approx(BRIGHTER, abs=4)
    assert result.endswith('_restored.mov')
    with av.open(result) as container:
        assert container.streams.video[0].format.name == 'yuv422p10le' and container.streams.video[0].height == 65
    assert packets(Path(result))[0]  # the sound
    chosen = client.predict(3, api_name='/show')
    for video, first, third in zip((before, after), pair, chosen, strict=True):
        expected = shown(video)[[0, 2]]
        found = [cv2.cvtColor(cv2.imread(image), cv2.COLOR_BGR2RGB) for image in (first, third)]
        assert [cv2.PSNR(*images) > 35 for images in zip(expected, found, strict=True)] == [True, True]
        assert cv2.PSNR(expected[0], found[1]) < 30


def test_image_is_restored_in_its_format(client, tmp_path):
    from gradio_client import handle_file

    picture = (np.random.default_rng(0).random((33, 47, 3)) * 100).astype(np.uint8)
    cv2.imwrite(str(tmp_path / 'photo.bmp'), picture)
    pair, _, *videos, result = client.predict(handle_file(tmp_path / 'photo.bmp'), '5', '', api_name='/restore')
    assert videos == [None, None] and result.endswith('photo_restored.bmp')
    before, after = (cv2.imread(path) for path in pair)
    assert np.array_equal(before, picture) and np.array_equal(after, cv2.imread(result))
    assert after.mean() - picture.mean() == pytest.approx(BRIGHTER, abs=1)


def png_header(width: int, height: int) -> bytes:
    """Returns a PNG file of about 60 bytes that claims a size."""
    chunks = [
        (b'IHDR', struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)),
        (b'IDAT', zlib.compress(b'')),
        (b'IEND', b''),
    ]
    made = [struct.pack('>I', len(d)) + n + d + struct.pack('>I', zlib.crc32(n + d)) for n, d in chunks]
    return b'\x89PNG\r\n\x1a\n' + b''.join(made)


@pytest.mark.parametrize(('name', 'content', 'part', 'sentence'), [
    ('huge.png', png_header(65000, 1000), {}, 'huge.png has 65000x1000 pixels, too many for the page'),
    ('notes.txt', b'no film at all', {}, 'notes.txt is not a video, or is incomplete; give a complete video file'),
    ('empty.mp4', b'', {}, 'empty.mp4 is not a video, or is incomplete; give a complete video file'),
    ('cut.png', b'\x89PNG\r\n\x1a\n', {}, 'cut.png has no readable image header; replace it with an intact copy'),
    ('../../etc/pass&lt;wd', b'x', {}, '_.._etc_pass_lt_wd is not a video'),
    ('clip.mp4', None, {'start': '99'}, 'clip.mp4 has no frame that can be decoded from 99'),
    ('clip.mp4', None, {'start': 'NaN'}, "start 'NaN' is not a time"),
    ('clip.mp4', None, {'length': '-1'}, "length '-1' is not a time"),
    ('clip.mp4', None, {'length': True}, "length 'True' is not a time"),
])  # fmt: skip
def test_input_that_cannot_be_restored_is_reported_in_one_sentence(page, tmp_path, name, content, part, sentence):
    data = make(tmp_path / 'clip.mp4', Made(3)).read_bytes() if content is None else content
    path = json.loads(page.upload(name, data).body)[0]
    assert page.error(page.restore(path, **part)).startswith(sentence)


def test_files_other_than_uploads_are_neither_read_nor_served(page, tmp_path):
    clip = make(tmp_path / 'clip.mp4', Made(3))
    uploaded = Path(page.uploaded(clip))
    assert uploaded.parent.parent.parent == page.temporary
    climbing = f'{uploaded.parent}/../../../{clip.relative_to(page.temporary.parent)}'
    for path in (str(clip), climbing, 'http://127.0.0.1:1/clip.mp4', '/etc/passwd', str(page.temporary)):
        assert 'choose it again' in page.error(page.restore(path))
    served = [page.ask('GET', f'/gradio_api/file={path}').status for path in (uploaded, clip, climbing, '/etc/passwd')]
    assert served == [200, 403, 403, 403]
    climbed = Path(json.loads(page.upload('../../../up.mp4', b'x').body)[0])
    assert climbed.name == '_.._.._up.mp4' and climbed.parent.parent == uploaded.parent.parent


def test_cancelling_takes_less_than_a_second(page, long_clip):
    session = page.restore(page.uploaded(long_clip))
    told = []
    for event in page.events(session):
        if event['msg'] == 'progress':
            began = time.monotonic()
            assert page.call('end', session).status == 200
        elif event['msg'] == 'log':
            told.append((event['level'], event['title']))
    assert event['msg'] == 'process_completed' and event['success'] and told == [('info', 'Cancelled')]
    assert time.monotonic() - began < 1


def test_clips_beyond_the_queue_are_refused(page, long_clip):
    path = file(page.uploaded(long_clip))
    sessions = [uuid.uuid4().hex for _ in range(20)]
    answers = [page.call('restore', session, path, '', '') for session in sessions]
    assert {answer.status for answer in answers[:8]} == {200} and {answer.status for answer in answers[10:]} == {503}
    for session, answer in zip(sessions, answers, strict=True):
        if answer.status == 200:
            page.cancel(session, answer)
    answer = page.call('restore', sessions[0], path, '', '')
    assert answer.status == 200
    page.cancel(sessions[0], answer)


def test_bodies_too_large_or_of_unknown_length_are_refused(page):
    for path, limit in (('/gradio_api/queue/join', 64_000), ('/gradio_api/upload', 2_064_000)):
        for headers, status in (
            ({'Content-Length': '300000000'}, 413), ({'Content-Length': str(limit + 1)}, 413),
            ({'Transfer-Encoding': 'chunked'}, 411), ({}, 411),
            ({'Content-Length': '-1'}, 400), ({'Content-Length': 'NaN'}, 400),
        ):  # fmt: skip
            with socket.create_connection(('127.0.0.1', page.port)) as connection:
                lines = [f'POST {path} HTTP/1.1', 'Host: 127.0.0.1', *(': '.join(item) for item in headers.items())]
                connection.sendall('\r\n'.join([*lines, '', '']).encode())
                assert int(connection.recv(1000).split()[1]) == status, (path, headers)


def test_total_size_of_clips_is_limited(page):
    answers = [page.upload('film.mp4', bytes(1_900_000)) for _ in range(6)]
    assert answers[0].status == 200 and answers[-1].status == 507 and b'close other open pages' in answers[-1].body
    for answer in answers:
        if answer.status == 200:
            session = uuid.uuid4().hex
            assert page.call('take', session, file(json.loads(answer.body)[0])).status == 200
            assert page.call('take', session, None).status == 200
    assert page.upload('film.mp4', bytes(1_900_000)).status == 200


def test_upload_that_fills_the_disk_is_deleted(tmp_path, monkeypatch):
    pytest.importorskip('gradio')
    from dblr_plugin.page.server import _store

    def read(size: int) -> bytes:
        raise OSError(errno.ENOSPC, 'No space left on device')

    @asynccontextmanager
    async def form(**_: object) -> AsyncIterator[dict]:
        yield {'files': SimpleNamespace(filename='a.mp4', file=SimpleNamespace(read=read))}

    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    answer = asyncio.run(_store(SimpleNamespace(headers={'content-length': '5'}, form=form), tmp_path, 100))
    assert answer.status_code == 507 and b'No space left on device' in answer.body
    assert list(tmp_path.iterdir()) == []


def test_interrupted_upload_is_deleted(page):
    before = set(page.temporary.rglob('*'))
    head = b'POST /gradio_api/upload HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1900000\r\n'
    head += b'Content-Type: multipart/form-data; boundary=edge\r\n\r\n'
    head += b'--edge\r\nContent-Disposition: form-data; name="files"; filename="a.mp4"\r\n\r\n'
    for _ in range(5):
        with socket.create_connection(('127.0.0.1', page.port)) as connection:
            connection.sendall(head + bytes(1_500_000))
            time.sleep(0.1)
    page.until(lambda: set(page.temporary.rglob('*')) <= before)
    files = Path(f'/proc/{page.process.pid}/fd')
    page.until(lambda: not any('(deleted)' in os.path.realpath(path) for path in files.iterdir()))


def test_thousands_of_requests_leak_no_memory(page):
    """All are answered or refused, and memory grows by less than 50 MB."""
    body = json.dumps({'data': ['x'], 'fn_index': 99, 'session_hash': 'x'}).encode()
    requests = [
        b'POST /gradio_api/queue/join HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n'
        b'Content-Length: %d\r\n\r\n%s' % (len(body), body),
        b'GET /gradio_api/queue/nothing HTTP/1.1\r\nHost: localhost\r\n\r\n',
    ]
    before = memory(page.process.pid)
    for _ in range(10):
        with socket.create_connection(('127.0.0.1', page.port)) as connection:
            connection.sendall(requests[1] * 200 + requests[0] * 5)
            connection.shutdown(socket.SHUT_WR)
            answers = b''.join(iter(lambda: connection.recv(100_000), b''))
            assert answers.count(b'HTTP/1.1 404') >= 200
    assert memory(page.process.pid) - before < 50_000


def memory(pid: int) -> int:
    """Returns the resident memory of a process in kB."""
    return int(re.search(r'VmRSS:\s+(\d+)', Path(f'/proc/{pid}/status').read_text())[1])


@pytest.mark.parametrize('headers', [
    {'Host': 'evil.example'}, {'Host': 'evil.example:80'}, {'Host': '127.0.0.1.evil.example'}, {'Host': '[::1'},
    {'Origin': 'http://evil.example'}, {'Origin': 'null'}, {'Origin': 'http://localhost:1'},
    {'Origin': 'https://127.0.0.1'},
])  # fmt: skip
def test_requests_of_other_sites_are_refused(page, headers):
    for method, path in (('GET', '/'), ('POST', '/gradio_api/queue/join'), ('GET', '/theme.css')):
        assert page.ask(method, path, b'', headers).status == 403


def test_own_page_is_served_with_a_content_security_policy(page):
    for host in (f'127.0.0.1:{page.port}', f'localhost:{page.port}'):
        answer = page.ask('GET', '/', headers={'Host': host, 'Origin': f'http://{host}'})
        assert answer.status == 200 and "default-src 'self'" in answer.headers['content-security-policy']
        assert b'"analytics_enabled":false' in answer.body


def test_unused_routes_of_gradio_are_refused(page):
    for path in (
        'proxy=http://127.0.0.1:1/',
        'file=http://127.0.0.1:1/x',
        'vibe-code',
        'run-history/buckets',
        'openapi.json',
    ):
        assert page.ask('GET', f'/gradio_api/{path}').status == 404
    for path in ('component_server', 'process_recording', 'call/restore', 'stream/x', 'vibe-edit'):
        assert page.ask('POST', f'/gradio_api/{path}', b'{}').status == 404


def test_leaving_the_page_deletes_its_clip(page, tmp_path):
    session = uuid.uuid4().hex
    path = Path(page.uploaded(make(tmp_path / 'clip.mp4', Made(3))))
    with socket.create_connection(('127.0.0.1', page.port)) as connection:
        connection.sendall(f'GET /gradio_api/heartbeat/{session} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n'.encode())
        assert b'200' in connection.recv(100)
        assert page.call('take', session, file(str(path))).status == 200
        assert path.exists()
    page.until(lambda: not path.parent.exists())


def test_unavailable_port_is_refused(page):
    with pytest.raises(DBLRError, match=rf'port {page.port} is not available .another program uses it'):
        commands.main(['demo-page', '--port', str(page.port)])
    with pytest.raises(DBLRError, match='port 99999 is not available'):
        commands.main(['demo-page', '--port', '99999'])


def test_missing_packages_are_reported(monkeypatch):
    monkeypatch.setattr(tempfile, 'tempdir', None)
    monkeypatch.setenv('GRADIO_TEMP_DIR', '')
    monkeypatch.setitem(sys.modules, 'gradio', None)
    monkeypatch.delitem(sys.modules, 'dblr_plugin.page.server', raising=False)
    with pytest.raises(DBLRError, match=r"gradio.*pip install 'dblr_plugin\[page\]'"):
        commands.main(['demo-page', '--port', '0'])


def test_server_ends_at_once_and_leaves_no_files(page, long_clip, tmp_path):
    """This happens while a clip is restored and another is sent; files of a killed server are deleted by the next."""

    def work(page: Page) -> socket.socket:
        session = page.restore(page.uploaded(long_clip))
        next(event for event in page.events(session) if "'frames'" in str(event))  # in the progress of restoring
        connection = socket.create_connection(('127.0.0.1', page.port))
        connection.sendall(b'POST /gradio_api/upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nhalf')
        return connection

    work(page)
    forks = children(page.process.pid)
    # those of killed processes would be left, and reported when the server ends
    assert not any('/dev/shm/sem.' in Path('/proc', pid, 'maps').read_text() for pid in forks)
    page.end(signal.SIGKILL)
    assert len(forks) >= 3 and page.left  # the resource tracker, the server of forks, and a fork that restores
    deadline = time.monotonic() + 20
    while any(Path('/proc', pid).exists() for pid in forks):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    started = Page(tmp_path, page.temporary)
    try:
        started.wait()
        assert page.left == [] and len(list(page.temporary.iterdir())) == 1
        work(started)
        began = time.monotonic()
        assert started.end(signal.SIGTERM) == 0 and time.monotonic() - began < 10
        assert 'Traceback' not in started.printed
        assert list(page.temporary.iterdir()) == []
    finally:
        started.process.kill()


def test_a_stop_that_is_lost_while_it_starts(tmp_path):
    """An exception is lost in a destructor, as those of event loops, and in many an import."""
    code = """
import signal, sys
sys.orig_argv = ['python', '-m', 'dblr_plugin']
from dblr_plugin.commands import main
from dblr_plugin.page import process

class Stopped:
    def __del__(self):
        signal.raise_signal(signal.SIGTERM)

def prepare(real=process.prepare_tasks):
    Stopped()
    real()

process.prepare_tasks = prepare
main(['demo-page', '--weights', 'light', '--backend', 'torch', '--port', '0'])
"""
    result = run_python('-c', code, cwd=tmp_path, timeout=120, TMPDIR=str(tmp_path))
    assert result.returncode == 130 and result.stderr.endswith('dblr: error: interrupted\n'), result.stderr
    assert list(tmp_path.iterdir()) == []


def children(pid: int) -> list[str]:
    """Returns the ids of all descendants of a process."""
    found = Path(f'/proc/{pid}/task/{pid}/children').read_text().split()
    return found + [grandchild for child in found for grandchild in children(int(child))]
