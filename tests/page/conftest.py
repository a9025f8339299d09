"""A page served in this process, whose network makes every picture brighter."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from basicsr.archs import build_network

from dblr_plugin.restore.video_restorer import VideoRestorer

NETWORK = {'type': 'DBLRNet', 'num_feat': 4, 'num_block': 1, 'input_skip': True}
_BIAS = 0.3
BRIGHTER = _BIAS * 255 * 255 / 219  # what that adds to R, G and B, as BT.601's Y has 219 steps


@dataclass
class Answer:
    """What the server said."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict:
        return json.loads(self.body)


@dataclass
class Page:
    """A server, and the client's side of it."""

    port: int
    folder: Path | None = None  # where its jobs are

    @property
    def address(self) -> str:
        return f'http://127.0.0.1:{self.port}'

    def ask(self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None) -> Answer:
        connection = http.client.HTTPConnection('127.0.0.1', self.port, timeout=30)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def announce(self, name: str, size: int, start: str = '', length: str = '') -> Answer:
        return self.ask('POST', '/jobs', json.dumps({'name': name, 'size': size, 'start': start, 'length': length}))

    def send(self, clip: Path, start: str = '', length: str = '') -> str:
        """Has a clip restored; returns the job's address."""
        data = clip.read_bytes()
        job = f'/jobs/{self.announce(clip.name, len(data), start, length).json["id"]}'
        assert self.ask('PUT', job, data).status == 200
        return job

    def ended(self, job: str) -> dict:
        """The job's status when nothing works on it any more."""
        return self.until(job, 'done', 'failed')

    def until(self, job: str, *states: str) -> dict:
        for _ in range(3000):
            status = self.ask('GET', job).json
            if status['state'] in states:
                return status
            time.sleep(0.01)
        raise TimeoutError(status)


class HeldRestorer(VideoRestorer):
    """A real one, which waits before it hands on a picture while a test clears ``go_on``."""

    go_on = threading.Event()

    def restore(self, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        for pixels in super().restore(frames):
            assert self.go_on.wait(30)
            yield pixels


@pytest.fixture(scope='session')
def restorer() -> HeldRestorer:
    net = build_network(NETWORK)
    last = [module for module in net.modules() if isinstance(module, torch.nn.Conv2d)][-1]
    last.bias.data.fill_(_BIAS)
    restorer = HeldRestorer(net, NETWORK, device='cpu', backend='torch', precision='fp32')
    restorer.go_on.set()
    return restorer


@pytest.fixture(scope='session')
def page(restorer: HeldRestorer) -> Iterator[Page]:
    pytest.importorskip('starlette')
    pytest.importorskip('uvicorn')
    from dblr_plugin.page.jobs import Jobs
    from dblr_plugin.page.server import build_server, listen

    listener = listen('127.0.0.1', 0)
    with Jobs(restorer, max_bytes=2_000_000) as jobs:
        server = build_server(jobs, '127.0.0.1')
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        yield Page(listener.getsockname()[1], jobs.folder)
        server.should_exit = True
        thread.join()
    assert not jobs.folder.exists()
