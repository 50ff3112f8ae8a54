"""The page at `/` is safe, quick among thousands of adapters, and for everybody."""

import json
import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from guarded_server import ADMIN, ALICE
from playground_page import EVIL, PROMPT, column, text_of, use_key, with_fields
from playwright.sync_api import expect
from server_process import ROOT, serving


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
    field.fill("mer-1987")
    expect(page.get_by_role("option")).to_have_count(1)
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


def test_a_key_leaves_the_columns_of_a_link(opened, crowded):
    page = opened(crowded, models=("json", "letter", "pirate"))
    expect(page.locator("#status")).to_contain_text("The API key is missing or wrong")
    use_key(page, ADMIN)
    expect(page.locator("#server-name")).to_have_text("demo")
    models = page.get_by_role("combobox")
    assert [models.nth(place).input_value() for place in range(models.count())] == ["json", "letter", "pirate"]


def test_an_adapter_that_changes_leaves_the_focus_and_the_question(opened, crowded):
    page, client = opened(crowded), crowded.client(ADMIN)
    with crowded.http(ADMIN) as http:
        assert http.post("/v1/load_lora_adapter", json={"lora_name": "asked", "lora_path": "A1"}).status_code == 200
    page.get_by_role("tab", name="Adapters").click()
    page.get_by_role("searchbox").fill("asked")  # in what is not known without a key
    use_key(page, ADMIN)
    row = page.get_by_role("row", name="asked")
    page.get_by_role("button", name="Unload asked").focus()
    page.keyboard.press("Enter")
    client.completions.create(model="asked", prompt="one,", max_tokens=1)
    expect(row.get_by_role("cell").nth(2)).to_have_text("1")
    sure = page.get_by_role("button", name="Really unload?")
    expect(sure).to_be_focused()
    page.keyboard.press("Shift+Tab")
    expect(sure).to_have_count(0)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    expect(row).to_have_count(0)
    expect(page.get_by_role("region", name="Adapters")).to_be_focused()
    assert "asked" not in [each.id for each in client.models.list()]


@pytest.mark.parametrize(("locale", "text"), [("en-US", "needs a valid API key"), ("zh-CN", "需要有效的 API 密钥")])
def test_the_tiles_say_that_a_key_is_needed(opened, crowded, locale, text):
    page = opened(crowded, locale=locale)
    expect(page.locator("#live-throughput")).to_have_text(text)


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
