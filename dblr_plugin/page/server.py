"""Serves the page to this computer only, and limits the origin, routes and size of requests."""

from __future__ import annotations

import asyncio
import contextlib
import html
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

os.environ |= {'GRADIO_ANALYTICS_ENABLED': 'False', 'HF_HUB_OFFLINE': '1'}  # read when gradio is imported
import fastapi
import gradio as gr
import uvicorn
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dblr_plugin.errors import DBLRError
from dblr_plugin.page.process import Cancelled, Task

__all__ = ['build_blocks', 'build_server']

_PROGRESS = gr.Progress()


def build_blocks(folder: Path, build: Any) -> gr.Blocks:
    """Returns the page.

    Args:
        folder: The folder for uploads, each in a folder of its own.
        build: Makes the restorer, in another process.
    """
    clips = _Clips(folder, build)
    with gr.Blocks(title='dblr', analytics_enabled=False) as page:
        clip = gr.File(label='Video or image')
        # gradio would copy any file or URL that a request names
        clip.async_move_resource_to_block_cache = _leave  # type: ignore[method-assign, assignment]
        with gr.Row():
            start, length = gr.Textbox('0', label='Start, seconds'), gr.Textbox('3', label='Length (empty: all)')
            restore, cancel = gr.Button('Restore', variant='primary'), gr.Button('Cancel')
        pair = gr.ImageSlider(label='Before and after', interactive=False)
        number = gr.Slider(1, 2, 1, step=1, label='Frame', visible=False)
        with gr.Row():
            before, after = gr.Video(label='Before', interactive=False), gr.Video(label='After', interactive=False)
        result = gr.File(label='Restored', interactive=False)
        shown = [pair, number, before, after, result]
        event = restore.click(clips.restore, [clip, start, length], shown, concurrency_limit=1, show_progress_on=pair)
        cancel.click(clips.end, cancels=event, queue=False)
        number.release(clips.show, number, pair, show_progress='hidden')
        clip.change(clips.take, clip, shown, queue=False)
        page.unload(clips.leave)
    return page


async def _leave(path: str) -> str:
    return path


class _Clips:
    """The clip of each page, its results beside it, and the process that restores it."""

    def __init__(self, folder: Path, build: Any) -> None:
        self.folder, self.build = folder, build
        self.clips: dict[str | None, Path] = {}
        self.results: dict[str | None, Path] = {}
        self.tasks: dict[str | None, Task] = {}

    async def take(self, clip: str | None, request: gr.Request) -> list[Any]:
        """Replaces a page's clip, ending and deleting what it had; raises gr.Error if the file is not an upload."""
        path = None if clip is None else Path(clip)
        if path is not None and (path.parent.parent != self.folder or not path.is_file()):
            raise gr.Error('the clip is no longer there; choose it again', print_exception=False)
        former = self.clips.pop(request.session_hash, path)
        if former != path:
            await self.end(request)
            shutil.rmtree(former.parent, ignore_errors=True)
        if path is not None:
            self.clips[request.session_hash] = path
        return [None, gr.Slider(visible=False), None, None, None]

    async def leave(self, request: gr.Request) -> None:
        """Ends a page's task and deletes its files."""
        await self.take(None, request)

    async def end(self, request: gr.Request) -> None:
        """Ends a page's restoration."""
        if (task := self.tasks.pop(request.session_hash, None)) is not None:
            task.end()

    async def restore(
        self, clip: str | None, start: str, length: str, request: gr.Request, progress: gr.Progress = _PROGRESS
    ) -> list[Any]:
        """Restores a part of a clip; returns the page's new contents."""
        await self.take(clip, request)
        await self.end(request)
        if clip is None:
            raise gr.Error('choose a clip first', print_exception=False)
        shutil.rmtree(self.results.pop(request.session_hash, self.folder / 'none'), ignore_errors=True)
        folder = self.results[request.session_hash] = Path(tempfile.mkdtemp(dir=Path(clip).parent))
        task = self.tasks[request.session_hash] = Task('restore', self.build, Path(clip), folder, start, length)
        progress(0, desc='Starting')
        try:
            count, result = await task.result(
                lambda *frames: progress(frames, unit='frames'), lambda text: gr.Warning(self._text(text))
            )
        except Cancelled:
            gr.Info('nothing was restored', title='Cancelled')
            return [gr.skip()] * 5
        except DBLRError as error:
            raise gr.Error(self._text(str(error)), print_exception=False) from None
        finally:
            self.tasks.pop(request.session_hash, None)
        videos = [str(path) if path.exists() else None for path in (folder / 'before.mp4', folder / 'after.mp4')]
        number = gr.Slider(1, max(2, count), 1, visible=count > 1)
        return [await self.show(1, request), number, *videos, result]

    async def show(self, number: int, request: gr.Request) -> tuple[str, str] | None:
        """Returns the image files of a frame, counted from 1, before and after."""
        if (folder := self.results.get(request.session_hash)) is None:
            return None
        return await Task('frame_pair', folder, number).result(lambda *_: None, lambda _: None)

    def _text(self, message: str) -> str:
        return html.escape(re.sub(rf'{re.escape(str(self.folder))}/\w+/(tmp\w+/)?', '', message), quote=False)


_MAX_WAITING, _MAX_JSON = 8, 64_000  # clips; bytes
# gradio's other routes fetch from elsewhere or keep what they are sent
_ROUTES = re.compile(
    r'GET /(|config|theme\.css|favicon\.ico|(assets|static)/.+)'
    r'|GET /gradio_api/(info|upload_progress|queue/data|heartbeat/\w+|file=/.+)'
    r'|POST /gradio_api/(upload|queue/join|cancel|reset|run/\w+)'
)
_HEADERS = {  # gradio's page refers to files on other sites: browsers load none
    'Content-Security-Policy': "default-src 'self' 'unsafe-inline' 'unsafe-eval' blob: data:; frame-ancestors 'none'",
    'Referrer-Policy': 'no-referrer',
    'X-Content-Type-Options': 'nosniff',
}


def build_server(folder: Path, build: Any, max_bytes: int) -> uvicorn.Server:
    """Returns the server; its ``run([socket])`` returns after SIGINT or SIGTERM, and raises the signal again.

    Args:
        folder: The folder for clips and results, a :func:`~dblr_plugin.page.process.temporary_folder`.
        build: Makes the restorer, in another process.
        max_bytes: Maximum size of a clip; all together may take four times as much.
    """

    async def upload(request: fastapi.Request) -> Response:
        return await _store(request, folder, 4 * max_bytes)

    async def progress(request: fastapi.Request) -> Response:
        return PlainTextResponse('data: {"msg": "done"}\n\n', media_type='text/event-stream')

    app = fastapi.FastAPI(openapi_url=None)
    app.add_route('/gradio_api/upload', upload, methods=['POST'])
    app.add_route('/gradio_api/upload_progress', progress)
    page = build_blocks(folder, build).queue(max_size=_MAX_WAITING, api_open=False)
    theme = gr.themes.Default(font=['system-ui', 'sans-serif'], font_mono=['monospace'])  # available everywhere
    gr.mount_gradio_app(app, page, '/', theme=theme, footer_links=[], run_history=False)
    config = uvicorn.Config(
        _Guard(app, max_bytes + _MAX_JSON),
        ws='none',
        log_level='critical',  # requests cut short by shutdown are not errors
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=1,  # a video playing in an open page is a request that does not end
    )
    return uvicorn.Server(config)


async def _store(request: fastapi.Request, folder: Path, room: int) -> Response:
    """Stores a clip in its own folder. Gradio's route does not limit the total size, and keeps truncated uploads."""
    size = int(request.headers['content-length'])
    held = sum(path.stat().st_size for path in folder.rglob('*') if path.is_file())
    if held + size > room or size > shutil.disk_usage(folder).free:
        return PlainTextResponse('no room for more clips; close other open pages', 507)
    try:
        async with request.form(max_files=1, max_fields=0) as form:  # an unnamed file until it is complete
            file = form['files']
            name = re.sub(r'[^\w .()+-]', '_', file.filename)[-50:].lstrip(' .') or 'clip'
            path = Path(tempfile.mkdtemp(prefix='clip_'), name)
            try:
                with open(path, 'wb') as target:
                    await asyncio.to_thread(shutil.copyfileobj, file.file, target)
            except OSError:  # a full disk, which would stay full
                shutil.rmtree(path.parent, ignore_errors=True)
                raise
    except (KeyError, AttributeError):
        return PlainTextResponse('this is not a file', 400)
    except OSError as error:
        return PlainTextResponse(f'the clip could not be stored ({error.strerror}); make room in {folder.parent}', 507)
    return JSONResponse([str(path)])


class _Guard:
    """Refuses requests from other sites, routes that the page does not need, and bodies that are too large."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app, self.max_bytes = app, max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope['type'] != 'http':
            return await self.app(scope, receive, send)

        async def send_with_headers(message: Message) -> None:
            if message['type'] == 'http.response.start':
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        app = self._refusal(scope['method'], scope['path'], Headers(scope=scope)) or self.app
        return await app(scope, receive, send_with_headers)

    def _refusal(self, method: str, path: str, headers: Headers) -> Response | None:
        limit = self.max_bytes if path.endswith('/upload') else _MAX_JSON
        if not _is_own(headers.get('host', ''), headers.get('origin')):
            return PlainTextResponse('open this page by the address that dblr demo-page printed', 403)
        if not _ROUTES.fullmatch(f'{method} {path}'):
            return PlainTextResponse('there is nothing here', 404)
        if 'transfer-encoding' in headers or (method == 'POST' and 'content-length' not in headers):
            return PlainTextResponse('Content-Length is required', 411)
        if int(headers.get('content-length', 0)) > limit:
            return PlainTextResponse(f'more than {limit / 1e6:.3g} MB; see --max-size of dblr demo-page', 413)
        return None


def _is_own(host: str, origin: str | None) -> bool:
    """Returns whether a request comes from the page itself, not another site, even one whose name resolves to here."""
    with contextlib.suppress(ValueError):
        return urlsplit(f'//{host}').hostname in ('localhost', '127.0.0.1') and origin in (None, f'http://{host}')
    return False
