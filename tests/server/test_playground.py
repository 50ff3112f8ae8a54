"""The page at `/`, in a browser, before a real server: what it answers, and shows."""

import json
import re
from pathlib import Path

import pytest
from playground_page import EVIL, MODELS, PROMPT, busy, column, fragment, run, text_of, use_key, with_fields
from playwright.sync_api import expect

from mindgen.cli.main import main


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


def test_a_conversation(opened, client):
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


def test_a_stop_leaves_what_has_come(opened, patient):
    page = opened(patient, models=("demo",), max_tokens=19_000)
    page.route("**/v1/completions", lambda route: route.continue_(post_data=with_fields(route, ignore_eos=True)))
    page.get_by_role("button", name="Run", exact=True).click()
    expect(column(page, 1).locator(".token").nth(3)).to_be_visible()
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("#status")).to_have_text("Stopped.")
    expect(column(page, 1).locator(".facts")).to_contain_text("stopped")
    patient.wait_for(lambda: patient.metric("vllm:num_requests_running") == 0)


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


def test_what_the_server_is_at(opened, client):
    page = opened()
    expect(page.locator("#live-batch")).to_have_text("idle")
    with busy(client, "A2"):
        expect(page.locator("#live-running")).to_have_text("2")
        expect(page.locator("#live-batch")).to_have_text("A2: 2")
        expect(page.locator("#live-cache")).not_to_have_text("0%")
        expect(page.locator("#live-throughput")).to_have_text(re.compile(r"[1-9][\d,]* tokens/s"))


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
