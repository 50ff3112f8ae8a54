"""The page at `/` when something changes, breaks or is half typed: it says so, and goes on."""

from playground_page import column, run, with_fields
from playwright.sync_api import expect


def test_the_mode_stays_while_it_generates(opened, patient):
    page = opened(patient, models=("demo",), max_tokens=19_000)
    page.route("**/v1/completions", lambda route: route.continue_(post_data=with_fields(route, ignore_eos=True)))
    page.get_by_role("button", name="Run", exact=True).click()
    expect(column(page, 1).locator(".token").nth(3)).to_be_visible()
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
