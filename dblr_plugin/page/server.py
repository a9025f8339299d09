"""Serves the page to this computer alone, and limits what it is sent: whose requests, how many, how large, how long."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

os.environ |= {'GRADIO_ANALYTICS_ENABLED': 'False', 'HF_HUB_OFFLINE': '1'}  # read when gradio is imported
import fastapi
import gradio
import uvicorn
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from dblr_plugin.page.blocks import build_blocks

__all__ = ['build_server']

_MAX_WAITING, _MAX_CONNECTIONS, _MAX_JSON = 8, 100, 64_000  # clips; of browsers; bytes
_SECONDS_TO_ASK, _SECONDS_TO_SEND = 10, 600  # a request's head; its body
# gradio has more routes, which fetch from elsewhere or keep what they are sent
_ROUTES = re.compile(
    r'GET /(|config|theme\.css|favicon\.ico|(assets|static)/.+)'
    r'|GET /gradio_api/(info|upload_progress|queue/data|heartbeat/\w+|file=/.+)'
    r'|POST /gradio_api/(upload|queue/join|cancel|reset|run/\w+)'
)
_HEADERS = {  # gradio's page names files of other sites: browsers load none
    'Content-Security-Policy': "default-src 'self' 'unsafe-inline' 'unsafe-eval' blob: data:; frame-ancestors 'none'",
    'Referrer-Policy': 'no-referrer',
    'X-Content-Type-Options': 'nosniff',
}


def build_server(folder: Path, build: Any, max_bytes: int) -> uvicorn.Server:
    """The server; its ``run([socket])`` returns after SIGINT or SIGTERM, which it raises again.

    Args:
        folder: Where clips and results are, a :func:`~dblr_plugin.page.process.temporary_folder`.
        build: Makes the restorer, in another process.
        max_bytes: Of a clip; all together may have four times as many.
    """

    async def upload(request: fastapi.Request) -> Response:
        return await _store(request, folder, 4 * max_bytes)

    async def progress(request: fastapi.Request) -> Response:
        return PlainTextResponse('data: {"msg": "done"}\n\n', media_type='text/event-stream')

    app = fastapi.FastAPI(openapi_url=None)
    app.add_route('/gradio_api/upload', upload, methods=['POST'])
    app.add_route('/gradio_api/upload_progress', progress)
    page = build_blocks(folder, build).queue(max_size=_MAX_WAITING, api_open=False)
    theme = gradio.themes.Default(font=['system-ui', 'sans-serif'], font_mono=['monospace'])  # on every computer
    gradio.mount_gradio_app(app, page, '/', theme=theme, footer_links=[], run_history=False)
    config = uvicorn.Config(
        _Guard(app, max_bytes + _MAX_JSON),
        http=_Connection,
        ws='none',
        log_level='critical',  # requests that end with the server are no errors
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=1,  # a film that plays in an open page is a request that does not end
    )
    return uvicorn.Server(config)


async def _store(request: fastapi.Request, folder: Path, room: int) -> Response:
    """Stores a clip in a folder of its own. Gradio's route has no limit for all clips, and keeps what was cut off."""
    size = int(request.headers['content-length'])
    held = sum(path.stat().st_size for path in folder.rglob('*') if path.is_file())
    if held + size > room or size > shutil.disk_usage(folder).free:
        return PlainTextResponse('there is no room for more clips; close other pages', 507)
    try:
        async with request.form(max_files=1, max_fields=0) as form:  # in a file without a name until it is complete
            file = form['files']
            name = re.sub(r'[^\w .()+-]', '_', file.filename)[-50:].lstrip(' .') or 'clip'
            path = Path(tempfile.mkdtemp(prefix='clip_'), name)
            with open(path, 'wb') as target:
                await asyncio.to_thread(shutil.copyfileobj, file.file, target)
    except (KeyError, AttributeError):
        return PlainTextResponse('this is no file', 400)
    except OSError as error:
        return PlainTextResponse(f'the clip could not be stored ({error.strerror}); make room in {folder.parent}', 507)
    return JSONResponse([str(path)])


class _Guard:
    """Refuses requests of other sites, routes that the page does not need, and bodies that are too large or slow."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app, self.max_bytes = app, max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope['type'] != 'http':
            return await self.app(scope, receive, send)
        deadline: float | None = asyncio.get_running_loop().time() + _SECONDS_TO_SEND

        async def receive_in_time() -> Message:
            nonlocal deadline
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                return {'type': 'http.disconnect'}
            deadline = deadline if message.get('more_body') else None
            return message

        async def send_with_headers(message: Message) -> None:
            if message['type'] == 'http.response.start':
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        app = self._refusal(scope['method'], scope['path'], Headers(scope=scope)) or self.app
        return await app(scope, receive_in_time, send_with_headers)

    def _refusal(self, method: str, path: str, headers: Headers) -> Response | None:
        limit = self.max_bytes if path.endswith('/upload') else _MAX_JSON
        if not _is_own(headers.get('host', ''), headers.get('origin')):
            return PlainTextResponse('open this page by the address that dblr demo-page printed', 403)
        if not _ROUTES.fullmatch(f'{method} {path}'):
            return PlainTextResponse('there is nothing here', 404)
        if 'transfer-encoding' in headers or (method == 'POST' and 'content-length' not in headers):
            return PlainTextResponse('say how long the body is', 411)
        if int(headers.get('content-length', 0)) > limit:
            return PlainTextResponse(f'more than {limit / 1e6:g} MB; see --max-size of dblr demo-page', 413)
        return None


def _is_own(host: str, origin: str | None) -> bool:
    """Whether the page asks under its own name, and not another site, be it by a name that leads here."""
    with contextlib.suppress(ValueError):
        return urlsplit(f'//{host}').hostname in ('localhost', '127.0.0.1') and origin in (None, f'http://{host}')
    return False


class _Connection(H11Protocol):
    """Ends when it has asked for nothing for a while, or at once when there are too many."""

    _last: object = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        others = [each for each in self.connections if each is not self and not each.transport.is_closing()]
        if len(others) >= _MAX_CONNECTIONS:
            next((each for each in others if each.cycle is None), self).transport.abort()
        self.loop.call_later(_SECONDS_TO_ASK, self._end_if_silent)

    def _end_if_silent(self) -> None:
        if self.cycle is self._last and (self.cycle is None or self.cycle.response_complete):
            self.transport.abort()
        elif not self.transport.is_closing():
            self._last = self.cycle
            self.loop.call_later(_SECONDS_TO_ASK, self._end_if_silent)
