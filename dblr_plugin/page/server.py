"""The page's server: for this computer alone, one clip after the other."""

from __future__ import annotations

import errno
import ipaddress
import logging
import socket
from pathlib import Path
from urllib.parse import urlsplit

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dblr_plugin.errors import DBLRError
from dblr_plugin.page.jobs import Job, Jobs
from dblr_plugin.video.time_range import parse_time

__all__ = ['build_app', 'build_server', 'listen']

_log = logging.getLogger(__name__)

_STATIC = Path(__file__).with_name('static')

_HEADERS = {
    'Cache-Control': 'no-cache',
    'Content-Security-Policy': "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    'Cross-Origin-Resource-Policy': 'same-origin',
    'Referrer-Policy': 'no-referrer',
    'X-Content-Type-Options': 'nosniff',
}
# a film that plays in an open page is a request that does not end
_SECONDS_TO_END = 1


def listen(host: str, port: int) -> socket.socket:
    """Takes a port, any free one for 0; raises DBLRError where it is not to be had."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0]
        return socket.create_server((address[0], port), family=family)
    except (OSError, OverflowError) as error:
        reason = 'another program has it' if getattr(error, 'errno', None) == errno.EADDRINUSE else error
        raise DBLRError(f'port {port} of {host} cannot be had ({reason}); give another --port, or 0 for any') from error


def build_server(jobs: Jobs, host: str) -> uvicorn.Server:
    """The server; its ``run([listen(host, port)])`` returns after Ctrl-C or SIGTERM, which it raises again."""
    config = uvicorn.Config(
        build_app(jobs, host),
        lifespan='off',
        log_level='critical',  # requests that end with the server are no errors; what fails is told by _refuse
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=_SECONDS_TO_END,
    )
    return uvicorn.Server(config)


def build_app(jobs: Jobs, host: str) -> Starlette:
    """The page and what it asks for.

    ``POST /jobs`` announces a clip, ``PUT /jobs/ID`` uploads it, ``GET`` tells how far it is, ``DELETE`` ends it;
    ``GET /jobs/ID/before``, ``after`` and ``download`` are the results. Errors are JSON, ``{'error': 'a sentence'}``.

    Args:
        jobs: Where the clips go.
        host: The name by which browsers may know this computer, besides ``localhost`` and addresses.
    """
    app = Starlette(
        routes=[
            Route('/', _page),
            Route('/jobs', _announce, methods=['POST']),
            Route('/jobs/{id}', _upload, methods=['PUT']),
            Route('/jobs/{id}', _status),
            Route('/jobs/{id}', _remove, methods=['DELETE']),
            Route('/jobs/{id}/{result}', _result),
            Mount('/static', StaticFiles(directory=_STATIC)),
        ],
        middleware=[Middleware(_OwnPageOnly, host=host)],
        exception_handlers={DBLRError: _refuse, HTTPException: _refuse, Exception: _refuse},
    )
    app.state.jobs = jobs
    return app


class _OwnPageOnly:
    """Refuses what other sites make a browser ask for, be it under a name of theirs that leads here (DNS rebinding)."""

    def __init__(self, app: ASGIApp, host: str) -> None:
        self.app, self.host = app, host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)

        async def send_with_headers(message: Message) -> None:
            if message['type'] == 'http.response.start':
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        if self._is_own(headers.get('host', ''), headers.get('origin')):
            await self.app(scope, receive, send_with_headers)
        else:
            refusal = JSONResponse({'error': 'open this page by the address that dblr demo-page printed'}, 403)
            await refusal(scope, receive, send_with_headers)

    def _is_own(self, host: str, origin: str | None) -> bool:
        try:
            name = urlsplit(f'//{host}').hostname
        except ValueError:
            return False
        return (name in ('localhost', self.host) or _is_address(name)) and origin in (None, f'http://{host}')


def _is_address(name: str | None) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


async def _page(request: Request) -> Response:
    return FileResponse(_STATIC / 'page.html')


async def _announce(request: Request) -> Response:
    """Takes ``{"name": "shaky.mp4", "size": BYTES, "start": "0", "length": "3"}``; an empty length takes all."""
    form = await request.json()
    start = parse_time(form['start'] or 0, 'start')
    length = parse_time(form['length'], 'length') if form['length'] else None
    return JSONResponse({'id': request.app.state.jobs.add(form['name'], form['size'], start, length).id})


async def _upload(request: Request) -> Response:
    job, room = _job(request), 0
    try:
        with open(job.clip, 'xb') as file:
            async for chunk in request.stream():
                room += len(chunk)
                if room > job.size:
                    raise DBLRError(f'{job.clip.name} has more bytes than were announced; choose it again')
                file.write(chunk)
    except OSError as error:
        raise DBLRError(
            f'{job.clip.name} could not be stored ({error.strerror}); make room in {job.folder.parents[1]}'
        ) from error
    except ClientDisconnect:
        return Response(status_code=400)  # to nobody
    request.app.state.jobs.queue(job)
    return JSONResponse({})


async def _status(request: Request) -> Response:
    return JSONResponse(_job(request).status())


async def _remove(request: Request) -> Response:
    request.app.state.jobs.remove(_job(request))
    return JSONResponse({})


async def _result(request: Request) -> Response:
    preview, result = _job(request).preview, request.path_params['result']
    if preview is None or result not in ('before', 'after', 'download'):
        raise HTTPException(404, f'there is no {result} here')
    path = getattr(preview, result)
    return FileResponse(path, filename=path.name if result == 'download' else None)


def _job(request: Request) -> Job:
    job = request.app.state.jobs.find(request.path_params['id'])
    if job is None:
        raise HTTPException(404, 'the clip is not here any more; choose it again')
    return job


async def _refuse(request: Request, error: Exception) -> Response:
    status, text = 400, str(error)
    if isinstance(error, HTTPException):
        status, text = error.status_code, error.detail
    elif not isinstance(error, DBLRError):
        _log.error('%s %s failed', request.method, request.url.path, exc_info=error)
        status, text = 500, 'the server failed unexpectedly; the terminal of dblr demo-page tells more'
    return JSONResponse({'error': text}, status)
