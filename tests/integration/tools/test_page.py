"""The page of `dispatcherd receive` in a real browser."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.tools.test_receive import Asking, endpoint
from tests.rig.browser import Browser, Page, need_browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The browser of this file."""
    need_browser()
    process = Browser()
    yield process
    process.stop()


_ROWS = "[...document.querySelectorAll('#requests li')].map(row => row.innerText)"


async def at_home(page: Page, one: Asking) -> None:
    await page.size(1280, 800)
    await page.open(one.url)
    known = "document.getElementById('url')?.textContent.startsWith('http')"
    await page.until(known, "what there is")


async def test_the_page_shows_what_comes_changes_the_answer_and_sends_again(
    browser: Browser,
) -> None:
    async with endpoint() as one, browser.page() as page:
        await at_home(page, one)
        assert "dispatcherd send-test" in await page.run("document.body.innerText")
        await one.post()
        await page.until("document.querySelectorAll('#requests li').length === 1", "the first")
        [row] = await page.run(_ROWS)
        assert "order.created" in row and "verified" in row and "evt_1" in row

        await one.post(body=b"[1]", **{"webhook-id": "evt_2"})
        await page.until("document.querySelectorAll('#requests li').length === 2", "the second")
        await page.run("document.querySelector('#requests button').click()")
        await page.until("!document.getElementById('detail').hidden", "the detail")
        shown = await page.run("document.getElementById('detail').innerText")
        assert "Not verified" in shown and "webhook-signature" in shown

        await page.run(
            "(() => { const s = document.getElementById('preset'); s.value = '503';"
            "s.dispatchEvent(new Event('change', {bubbles: true})); })()"
        )
        await page.until("document.getElementById('manner').className === 'other'", "the manner")
        assert (await one.post(id_="evt_3"))[0] == 503
        await page.until("document.querySelectorAll('#requests li').length === 3", "the third")

        await page.run("document.querySelectorAll('#requests button')[2].click()")
        await page.until("document.getElementById('title').textContent.startsWith('#1 ')", "first")
        await page.run("document.getElementById('resign').click()")
        await page.until("document.getElementById('came').textContent.startsWith('503')", "again")
        assert [r.found.id for r in one.told] == ["evt_1", "evt_2", "evt_3", "evt_1"]
        assert page.complaints == []


async def test_what_a_stranger_sends_is_text_and_no_markup(browser: Browser) -> None:
    markup = "<img src=x onerror=document.title='pwned'>"
    async with endpoint() as one, browser.page() as page:
        await at_home(page, one)
        body = b'{"type": "' + markup.encode() + b'", "data": "</pre><script>1</script>"}'
        await one.post(body, id_=markup.replace(" ", "/"), path="a?" + "<b>", **{"x-a": markup})
        await page.until("document.querySelectorAll('#requests li').length === 1", "the request")
        await page.run("document.querySelector('#requests button').click()")
        await page.until("!document.getElementById('detail').hidden", "the detail")
        shown = await page.run("document.body.innerText")
        assert markup in shown and "</pre><script>1</script>" in shown
        assert await page.run("document.querySelectorAll('main img, main script').length") == 0
        assert await page.run("document.title") == "dispatcherd receive"


async def test_nothing_is_wider_than_the_screen(browser: Browser) -> None:
    async with endpoint() as one, browser.page() as page:
        await at_home(page, one)
        long = b'{"type": "' + b"t" * 120 + b'", "a": "' + b"x" * 900 + b'"}'
        await one.post(long, id_="e" * 300, **{"x-" + "n" * 60: "v" * 900})
        await page.until("document.querySelectorAll('#requests li').length === 1", "the request")
        fits = "document.documentElement.scrollWidth <= innerWidth"
        boxes = "[...document.querySelectorAll('main *')].every(e => e.getBoundingClientRect()"
        for width in (360, 768, 1280):
            await page.size(width, 800)
            await page.run("document.getElementById('back').click()")
            assert await page.run(fits), width
            await page.run("document.querySelector('#requests button').click()")
            await page.until("!document.getElementById('detail').hidden", "the detail")
            assert await page.run(fits), width
            assert await page.run(f"{boxes}.right <= innerWidth + 1)"), width
