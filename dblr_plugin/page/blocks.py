"""What the page shows and does."""

from __future__ import annotations

import asyncio
import html
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import gradio as gr

from dblr_plugin.errors import DBLRError
from dblr_plugin.page.process import Cancelled, Task

__all__ = ['build_blocks']

_MAX_SECONDS = 3600
_PROGRESS = gr.Progress()


def build_blocks(folder: Path, build: Any) -> gr.Blocks:
    """The page.

    Args:
        folder: Where uploads are, each in a folder of its own.
        build: Makes the restorer, in another process.
    """
    clips = _Clips(folder, build)
    with gr.Blocks(title='dblr', analytics_enabled=False) as page:
        clip = gr.File(label='Video or image')
        # gradio copies whatever file or URL a request names
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
        """Ends and deletes what a page had before it has another clip; raises gr.Error for a file that is no upload."""
        path = None if clip is None else Path(clip)
        if path is not None and (path.parent.parent != self.folder or not path.is_file()):
            raise gr.Error('the clip is not here any more; choose it again', print_exception=False)
        former = self.clips.pop(request.session_hash, path)
        if former != path:
            await self.end(request)
            shutil.rmtree(former.parent, ignore_errors=True)
        if path is not None:
            self.clips[request.session_hash] = path
        return [None, gr.Slider(visible=False), None, None, None]

    async def leave(self, request: gr.Request) -> None:
        """Ends and deletes what a page had."""
        await self.take(None, request)

    async def end(self, request: gr.Request) -> None:
        """Ends what is being restored for a page."""
        if (task := self.tasks.pop(request.session_hash, None)) is not None:
            task.end()

    async def restore(
        self, clip: str | None, start: str, length: str, request: gr.Request, progress: gr.Progress = _PROGRESS
    ) -> list[Any]:
        """Restores a part of a clip; gives what the page shows."""
        await self.take(clip, request)
        await self.end(request)
        if clip is None:
            raise gr.Error('choose a clip first', print_exception=False)
        shutil.rmtree(self.results.pop(request.session_hash, self.folder / 'none'), ignore_errors=True)
        folder = self.results[request.session_hash] = Path(tempfile.mkdtemp(dir=Path(clip).parent))
        task = self.tasks[request.session_hash] = Task('restore', self.build, Path(clip), folder, start, length)
        progress(0, desc='Starting')
        try:
            async with asyncio.timeout(_MAX_SECONDS):
                count, result = await task.result(
                    lambda *frames: progress(frames, unit='frames'), lambda text: gr.Warning(self._text(text))
                )
        except Cancelled:
            gr.Info('nothing was restored', title='Cancelled')
            return [gr.skip()] * 5
        except (DBLRError, TimeoutError) as error:
            raise gr.Error(self._text(str(error) or 'this took an hour; give less'), print_exception=False) from None
        finally:
            self.tasks.pop(request.session_hash, None)
        videos = [str(path) if path.exists() else None for path in (folder / 'before.mp4', folder / 'after.mp4')]
        number = gr.Slider(1, max(2, count), 1, visible=count > 1)
        return [await self.show(1, request), number, *videos, result]

    async def show(self, number: int, request: gr.Request) -> tuple[str, str] | None:
        """The frames of that number, from 1, before and after, as image files."""
        if (folder := self.results.get(request.session_hash)) is None:
            return None
        return await Task('frame_pair', folder, number).result(lambda *_: None, lambda _: None)

    def _text(self, message: str) -> str:
        return html.escape(re.sub(rf'{self.folder}/\w+/(tmp\w+/)?', '', message), quote=False)
