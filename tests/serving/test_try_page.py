"""The page at /: it loads nothing from elsewhere, and shows the answers of every kind of model in a browser."""

import shutil
from pathlib import Path

import pytest

from kdnas.serving.try_page import try_page

from .serve_fixture import serving


def test_the_page_loads_nothing_from_elsewhere() -> None:
    page = try_page()
    assert "default-src 'none'; connect-src 'self'" in page
    assert "//" not in page.replace("// ", "")
    assert "--accent:" in page  # the style of the result pages


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_in_a_browser(scheme: str, classifier: Path, tagger: Path, answerer: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium")
    words = ("--model", f"ner={tagger}", "--model", f"qa={answerer}", "--form", "onnxruntime-f32")
    with serving(f"hap={classifier}", *words) as served, playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_context(color_scheme=scheme, viewport={"width": 375, "height": 800}).new_page()
        problems: list[str] = []
        requests: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(served.url)
        page.locator("#model option").nth(2).wait_for(state="attached")
        text = "Ada \U0001f469\u200d\U0001f467 lives in Zu\u0308rich."
        for model in ("hap", "ner", "qa"):
            page.select_option("#model", model)
            page.fill("#text", text * (20 if model == "hap" else 1))
            page.focus("#text")
            page.keyboard.press("Control+Enter")  # by keyboard alone
            page.locator("#status", has_text=" ms").wait_for()
            assert page.inner_text("#head")
            assert page.locator("#bars .bar").count() == (2 if model == "hap" else 0)
            assert page.evaluate("document.documentElement.scrollWidth") == 375  # nothing is wider than a phone
            page.evaluate("document.getElementById('status').textContent = ''")
        assert page.locator("mark").count() == 1  # the answer
        assert not problems
        assert all(url.startswith(served.url) for url in requests)
        browser.close()
