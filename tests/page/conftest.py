"""Starts the page in its own process, with a network that makes every frame brighter."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from dblr_plugin.archs import DBLRNet

NETWORK = {'type': 'DBLRNet', 'num_feat': 4, 'num_block': 1, 'input_skip': True}
_BIAS = 0.3
BRIGHTER = _BIAS * 255 * 255 / 219  # added to R, G and B, as Y of BT.601 has 219 steps


@dataclass
class Answer:
    """A response of the server."""

    status: int
    headers: dict[str, str]
    body: bytes


class Page:
    """A server process, and a client for it.

    Attributes:
        temporary: The folder for temporary files.
    """

    def __init__(self, folder: Path, temporary: Path) -> None:
        net = DBLRNet(**{key: value for key, value in NETWORK.items() if key != 'type'})
        last = [module for module in net.modules() if isinstance(module, torch.nn.Conv2d)][-1]
        last.bias.data.fill_(_BIAS)
        torch.save({'params': net.state_dict(), 'network': NETWORK}, folder / 'net.pth')
        self.temporary = temporary
        command = [sys.executable, '-m', 'dblr_plugin', 'demo-page', '--weights', 'net.pth', '--backend', 'torch']
        environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'TMPDIR': str(temporary)}
        environment['TORCHINDUCTOR_CACHE_DIR'] = str(folder / 'inductor')
        self.log = folder / 'log.txt'
        with open(self.log, 'w') as log:
            command += ['--max-size', '2', '--port', '0']
            self.process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)

    def wait(self) -> Page:
        """Waits until the page is served."""
        self.until(lambda: 'Ctrl-C' in self.printed, 300)
        self.port = int(re.search(r'http://127.0.0.1:(\d+) ', self.printed)[1])
        self.numbers = {
            entry['api_name']: entry['id'] for entry in json.loads(self.ask('GET', '/config').body)['dependencies']
        }
        return self

    @property
    def address(self) -> str:
        return f'http://127.0.0.1:{self.port}'

    @property
    def printed(self) -> str:
        return self.log.read_text()

    @property
    def left(self) -> list[str]:
        """Clips and results that are on the disk."""
        return [str(path.relative_to(self.temporary)) for path in self.temporary.glob('dblr_page_*/clip_*/**/*')]

    def until(self, condition: Callable[[], object], seconds: float = 120) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline and self.process.poll() is None, self.printed
            time.sleep(0.02)

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)

    def ask(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Answer:
        connection = http.client.HTTPConnection('127.0.0.1', self.port, timeout=60)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def upload(self, name: str, data: bytes) -> Answer:
        head = f'--edge\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
        body = head.encode() + data + b'\r\n--edge--\r\n'
        headers = {'Content-Type': 'multipart/form-data; boundary=edge'}
        return self.ask('POST', '/gradio_api/upload', body, headers)

    def uploaded(self, path: Path) -> str:
        """Uploads a file; returns its path on the server."""
        answer = self.upload(path.name, path.read_bytes())
        assert answer.status == 200, answer
        return json.loads(answer.body)[0]

    def call(self, name: str, session: str, *data: object) -> Answer:
        """Calls a function of the page, as the browser does."""
        body = {'data': data, 'fn_index': self.numbers[name], 'session_hash': session}
        path = '/gradio_api/run/predict' if name in ('end', 'take') else '/gradio_api/queue/join'
        return self.ask('POST', path, json.dumps(body).encode(), {'Content-Type': 'application/json'})

    def cancel(self, session: str, joined: Answer) -> None:
        """Cancels a call that may wait in the queue."""
        body = {'session_hash': session, 'fn_index': self.numbers['restore'], **json.loads(joined.body)}
        self.ask('POST', '/gradio_api/cancel', json.dumps(body).encode(), {'Content-Type': 'application/json'})

    def restore(self, path: str, start: object = '', length: object = '') -> str:
        """Starts restoring an upload; returns the session."""
        session = uuid.uuid4().hex
        answer = self.call('restore', session, file(path), start, length)
        assert answer.status == 200, answer
        return session

    def events(self, session: str) -> Iterator[dict]:
        """Yields the events that the page receives about a restoration, up to its end."""
        connection = http.client.HTTPConnection('127.0.0.1', self.port, timeout=60)
        connection.request('GET', f'/gradio_api/queue/data?session_hash={session}')
        for line in connection.getresponse():
            if line.startswith(b'data: '):
                yield json.loads(line[6:])
                if b'process_completed' in line:
                    break
        connection.close()

    def ended(self, session: str) -> dict:
        """Returns the last event of a restoration."""
        return list(self.events(session))[-1]

    def error(self, session: str) -> str:
        """Returns the message of a restoration that fails."""
        event = self.ended(session)
        assert not event['success'], event
        return event['output']['error']


def file(path: str) -> dict:
    """Returns an upload in the form that the page sends."""
    return {'path': path, 'meta': {'_type': 'gradio.FileData'}}


@pytest.fixture(scope='module')
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    pytest.importorskip('gradio')
    folder = tmp_path_factory.mktemp('page')
    page = Page(folder, tmp_path_factory.mktemp('temporary(1)')).wait()
    yield page
    if page.process.poll() is None:
        page.end(signal.SIGKILL)
