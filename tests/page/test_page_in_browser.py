"""The page in Chromium shows a restored clip, and sends no request to other servers."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from page.conftest import Page
from video.made_videos import Made, make

playwright = pytest.importorskip('playwright.sync_api', reason='playwright is not installed')
CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
IMAGES = '[...document.querySelectorAll("img")].map(image => image.src.split("/").pop()).join()'

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason='there is no Chromium or Chrome to look at the page with'),
]


def test_before_and_after_are_shown_without_requests_to_others(page: Page, tmp_path: Path):
    with playwright.sync_playwright() as running:
        tab = running.chromium.launch(executable_path=CHROMIUM, args=['--no-sandbox']).new_page()
        tab.set_default_timeout(60_000)
        asked, complaints = [], []
        tab.on('request', lambda request: asked.append(request.url))
        tab.on('console', lambda message: complaints.append(message.text) if message.type == 'error' else None)
        tab.goto(page.address)
        tab.set_input_files('input[type=file]', make(tmp_path / 'clip.mp4', Made(6)))
        tab.get_by_text('clip.mp4').wait_for()
        tab.get_by_role('button', name='Restore').click()
        tab.get_by_text('clip_restored').first.wait_for()  # the suffix is an element of its own
        tab.wait_for_function(f'() => {IMAGES} == "before_1.png,after_1.png"')
        frame = tab.locator('input[type=range]').last
        frame.fill('4')
        frame.dispatch_event('pointerup')
        tab.wait_for_function(f'() => {IMAGES} == "before_4.png,after_4.png"')
        ready = tab.evaluate('[...document.querySelectorAll("video")].map(video => [video.videoWidth, video.error])')
    assert ready == [[96, None], [96, None]] and complaints == []
    assert [url for url in asked if not url.startswith(('blob:', 'data:', page.address))] == []
