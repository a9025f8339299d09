"""The page in Chromium, as somebody sees and uses it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from page.conftest import BRIGHTER, HeldRestorer, Page
from video.made_videos import Made, make

playwright = pytest.importorskip('playwright.sync_api', reason='playwright is not installed')
CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason='there is no Chromium or Chrome to look at the page with')

# 25 fps; grey, with a bar that moves by 8 pixels a frame, so that a picture tells which frame it is
WIDTH, HEIGHT, FRAMES, GREY, BAR = 192, 108, 20, 80, 140
OF_BOTH = "document.querySelectorAll('#pair video')"


@pytest.fixture(scope='session')
def browser() -> Iterator:
    with playwright.sync_playwright() as running:
        yield running.chromium.launch(executable_path=CHROMIUM, args=['--no-sandbox'])


@contextmanager
def opened(browser, page: Page, width: int = 1000, scheme: str = 'light') -> Iterator:
    """The page, open; the console must stay silent but for what the server refuses."""
    complaints = []
    tab = browser.new_page(viewport={'width': width, 'height': 800}, color_scheme=scheme)
    tab.on('console', lambda message: complaints.append(message.text) if message.type in ('error', 'warning') else None)
    tab.on('pageerror', lambda error: complaints.append(str(error)))
    tab.goto(page.address)
    yield tab
    tab.close()
    assert [text for text in complaints if 'responded with a status of 400' not in text] == []


@pytest.fixture
def tab(browser, page) -> Iterator:
    """The page, just opened."""
    with opened(browser, page) as tab:
        yield tab


@pytest.fixture(scope='module')
def result(browser, page, clip) -> Iterator:
    """The page with a restored video, which plays."""
    with opened(browser, page) as tab:
        restore(tab, clip)
        yield tab


@pytest.fixture(scope='session')
def clip(tmp_path_factory) -> Path:
    frames = []
    for number in range(FRAMES):
        frame = np.full((HEIGHT, WIDTH, 3), GREY, np.uint8)
        frame[:, 8 * number : 8 * number + 8] = BAR
        frames.append(frame)
    return make(tmp_path_factory.mktemp('clips') / 'bar.mp4', Made(frames, rate=Fraction(25), audio=1))


def restore(tab, clip: Path, seconds: str = '') -> None:
    tab.set_input_files('#file', clip)
    tab.fill('#length', seconds)
    tab.click('#restore')
    playwright.expect(tab.locator('#divider')).to_be_visible(timeout=30000)


def picture(tab) -> np.ndarray:
    """What is seen in the frame of the clip, as grey values."""
    data = np.frombuffer(tab.locator('#pair').screenshot(), np.uint8)
    return cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2GRAY)


def until(tab, expression: str) -> None:
    """Waits; the page's own security policy forbids what Playwright has for it."""
    for _ in range(500):
        if tab.evaluate(expression):
            return
        time.sleep(0.02)
    raise TimeoutError(expression)


def at_rest(tab) -> None:
    until(tab, f'[...{OF_BOTH}].every(v => v.paused && !v.seeking && v.readyState >= 2)')
    tab.evaluate('new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))')


def bars(tab) -> list[float]:
    """The numbers of the frames that both videos show, by where their bars are."""
    at_rest(tab)
    return tab.evaluate(f"""[...{OF_BOTH}].map(video => {{
        const canvas = Object.assign(document.createElement('canvas'), {{width: {WIDTH}, height: 1}});
        const context = canvas.getContext('2d');
        context.drawImage(video, 0, {HEIGHT // 2}, {WIDTH}, 1, 0, 0, {WIDTH}, 1);
        const row = [...context.getImageData(0, 0, {WIDTH}, 1).data].filter((_, i) => i % 4 == 0);
        const middle = (Math.min(...row) + Math.max(...row)) / 2;
        return Math.round((row.findIndex(value => value > middle)) / 8);
    }})""")


def test_both_play_in_step(result):
    tab = result
    for _ in range(3):
        tab.wait_for_timeout(400)
        drift = tab.evaluate(f'Math.abs({OF_BOTH}[0].currentTime - {OF_BOTH}[1].currentTime)')
        assert drift < 1 / 25
    assert not tab.evaluate(f'{OF_BOTH}[0].paused || {OF_BOTH}[1].paused')
    tab.get_by_role('button', name='Pause').click()
    first, second = bars(tab)
    assert first == second == int(tab.input_value('#scrub'))
    tab.locator('#scrub').fill('17')
    assert bars(tab) == [17, 17]
    for name, frame in (('Next frame', 18), ('Next frame', 19), ('Previous frame', 18)):
        tab.get_by_role('button', name=name).click()
        assert bars(tab) == [frame, frame]
    assert tab.inner_text('#where') == f'19 of {FRAMES}, 0.72 s'
    tab.locator('#scrub').fill(str(FRAMES - 1))
    assert bars(tab) == [FRAMES - 1, FRAMES - 1]
    tab.get_by_role('button', name='Next frame').click()
    tab.get_by_role('button', name='Play').click()  # from the last picture it starts again
    until(tab, f'{OF_BOTH}[1].currentTime > 0.1 && {OF_BOTH}[1].currentTime < 0.7')


def test_left_of_the_divider_is_blurry_and_right_of_it_restored(result):
    tab = result
    tab.locator('#scrub').fill('2')
    box = tab.locator('#pair').bounding_box()
    for share, drag in ((0.3, True), (0.85, True), (0.5, False)):
        if drag:
            tab.mouse.move(box['x'] + box['width'] * 0.5, box['y'] + box['height'] * 0.7)
            tab.mouse.down()
            tab.mouse.move(box['x'] + box['width'] * share, box['y'] + box['height'] * 0.4, steps=4)
            tab.mouse.up()
        else:
            tab.focus('#divider')
            tab.keyboard.press('Home')
            for _ in range(5):
                tab.keyboard.press('PageUp')  # a tenth of the way each
        at_rest(tab)
        seen = picture(tab)
        row = np.median(seen[int(0.8 * len(seen)) :], axis=0)
        middle, margin, bar = round(share * len(row)), 6, round(24 / WIDTH * len(row)) + 6
        assert np.abs(row[bar : middle - margin] - GREY).max() < 6
        assert np.abs(row[middle + margin : -margin] - GREY - BRIGHTER).max() < 6
        assert np.abs(row[middle - 1 : middle + 1] - 255).max() < 40  # the line itself


def test_the_restored_file_is_downloaded_and_the_next_clip_is_an_image(result, page, tmp_path):
    tab = result
    with tab.expect_download() as download:
        tab.click('#download')
    download.value.save_as(tmp_path / 'got.mp4')
    assert download.value.suggested_filename == 'bar_restored.mp4'
    job = tab.get_attribute('#download', 'href').removesuffix('/download')
    assert (tmp_path / 'got.mp4').read_bytes() == page.ask('GET', f'{job}/download').body
    tab.click('#again')
    playwright.expect(tab.get_by_text('Drop a video or an image here')).to_be_visible()
    assert page.ask('GET', job).status == 404 and not (page.folder / job[6:]).exists()
    cv2.imwrite(str(tmp_path / 'photo.png'), np.full((40, 60, 3), GREY, np.uint8))
    restore(tab, tmp_path / 'photo.png')
    playwright.expect(tab.locator('#player')).to_be_hidden()
    seen = picture(tab)
    assert abs(np.median(seen[-20:, :300]) - GREY) < 3 and abs(np.median(seen[-20:, -300:]) - GREY - BRIGHTER) < 3


def test_errors_are_told_and_the_page_goes_on(tab, clip, page, tmp_path):
    (tmp_path / 'letter.mp4').write_text('no video')
    drop(tab, tmp_path / 'letter.mp4')
    tab.click('#restore')
    alert = tab.get_by_role('alert')
    playwright.expect(alert).to_have_text('letter.mp4 is no video, or is incomplete; give a whole video file')
    (tmp_path / 'large.mp4').write_bytes(bytes(3_000_000))
    tab.set_input_files('#file', tmp_path / 'large.mp4')
    playwright.expect(alert).to_be_empty()
    tab.click('#restore')
    playwright.expect(alert).to_contain_text('large.mp4 has 3 MB, more than the 2 MB that are taken')
    tab.set_input_files('#file', clip)
    tab.fill('#start', 'soon')
    tab.click('#restore')
    playwright.expect(alert).to_contain_text("start 'soon' is no time")
    tab.fill('#start', '')
    restore(tab, clip, '0.2')
    playwright.expect(alert).to_be_empty()


def drop(tab, file: Path) -> None:
    tab.evaluate("""([name, text]) => {
        const dataTransfer = new DataTransfer();
        dataTransfer.items.add(new File([text], name));
        document.querySelector('#stage').dispatchEvent(new DragEvent('drop', {dataTransfer, bubbles: true}));
    }""", [file.name, file.read_text()])  # fmt: skip


def test_progress_and_cancel(tab, clip, restorer: HeldRestorer):
    tab.set_input_files('#file', clip)
    tab.fill('#length', '0.2')
    tab.focus('#restore')
    restorer.go_on.clear()
    tab.keyboard.press('Enter')
    playwright.expect(tab.get_by_text('Starting')).to_be_visible()
    assert tab.evaluate('document.activeElement.id') == 'cancel'
    tab.keyboard.press('Enter')
    playwright.expect(tab.locator('#restore')).to_be_enabled()
    restorer.go_on.set()
    tab.click('#restore')
    playwright.expect(tab.locator('#divider')).to_be_visible()


@pytest.mark.parametrize(('width', 'scheme'), [(1000, 'light'), (400, 'dark')])
def test_nothing_moves_and_texts_are_readable(browser, page, clip, width, scheme):
    with opened(browser, page, width, scheme) as tab:
        places = [place(tab)]
        restore(tab, clip, '0.2')
        places.append(place(tab))
        assert places[0] == places[1]
        assert tab.evaluate('document.documentElement.scrollWidth') <= width
        colours = tab.evaluate("""() => {
            const style = getComputedStyle(document.documentElement);
            return Object.fromEntries(['ground', 'panel', 'text', 'quiet', 'accent', 'on-accent', 'wrong']
                .map(name => [name, style.getPropertyValue('--' + name).trim()]));
        }""")
    light = {name: luminance(value) for name, value in colours.items()}
    assert (light['ground'] < 0.1) == (scheme == 'dark')
    for text, ground in [('text', 'ground'), ('text', 'panel'), ('quiet', 'ground'), ('quiet', 'panel'),
                         ('wrong', 'ground'), ('on-accent', 'accent')]:  # fmt: skip
        low, high = sorted((light[text], light[ground]))
        assert (high + 0.05) / (low + 0.05) >= 4.5, (text, ground)  # WCAG's level AA


def place(tab) -> list:
    return [tab.locator(part).bounding_box() for part in ('header', '#stage', '#bar')]


def luminance(colour: str) -> float:
    """Relative luminance of ``#rgb`` or ``#rrggbb``, as WCAG defines it."""
    digits = colour[1:] if len(colour) == 7 else ''.join(2 * digit for digit in colour[1:])
    values = np.array([int(digits[i : i + 2], 16) for i in (0, 2, 4)]) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])
