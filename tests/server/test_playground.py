"""The page at `/`, in a browser, before a real server."""

import json
import re
import shutil
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import ADMIN, ALICE
from playwright.sync_api import expect, sync_playwright
from server_process import ROOT, serving

from mindgen.cli.main import main

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium (Debian: apt install chromium)")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
PROMPT = "An increasing sequence: six,"
EVIL = "<img src=x onerror=document.title='hacked'>"
MODELS = ("demo", "A1", "A2")


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield launched
        launched.close()


@pytest.fixture
def opened(browser, server):
    """Opens the page with what is asked; whatever the browser complains of fails the test."""
    contexts, complaints = [], []

    def open_page(at=server, color_scheme="light", locale="en-US", bypass_csp=False, width=1280, **asked):
        context = browser.new_context(
            color_scheme=color_scheme, locale=locale, bypass_csp=bypass_csp, viewport={"width": width, "height": 900}
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda line: complaints.append(line.text) if "Content Security" in line.text else None)
        page.goto(at.address + ("/" + fragment(**asked) if asked else "/"))
        expect(page.locator(".column").first).to_be_visible()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture(scope="module")
def crowded(tmp_path_factory):
    """With keys, an admin, and 2,000 adapters, of which one has a name that is markup."""
    folder = tmp_path_factory.mktemp("crowded")
    (folder / "keys").write_text(f"{ALICE}\n")
    (folder / "admin").write_text(f"{ADMIN}\n")
    names = [EVIL, *(f"customer-{number:04}" for number in range(1, 2000))]
    (folder / "lora_adapter.json").write_text(json.dumps({name: str(ROOT / "adapters/A1") for name in names}))
    flags = ("--api_key_file", folder / "keys", "--admin_key_file", folder / "admin")
    flags += ("--adapters", folder / "lora_adapter.json", "--adapter_roots", ROOT / "adapters")
    with serving("--model", "demo", *map(str, flags)) as found:
        yield found


def fragment(models=MODELS, mode="plain", prompt=PROMPT, **sampling) -> str:
    fields = {"mode": mode, "prompt": prompt, "model": models, "temperature": 0, "max_tokens": 40} | sampling
    return "#" + urlencode(fields, doseq=True)


def column(page, number: int):
    return page.locator(".column").nth(number - 1)


def text_of(page, number: int) -> str:
    """Of the answer's tokens, without the mark of its end."""
    return "".join(column(page, number).locator(".token:not(.end)").all_text_contents())


def run(page) -> None:
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.locator("#status")).to_have_text("Done.")


def use_key(page, key: str) -> None:
    page.locator("#key-menu summary").click()
    page.get_by_label("API key, or an admin's key").fill(key)
    page.get_by_role("button", name="Use", exact=True).click()


def test_side_by_side_is_what_the_api_answers(opened, client):
    page = opened()
    page.goto(page.url.split("#")[0] + fragment())
    expect(page.locator(".column")).to_have_count(3)
    run(page)
    for number, model in enumerate(MODELS, 1):
        asked = {"model": model, "prompt": PROMPT, "temperature": 0, "max_tokens": 40}
        assert text_of(page, number) == client.completions.create(**asked).choices[0].text
        facts = column(page, number).locator(".facts").inner_text()
        assert (
            re.search(r"first token\s+[\d,]+ ms", facts) and re.search(r"tokens\s+11\b", facts) and "by itself" in facts
        )
    marked = column(page, 2).locator(".differs").all_text_contents()
    assert marked == [" 七", " 八", " 九", " 十", " 十一"] and column(page, 1).locator(".differs").count() == 0
    expect(column(page, 3).locator(".difference")).to_have_text("5 of 11 tokens differ from column 1")


def test_probabilities_by_mouse_and_by_keyboard(opened, client):
    page = opened(models=("A1", "A1"))
    run(page)
    asked = {"model": "A1", "prompt": PROMPT, "temperature": 0, "max_tokens": 40, "logprobs": 5}
    others = client.completions.create(**asked).choices[0].logprobs.top_logprobs
    tokens, tip = column(page, 1).locator(".token"), page.get_by_role("tooltip")
    tokens.nth(2).hover()
    shown = [text.replace("␣", " ") for text in tip.locator("li code").all_text_contents()]
    assert shown == sorted(others[2], key=others[2].get, reverse=True)
    expect(tip.locator("b")).to_have_text("99.8%")
    page.mouse.move(0, 0)
    expect(tip).to_be_hidden()
    tokens.first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(tokens.nth(2)).to_be_focused()
    assert tokens.nth(2).get_attribute("aria-describedby") == "tip" and tip.locator("li").count() == 5
    page.keyboard.press("Escape")
    expect(tip).to_be_hidden()
    expect(column(page, 2).locator(".difference")).to_have_text("Same as column 1")


def test_by_keyboard_alone(opened):
    page = opened()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # the link that skips to the prompt
    expect(page.locator("#prompt")).to_be_focused()
    page.keyboard.type(PROMPT)
    for _ in range(3):  # the sampling's summary, Run, the first model: Stop is disabled
        page.keyboard.press("Tab")
    field = page.get_by_role("combobox", name="Model of column 1")
    expect(field).to_be_focused()
    page.keyboard.type("a3")
    expect(field).to_have_attribute("aria-expanded", "true")
    page.keyboard.press("Enter")
    expect(field).to_have_value("A3")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#status")).to_have_text("Done.")
    assert text_of(page, 1) == " VII, VIII, IX, X, XI."


def test_a_link_restores_what_was_asked(opened):
    page = opened(models=("A3", "demo"), mode="chat", prompt="你好 & ?", system="Be brief", top_k=7, stop=["a", "b\\"])
    use_key(page, "secret-key-1")
    page.get_by_role("button", name="Share link").click()
    expect(page.locator("#status")).to_have_text(re.compile("link"))
    assert "secret" not in page.url
    state = page.url
    page.goto("about:blank")
    page.goto(state)
    expect(page.locator("#prompt")).to_have_value("你好 & ?")
    expect(page.locator("#system")).to_have_value("Be brief")
    names = [page.get_by_role("combobox").nth(place).input_value() for place in range(2)]
    assert names == ["A3", "demo"]
    expect(page.locator("#sampling-summary")).to_have_text(
        'temperature 0 · max_tokens 40 · top_k 7 · stop ["a","b\\\\"]'
    )
    assert "secret" not in page.evaluate("JSON.stringify(localStorage)")


def test_a_conversation_and_a_stop(opened, client):
    page = opened(models=("A1",), mode="chat", prompt="An increasing sequence: one,")
    run(page)
    first = text_of(page, 1)
    page.fill("#prompt", "An increasing sequence: two,")
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.locator(".turn")).to_have_count(3)
    expect(page.locator("#status")).to_have_text("Done.")
    said = ("user", "An increasing sequence: one,"), ("assistant", first), ("user", "An increasing sequence: two,")
    messages = [{"role": role, "content": content} for role, content in said]
    answer = client.chat.completions.create(model="A1", messages=messages, temperature=0, max_tokens=40)
    assert text_of(page, 1) == answer.choices[0].message.content


def test_a_stop_leaves_what_has_come(opened, server):
    page = opened(models=("demo",), max_tokens=450)
    page.route("**/v1/completions", lambda route: route.continue_(post_data=with_fields(route, ignore_eos=True)))
    page.get_by_role("button", name="Run", exact=True).click()
    expect(column(page, 1).locator(".token").nth(3)).to_be_visible()
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("#status")).to_have_text("Stopped.")
    expect(column(page, 1).locator(".facts")).to_contain_text("stopped")
    server.wait_for(lambda: server.metric("vllm:num_requests_running") == 0)


def test_markup_is_text(opened):
    """From a model, a prompt and an error alike."""
    page = opened(models=("demo", EVIL), prompt=PROMPT)
    page.route("**/v1/completions", lambda route: route.continue_(post_data=with_fields(route, guided_choice=[EVIL])))
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.locator("#status")).to_have_text("1 of 2 failed.")
    assert text_of(page, 1) == EVIL
    expect(column(page, 2).locator(".error")).to_contain_text(EVIL)
    column(page, 1).locator(".token").first.hover()
    page.locator("input[value=chat]").check(force=True)
    page.fill("#prompt", EVIL)
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.locator(".turn").first).to_have_text(EVIL)
    expect(page.locator("#stop")).to_be_disabled()
    assert page.locator("main img").count() == 0 and page.title() == "mindgen playground"


def with_fields(route, **fields) -> str:
    body = json.loads(route.request.post_data)
    if body["model"] == EVIL:
        fields = {}
    return json.dumps(body | fields)


def test_two_thousand_adapters(opened, crowded):
    page = opened(crowded)
    expect(page.locator("#status")).to_contain_text("The API key is missing or wrong")
    use_key(page, "not-a-key-1")
    expect(page.locator("#status")).to_contain_text("The API key is missing or wrong")
    use_key(page, ALICE)
    field = page.get_by_role("combobox", name="Model of column 1")
    expect(field).to_have_value("demo")
    field.click()
    assert page.get_by_role("option").nth(1).locator(".option-name").text_content() == EVIL
    started = time.perf_counter()
    field.fill("mer-1987")
    expect(page.get_by_role("option")).to_have_count(1)
    assert time.perf_counter() - started < 0.5
    field.press("Enter")
    page.fill("#prompt", PROMPT)
    page.get_by_role("button", name="Run", exact=True).click()
    expect(column(page, 1).locator(".facts")).to_contain_text("by itself")
    assert "七" in text_of(page, 1)
    page.get_by_role("tab", name="Adapters").click()
    expect(page.locator("#view-adapters")).to_contain_text("2,000 adapters")
    page.get_by_role("searchbox").fill("1987")
    row = page.get_by_role("row", name="customer-1987")
    expect(row).to_contain_text("in memory")
    assert row.get_by_role("cell").nth(2).inner_text() == "1"


def test_an_admin_loads_and_unloads(opened, crowded):
    page = opened(crowded)
    use_key(page, ALICE)
    page.get_by_role("tab", name="Adapters").click()
    page.locator("#load-name").fill("law")
    page.locator("#load-path").fill("A3")
    load = page.get_by_role("button", name="Load", exact=True)
    load.click()
    status = page.locator("#view-adapters .card .status")
    expect(status).to_have_text("This takes an admin's key: set it under “API key”.")
    use_key(page, ADMIN)
    page.locator("#load-path").fill("../..")
    load.click()
    expect(status).to_contain_text("root")
    page.locator("#load-path").fill("A3")
    load.click()
    expect(status).to_have_text("law is loaded.")
    page.get_by_role("searchbox").fill("law")
    expect(page.get_by_role("row", name="law")).to_contain_text("in memory")
    page.get_by_role("button", name="Unload law").click()
    page.get_by_role("button", name="Really unload?").click()
    expect(status).to_have_text("law is unloaded.")
    expect(page.locator("#view-adapters tbody tr")).to_have_count(0)


def test_a_comparison_opens(opened, tmp_path):
    for name, last in (("a", "seven"), ("b", EVIL)):
        rows = [{"row_id": row, "prompt": PROMPT, "generated_text": f"six {last} {row}"} for row in range(3)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = [str(tmp_path / name) for name in ("a.jsonl", "b.jsonl")]
    assert main(["batch", "compare", *files, "--json", str(tmp_path / "found.json")]) == 0
    page = opened()
    page.get_by_role("tab", name="Compare").click()
    page.locator("#compare-file").set_input_files(tmp_path / "a.jsonl")
    expect(page.locator("#view-compare .status")).to_contain_text("a.jsonl is no comparison")
    page.locator("#compare-file").set_input_files(tmp_path / "found.json")
    pairs = page.get_by_role("article")
    expect(pairs).to_have_count(3)
    sides = pairs.first.locator(".answer")
    assert re.fullmatch(r"six seven \d", sides.nth(0).inner_text()) and EVIL in sides.nth(1).inner_text()
    assert sides.nth(0).locator("mark").first.inner_text().strip() == "seven"


@contextmanager
def busy(client, *models: str):
    """Two outputs of each are computed all the time."""
    is_over = threading.Event()
    more = {"ignore_eos": True, "temperature": 1}

    def ask(model: str) -> None:
        while not is_over.is_set():
            client.completions.create(model=model, prompt=PROMPT, max_tokens=450, n=2, extra_body=more)

    asking = [threading.Thread(target=ask, args=(model,)) for model in models]
    for thread in asking:
        thread.start()
    try:
        yield
    finally:
        is_over.set()
        for thread in asking:
            thread.join(60)


def test_what_the_server_is_at(opened, client):
    page = opened()
    expect(page.locator("#live-batch")).to_have_text("idle")
    with busy(client, "A2"):
        expect(page.locator("#live-running")).to_have_text("2")
        expect(page.locator("#live-batch")).to_have_text("A2: 2")
        expect(page.locator("#live-cache")).not_to_have_text("0%")
        expect(page.locator("#live-throughput")).to_have_text(re.compile(r"[1-9][\d,]* tokens/s"))


@pytest.mark.parametrize(("color_scheme", "locale"), [("light", "en-US"), ("dark", "en-US"), ("light", "zh-CN")])
def test_everyone_can_use_it(opened, color_scheme, locale):
    page = opened(color_scheme=color_scheme, locale=locale, bypass_csp=True, models=("demo", "A1", "A2"))
    page.locator("#run").click()
    expect(page.locator(".facts").nth(2)).to_contain_text("11")
    page.locator("#sampling summary").click()
    is_chinese = locale == "zh-CN"
    expect(page.locator("#run")).to_have_text("运行" if is_chinese else "Run")
    assert page.evaluate("document.documentElement.lang") == ("zh-CN" if is_chinese else "en")
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(17, 21, 27)") == (color_scheme == "dark")
    column(page, 1).locator("input").click()
    for name in ("generate", "adapters", "compare"):
        page.locator(f"#tab-{name}").click()
        found = Axe().run(page).response["violations"]
        assert [each for each in found if each["impact"] in ("serious", "critical")] == [], name


def test_switches_and_a_narrow_screen(opened):
    page = opened(width=360)
    page.locator("#language").click()
    expect(page.locator("#run")).to_have_text("运行")
    page.locator("#theme").click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(17, 21, 27)"
    page.reload()
    expect(page.locator("#run")).to_have_text("运行")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    for name in ("generate", "adapters", "compare"):
        page.locator(f"#tab-{name}").click()
        assert page.evaluate("document.documentElement.scrollWidth") == 360, name


def test_it_loads_nothing_from_elsewhere(opened, server):
    with server.http() as http:
        answer = http.get("/")
        policy = answer.headers["Content-Security-Policy"]
        assert "unsafe" not in policy and "default-src 'none'" in policy and "script-src 'self';" in policy
        assert http.get("/playground/..%2Ffiles.py").status_code == http.get("/playground/files.py").status_code == 404
    page, asked = opened(), []
    page.on("request", lambda request: asked.append(request.url))
    page.reload()
    expect(page.locator(".column").first).to_be_visible()
    assert len(asked) > 10 and all(url.startswith(server.address) for url in asked)
    static = ROOT / "mindgen/server/playground/static"
    texts = [
        set(re.findall(r"^  (\w+):", (static / f"{name}.js").read_text(), re.M)) for name in ("english", "chinese")
    ]
    assert texts[0] == texts[1]


def test_pictures(opened, client, request):
    """With --pictures FOLDER those of the documentation are made anew."""
    folder = request.config.getoption("--pictures")
    if folder is None:
        pytest.skip("makes the documentation's pictures, with --pictures docs/images")
    for name, color_scheme, locale in (("playground", "light", "en-US"), ("playground_dark_zh", "dark", "zh-CN")):
        page = opened(color_scheme=color_scheme, locale=locale, models=(*MODELS, "A3"), width=1360)
        page.set_viewport_size({"width": 1360, "height": 800})
        for _ in range(2):  # the second time everything is in memory
            page.locator("#run").click()
            expect(page.locator(".facts").nth(3)).to_contain_text("11")
            expect(page.locator("#stop")).to_be_disabled()
        with busy(client, "A1", "A2", "demo"):
            page.wait_for_timeout(12_000)  # for a curve to be seen
            column(page, 2).locator(".token").nth(2).hover()
            page.screenshot(path=Path(folder) / f"{name}.png")
