"""What the tests of the playground do with its page."""

import json
import shutil
import threading
from contextlib import contextmanager
from urllib.parse import urlencode

from playwright.sync_api import expect

CHROMIUM = shutil.which("chromium")
WITHOUT = "needs chromium (Debian: apt install chromium)"
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
PROMPT = "An increasing sequence: six,"
PROMPT = "An increasing sequence: six,"
EVIL = "<img src=x onerror=document.title='hacked'>"
MODELS = ("demo", "A1", "A2")


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


def with_fields(route, **fields) -> str:
    body = json.loads(route.request.post_data)
    if body["model"] == EVIL:
        fields = {}
    return json.dumps(body | fields)


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
