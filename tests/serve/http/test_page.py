"""The chat page in a real Chromium, against a server whose answers the tests write."""

import asyncio
import dataclasses
import json
import re
import shutil
import socket
import threading

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from cupola.serve.errors import NotFound
from cupola.serve.http import page as page_module
from cupola.serve.http.call import Call, Service
from cupola.serve.http.guard import Caller, Open
from cupola.serve.http.limits import Limits

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH")
expect = playwright.expect


@dataclasses.dataclass
class Fake:
    """A server that answers as a test says, and remembers what it was asked."""

    pieces: list = dataclasses.field(default_factory=lambda: ["Hello", " there."])
    finish: str | None = "stop"
    key: str | None = None
    status: int = 200
    cut: bool = False  # the connection ends in the middle
    gate: threading.Event = dataclasses.field(default_factory=threading.Event)  # the second piece waits for it
    bodies: list = dataclasses.field(default_factory=list)
    stopped: threading.Event = dataclasses.field(default_factory=threading.Event)

    def refusal(self, request):
        if self.key and request.headers.get("authorization") != f"Bearer {self.key}":
            return self.error("A key is needed.", 401)
        return self.error("The server is tired.\nTry later.", self.status) if self.status != 200 else None

    def error(self, message, status):
        return JSONResponse({"error": {"message": message, "type": "x", "param": None, "code": None}}, status)

    async def models(self, request):
        data = [{"id": name, "object": "model"} for name in ("smollm2", "other")]
        return self.refusal(request) or JSONResponse({"object": "list", "data": data})

    async def chat(self, request):
        self.bodies.append(await request.json())
        return self.refusal(request) or StreamingResponse(self.chunks(), media_type="text/event-stream")

    async def chunks(self):
        def chunk(delta, **more):
            choice = {"index": 0, "delta": delta, "finish_reason": None} | more
            return f"data: {json.dumps({'choices': [choice]})}\n\n"

        ended = False
        try:
            yield chunk({"role": "assistant", "content": ""})
            for index, piece in enumerate(self.pieces):
                while index == 1 and not self.gate.is_set():
                    await asyncio.sleep(0.01)
                yield chunk(piece if isinstance(piece, dict) else {"content": piece})
                await asyncio.sleep(0.01)
            if not self.cut:
                yield chunk({}, finish_reason=self.finish)
                yield f"data: {json.dumps({'choices': [], 'usage': {'completion_tokens': len(self.pieces)}})}\n\n"
                yield "data: [DONE]\n\n"
            ended = True
        finally:
            if not ended:
                self.stopped.set()


@pytest.fixture(scope="module")
def served():
    """(address, the holder of the fake that answers now)"""
    holder = {"fake": Fake()}
    service = Service({}, Open(), Limits())

    def page(endpoint):
        async def answer(request):
            return await endpoint.handler(Call(service, request, Caller("anyone", "")))

        return Route(endpoint.path, answer, methods=[endpoint.method])

    async def models(request):
        return await holder["fake"].models(request)

    async def chat(request):
        return await holder["fake"].chat(request)

    routes = [page(endpoint) for endpoint in page_module.routes()]
    routes.append(Route("/v1/models", models))
    routes.append(Route("/v1/chat/completions", chat, methods=["POST"]))
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(Starlette(routes=routes), log_level="error", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}", holder
    server.should_exit = True
    thread.join(10)
    listening.close()


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def fake(served):
    served[1]["fake"] = Fake()
    served[1]["fake"].gate.set()
    return served[1]["fake"]


@pytest.fixture
def context(browser, served):
    made = browser.new_context(viewport={"width": 1440, "height": 900}, color_scheme="light", base_url=served[0])
    made.grant_permissions(["clipboard-read", "clipboard-write"])
    yield made
    made.close()


@pytest.fixture
def page(context, served, fake):
    """The page; its test fails on any complaint of the browser and on any request that leaves the server."""
    opened = context.new_page()
    complaints, requests = [], []
    opened.on(
        "console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None
    )
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("request", lambda request: requests.append(request.url))
    opened.set_default_timeout(5000)
    opened.goto("/")
    opened.complaints = complaints
    yield opened
    assert [text for text in complaints if "status of" not in text] == []
    assert [url for url in requests if not url.startswith(served[0])] == []


def ask(page, text="Hi"):
    page.get_by_label("Message", exact=True).fill(text)
    page.keyboard.press("Enter")


def answers(page):
    return page.locator(".assistant .body")


def complete(page):
    expect(page.locator("#log")).to_have_attribute("aria-busy", "false")


def test_an_answer_streams_and_says_how_fast_it_was(page, fake):
    fake.gate.clear()
    ask(page)
    expect(answers(page)).to_have_text("Hello")
    expect(page.locator(".user .body")).to_have_text("Hi")
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    fake.gate.set()
    expect(answers(page)).to_have_text("Hello there.")
    complete(page)
    expect(page.locator(".stats")).to_have_text(re.compile(r"[\d.,]+ tokens/s · first token [\d.]+ s · 2 tokens"))
    assert fake.bodies[0]["model"] == "smollm2"
    assert fake.bodies[0]["messages"] == [{"role": "user", "content": "Hi"}]
    assert fake.bodies[0]["stream"] is True
    assert page.complaints == []


@pytest.mark.parametrize("how", ["button", "escape"])
def test_stop_keeps_what_was_said_and_ends_the_request(page, fake, how):
    fake.gate.clear()
    ask(page)
    expect(answers(page)).to_have_text("Hello")
    page.get_by_role("button", name="Stop").click() if how == "button" else page.keyboard.press("Escape")
    expect(page.locator(".note")).to_have_text("Stopped.")
    expect(answers(page)).to_have_text("Hello")
    assert fake.stopped.wait(5)


def test_regenerate_replaces_the_answer(page, fake):
    ask(page)
    complete(page)
    fake.pieces = ["Another."]
    page.get_by_role("button", name="Answer again").click()
    expect(answers(page)).to_have_text("Another.")
    assert fake.bodies[1]["messages"] == [{"role": "user", "content": "Hi"}]


def test_edit_sends_the_last_message_again(page, fake):
    for text in ("One", "Two"):
        ask(page, text)
        complete(page)
    page.get_by_role("button", name="Edit").click()
    expect(page.get_by_label("Message", exact=True)).to_have_value("Two")
    ask(page, "Three")
    complete(page)
    said = [message["content"] for message in fake.bodies[2]["messages"]]
    assert said == ["One", "Hello there.", "Three"]
    expect(page.locator(".user .body")).to_have_text(["One", "Three"])


def test_shift_enter_begins_a_line(page, fake):
    box = page.get_by_label("Message", exact=True)
    box.type("a")
    page.keyboard.press("Shift+Enter")
    box.type("b")
    page.keyboard.press("Enter")
    complete(page)
    assert fake.bodies[0]["messages"][0]["content"] == "a\nb"


def test_settings_reach_the_request_and_stay(page, fake):
    page.get_by_label("Model").select_option("other")
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("System prompt").fill("Be brief.")
    page.get_by_label("Temperature").fill("0.3")
    page.get_by_label("Top p").fill("0.9")
    page.get_by_label("Longest answer").fill("64")
    page.get_by_label("Seed").fill("7")
    page.get_by_role("button", name="Close").click()
    page.reload()
    ask(page)
    complete(page)
    body = fake.bodies[0]
    assert (body["temperature"], body["top_p"], body["max_tokens"], body["seed"]) == (0.3, 0.9, 64, 7)
    assert body["model"] == "other"
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    page.get_by_role("button", name="Settings").click()
    page.get_by_role("button", name="Back to the defaults").click()
    page.keyboard.press("Escape")
    ask(page)
    complete(page)
    assert set(fake.bodies[1]) == {"model", "messages", "stream", "stream_options"}


def test_the_conversation_stays_until_it_is_cleared(page, fake):
    ask(page)
    complete(page)
    page.reload()
    expect(answers(page)).to_have_text("Hello there.")
    page.get_by_role("button", name="New conversation").click()
    expect(page.get_by_role("heading", name="What shall we make?")).to_be_visible()
    page.reload()
    expect(page.locator(".message")).to_have_count(0)


def background(page):
    return page.evaluate("getComputedStyle(document.body).backgroundColor")


def test_themes_follow_the_system_and_the_button(page):
    light = background(page)
    page.emulate_media(color_scheme="dark")
    dark = background(page)
    assert dark != light
    page.get_by_role("button", name="Theme").click()
    assert background(page) == light
    page.reload()
    assert background(page) == light


ATTACK = """<img src=x onerror="window.hit=1"><script>window.hit=1</script>
[link](javascript:window.hit=1) [out](https://example.com/"onmouseover="window.hit=1)

- **<svg onload=window.hit=1>**

```<b onclick=x>
</code></pre><script>window.hit=1</script>
```
"""


def test_what_a_model_writes_never_runs(page, fake):
    fake.pieces = [ATTACK, {"reasoning_content": "<img src=x onerror=window.hit=1>"}]
    ask(page, "<img src=x onerror=window.hit=1>")
    complete(page)
    expect(answers(page)).to_contain_text('<img src=x onerror="window.hit=1">')
    page.wait_for_timeout(200)
    assert page.evaluate("window.hit") is None
    assert page.locator("#log :is(img, script, b, [onclick], [onerror], [onmouseover])").count() == 0
    assert page.locator("#log svg[onload], #log a[href^=javascript]").count() == 0


MARKDOWN = """## Title

Some **bold**, *slanted* and `code <b>` text, see [docs](https://example.com/a).

1. one
2. two
   - inner

> quoted

```python
print("**no**")

x = 1
```
Done."""


def test_markdown_becomes_elements_however_it_is_cut(page, fake):
    fake.pieces = [MARKDOWN[i : i + 7] for i in range(0, len(MARKDOWN), 7)]
    ask(page)
    complete(page)
    body = answers(page)
    for selector, text in {
        "h4": "Title",
        "strong": "bold",
        "em": "slanted",
        "p > code": "code <b>",
        "ol > li > ul > li": "inner",
        "blockquote": "quoted",
        "pre": 'print("**no**")\n\nx = 1',
        "figcaption span": "python",
    }.items():
        expect(body.locator(selector)).to_have_text(text)
    expect(body.locator("a")).to_have_attribute("href", "https://example.com/a")
    assert body.locator("> *").count() == 6
    body.get_by_role("button", name="Copy").click()
    assert page.evaluate("navigator.clipboard.readText()") == 'print("**no**")\n\nx = 1'


def test_copy_gives_what_was_written(page, fake):
    fake.pieces = ["**a**"]
    ask(page)
    complete(page)
    page.locator(".assistant").get_by_role("button", name="Copy").click()
    assert page.evaluate("navigator.clipboard.readText()") == "**a**"


def test_thoughts_stand_apart(page, fake):
    fake.pieces = [{"reasoning_content": "Let me see."}, "Yes."]
    ask(page)
    complete(page)
    expect(answers(page)).to_have_text("Yes.")
    expect(page.locator(".thought")).to_be_hidden()
    page.locator("summary").click()
    expect(page.locator(".thought")).to_have_text("Let me see.")


def test_an_error_is_said_and_tried_again(page, fake):
    fake.status = 503
    ask(page)
    expect(page.get_by_role("alert")).to_contain_text("The server is tired.")
    fake.status = 200
    page.get_by_role("button", name="Try again").click()
    expect(answers(page)).to_have_text("Hello there.")
    expect(page.get_by_role("alert")).to_have_count(0)


def test_a_lost_connection_is_said(page, fake):
    fake.cut = True
    ask(page)
    expect(page.get_by_role("alert")).to_contain_text("ended before the answer was complete")
    expect(answers(page)).to_have_text("Hello there.")


def test_a_limit_is_said(page, fake):
    fake.finish = "length"
    ask(page)
    expect(page.locator(".note")).to_contain_text("longest answer")


def test_a_key_is_asked_for_and_used(page, fake):
    fake.key = "sesame"
    page.reload()
    expect(page.get_by_role("dialog", name="This server asks for a key")).to_be_visible()
    page.locator("#key").fill("wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#key")).to_be_empty()
    page.locator("#key").fill("sesame")
    page.keyboard.press("Enter")
    expect(page.get_by_label("Model")).to_have_value("smollm2")
    ask(page)
    expect(answers(page)).to_have_text("Hello there.")
    assert page.evaluate("JSON.stringify(localStorage)").find("sesame") == -1


@pytest.mark.parametrize("width", [320, 375, 768, 1440])
def test_nothing_overflows(page, fake, width):
    page.set_viewport_size({"width": width, "height": 720})
    fake.pieces = ["a" * 500, "\n\n```\n" + "b" * 500 + "\n```\n"]
    ask(page, "c" * 500)
    complete(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(
        "document.getElementById('scroll').scrollWidth <= document.getElementById('scroll').clientWidth"
    )
    page.get_by_role("button", name="Settings").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_every_control_has_a_name(page, fake):
    ask(page)
    complete(page)
    nameless = """[...document.querySelectorAll("button, select, input, textarea")].filter(
        (e) => !(e.ariaLabel || e.labels?.length || e.textContent.trim())).map((e) => e.outerHTML)"""
    assert page.evaluate(nameless) == []


def test_the_page_allows_only_its_own_files(page):
    response = page.request.get("/")
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert re.search(r"<script(?! (type=\"module\" )?src=\"page/)", response.text()) is None


def test_a_file_that_is_not_there_is_refused():
    [_, files] = page_module.routes()
    scope = {"type": "http", "method": "GET", "headers": [], "path_params": {"name": "../page.py"}}
    asked = files.handler(Call(Service({}, Open(), Limits()), Request(scope), Caller("anyone", "")))
    with pytest.raises(NotFound, match="no file"):
        asked.send(None)
