"""The page, in headless Chromium where that is installed."""

import shutil

import pytest
from playwright.sync_api import Error, expect, sync_playwright

from cupola.access.server.http.bounds import Bounds


@pytest.fixture(scope="module")
def browser():
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright:
        try:
            made = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        except Error as error:
            pytest.skip(f"there is no Chromium: {str(error).splitlines()[0]}")
        yield made
        made.close()


@pytest.fixture
def page(browser, url):
    """The playground, ready; fails when the page said something wrong or asked anyone else."""
    said, asked = [], []
    made = browser.new_page()
    made.on("console", lambda message: said.append(message.text))
    made.on("pageerror", lambda error: said.append(str(error)))
    made.on("request", lambda request: asked.append(request.url))
    made.goto(f"{url}/")
    made.wait_for_selector("#canvas svg")
    yield made
    made.close()
    assert said == []
    assert all(one.startswith((url, "data:")) for one in asked)


def fill(page, part, text):
    page.locator(f"[data-part={part}] textarea").fill(text)


def test_the_examples_hold(page):
    for name in page.locator("#example option").all_inner_texts():
        page.select_option("#example", name)
        expect(page.locator("#state")).to_contain_text("all assertions hold")
        assert page.locator("#canvas .step").count() > 2


def test_a_check_is_typed_answered_and_explained(page):
    fill(page, "checks", "model:kiln#use@user:nobody")
    expect(page.locator("#checks .answer")).to_have_count(1)
    assert page.locator("#checks .mark").inner_text() == "no"
    page.locator("#checks .answer").click()
    before = page.locator("#canvas .step.no").count()
    assert before > 3
    page.locator("#canvas .step").first.click()
    assert page.locator("#canvas .step").count() < before


def test_a_failing_assertion_says_what_is(page):
    fill(page, "assertions", "assertTrue:\n- model:kiln#use@user:mallory")
    page.wait_for_selector("#assertions .mark.failed")
    assert "expected yes, is no" in page.locator("#assertions").inner_text()
    assert "1 of 1 assertions fail" in page.locator("#state").inner_text()


def test_mistakes_are_marked_by_line_and_column(page):
    fill(page, "schema", "definition user {}\ndefinition model { relation reader: usr }")
    page.wait_for_selector("[data-part=schema] .mistakes li")
    assert page.locator("[data-part=schema] .mistakes b").inner_text().startswith("2:")
    assert page.locator("[data-part=schema] .numbers .at").inner_text().strip() == "2"
    assert page.locator("[data-part=schema] .wrong").count() > 0
    page.locator("[data-part=schema] .mistakes li").click()
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "schema"


def test_texts_and_theme_outlive_a_reload(page):
    fill(page, "checks", "model:kiln#read@user:ada")
    expect(page.locator("#checks .answer")).to_have_count(1)
    page.click("#theme")
    page.click("#theme")
    page.reload()
    page.wait_for_selector("#canvas svg")
    assert page.locator("[data-part=checks] textarea").input_value() == "model:kiln#read@user:ada"
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_what_is_written_there_is_text_and_no_code(page):
    fill(page, "checks", "<img src=x onerror=alert(1)>")
    page.wait_for_selector("[data-part=checks] .mistakes li")
    assert page.locator("img").count() == 0


def test_runs_are_bounded_and_strict(serve):
    api = serve(bounds=Bounds(playground_bytes=2000, grace_seconds=0.5))
    assert api.ask("/playground/run", 413, schema="x" * 2000)["error"]["code"] == "too_large"
    assert api.ask("/playground/run", 400, schema="", more=1)["error"]["where"] == "more"
    assert (
        api.ask("/playground/run", 400, schema="definition user {}", checks="a:b#c\n" * 201)["error"]["where"]
        == "playground"
    )


def test_the_page_may_ask_nobody_else(api):
    page = api.get("/playground")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "http://" not in page.text
    assert "https://" not in page.text
    assert api.get("/playground/nothing.js").status_code == 404
    assert api.get("/", follow_redirects=False).headers["location"] == "/playground"
