"""The page at `/` when something changes, breaks or is half typed: it says so, and goes on."""

import re
from itertools import count

import pytest
from playground_page import column, run, text_of
from playwright.sync_api import expect


def test_the_mode_stays_while_it_generates(opened):
    page = opened(models=("demo",))
    page.route("**/v1/completions", lambda route: None)  # no answer begins
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_role("radio", name="Chat").click(force=True)
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("#status")).to_have_text("Stopped.")
    expect(page.get_by_role("radio", name="Plain")).to_be_checked()
    page.unroute("**/v1/completions")
    page.get_by_role("radio", name="Chat").click()
    page.fill("#prompt", "one,")
    run(page)


def test_a_stream_that_is_none_fails_its_column_alone(opened):
    page = opened(models=("demo", "A1"))
    broken = "data: {}\n\n"
    page.route(
        "**/v1/completions",
        lambda route: route.fulfill(body=broken) if '"A1"' in route.request.post_data else route.continue_(),
    )
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.locator("#status")).to_have_text("1 of 2 failed.")
    expect(column(page, 1).locator(".facts")).to_contain_text("by itself")
    expect(column(page, 2).locator(".error")).to_contain_text("Error")
    page.unroute("**/v1/completions")
    run(page)


@pytest.mark.parametrize("is_by_key", [True, False])
def test_a_half_typed_name_is_the_one_that_it_finds_or_none(opened, is_by_key):
    page, asked = opened(models=("A1",)), []
    page.on("request", lambda request: asked.append(request.post_data_json) if request.method == "POST" else None)
    field = page.get_by_role("combobox", name="Model of column 1")

    def ask(typed: str) -> None:
        field.click()
        field.fill(typed)
        if is_by_key:
            field.press("Control+Enter")
        else:
            page.get_by_role("button", name="Run", exact=True).click()

    ask("a9")
    expect(page.locator("#status")).to_have_text("No model's name matches “a9”.")
    expect(field).to_be_focused()
    expect(field).to_have_attribute("aria-invalid", "true")
    ask("a3")
    expect(page.locator("#status")).to_have_text("Done.")
    expect(field).to_have_value("A3")
    assert [each["model"] for each in asked] == ["A3"] and text_of(page, 1) == " VII, VIII, IX, X, XI."


def test_a_name_that_is_none_stays_until_it_is_left_by_escape(opened):
    page = opened(models=("A1",))
    field = page.get_by_role("combobox", name="Model of column 1")
    field.fill("a9")
    field.press("Enter")
    field.press("Tab")
    expect(field).to_have_value("a9")
    field.click()
    expect(page.locator(".popup .more")).to_have_text("No name matches.")
    field.press("Escape")
    expect(field).to_have_value("A1")
    expect(field).to_have_attribute("aria-invalid", "false")
    run(page)


def test_a_message_that_nobody_answered_is_back(opened):
    page = opened(models=("nobody", "no-one"), mode="chat", prompt="one,")
    ask, prompt = page.get_by_role("button", name="Run", exact=True), page.locator("#prompt")
    ask.click()
    expect(page.locator("#status")).to_have_text("2 of 2 failed.")
    expect(prompt).to_have_value("one,")
    page.get_by_role("combobox").nth(1).fill("A1")
    ask.click()
    expect(page.locator("#status")).to_have_text("1 of 2 failed.")
    expect(prompt).to_have_value("")
    page.route("**/v1/chat/completions", lambda route: None)  # no answer begins
    prompt.fill("two,")
    ask.click()
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("#status")).to_have_text("Stopped.")
    expect(prompt).to_have_value("two,")


@pytest.mark.parametrize("is_by_key", [True, False])
def test_sampling_out_of_its_range_is_shown_and_not_asked(opened, is_by_key):
    page, asked = opened(models=("demo",)), []
    page.on("request", lambda request: asked.append(request.post_data_json) if request.method == "POST" else None)
    summary, wrong = page.locator("#sampling summary"), page.get_by_label("top_p")

    def ask() -> None:
        if is_by_key:
            page.locator("#prompt").press("Control+Enter")
        else:
            page.get_by_role("button", name="Run", exact=True).click()

    summary.click()
    wrong.fill("1.5")
    summary.click()
    expect(wrong).to_be_hidden()
    ask()
    expect(wrong).to_be_focused()
    wrong.fill("0.5")
    ask()
    expect(page.locator("#status")).to_have_text("Done.")
    assert [each["top_p"] for each in asked] == [0.5]


def test_no_throughput_is_shown_when_the_count_begins_anew(opened):
    page, looks = opened(), count(1)

    def with_fewer_tokens(route):
        answer, look = route.fetch(), next(looks)
        state = answer.json()
        state["replicas"][0] |= {"generated_tokens": 10_000 - 1_000 * look, "running": 100 + look}
        route.fulfill(response=answer, json=state)

    page.route("**/playground/live", with_fewer_tokens)
    expect(page.locator("#live-running")).to_have_text(re.compile(r"10[3-9]|1[1-9]\d"))
    assert "tokens" not in page.locator("#live-throughput").inner_text()
    page.unroute_all(behavior="wait")
