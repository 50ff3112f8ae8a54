import json
import shutil

import pytest
from guarded_server import ADMIN, ALICE, BOB, CAROL, Guarded
from playground_page import CHROMIUM, FLAGS, WITHOUT, fragment
from playwright.sync_api import expect, sync_playwright
from server_process import ROOT, serving
from trained_server import Trained
from updates import answers, make_lora, make_models

from mindgen import LLM

PATIENCE = 60_000  # milliseconds, until what a page should show is given up
TOOLS_TEMPLATE = (
    "{{ bos_token }}{% for tool in tools or [] %}{{ tool.function.name }} <tool_call> {% endfor %}"
    "{% for message in messages %}"
    "{% for call in message.tool_calls or [] %}{{ call.function.arguments.x }} {% endfor %}"
    "{{ message['content'] }}{% endfor %}"
)


@pytest.fixture(scope="session")
def server():
    """With the embedded demo and its adapters."""
    with serving("--model", "demo", "--max_num_seqs", "8") as found:
        yield found


@pytest.fixture(scope="session")
def client(server):
    return server.client()


@pytest.fixture(scope="session")
def patient(tmp_path_factory):
    """Whose demo may go on for half a minute, so that what happens to an answer happens before its end."""
    model = tmp_path_factory.mktemp("patient") / "demo"
    shutil.copytree(ROOT / "mindgen/demo/model", model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 20_000}))
    with serving("--model", str(model), "--served_model_name", "demo") as found:
        yield found


@pytest.fixture(scope="session")
def guarded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("guarded")
    for name in ("root", "watched", "list"):
        (folder / name).mkdir()
    for name in ("A1", "A2", "A3"):
        shutil.copytree(ROOT / "adapters" / name, folder / "root" / name)
    shutil.copytree(ROOT / "mindgen/demo/model", folder / "model")
    config = json.loads((folder / "model/tokenizer_config.json").read_text())
    config["chat_template"] = TOOLS_TEMPLATE
    (folder / "model/tokenizer_config.json").write_text(json.dumps(config))
    (folder / "list/lora_adapter.json").write_text("{}")
    (folder / "keys").write_text(
        f"# who asks\n{ALICE} name=alice requests_per_minute=2\n{BOB} name=bob concurrency=1\n"
        f"{CAROL} name=carol requests_per_minute=2\n"
    )
    (folder / "admin").write_text(f"{ADMIN}\n")
    flags = {
        "--adapters": "list", "--api_key_file": "keys", "--admin_key_file": "admin", "--adapter_roots": "root",
        "--adapter_folder": "watched",
    }  # fmt: skip
    flags = {name: str(folder / value) for name, value in flags.items()}
    flags |= {
        "--max_num_seqs": "2", "--max_queue": "1", "--max_body_bytes": "100000",
        "--adapter_scan_seconds": "0.1", "--adapter_concurrency": "2", "--log_prompts": "True",
    }  # fmt: skip
    flags |= {"--model": str(folder / "model"), "--served_model_name": "demo"}
    with serving(*(word for flag in flags.items() for word in flag)) as found:
        yield Guarded(found, folder / "root", folder / "watched")


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    folders, expected, checksums = make_models(folder / "made"), {}, []
    (folder / "root").mkdir()
    for number, each in enumerate(folders):
        shutil.copytree(each, folder / "root" / str(number))
        make_lora(each, folder / "root" / f"lora{number}", number)
        llm = LLM(each, block_size=4)
        expected[llm.weight_checksum] = [output.outputs[0].token_ids for output in answers(llm)]
        checksums.append(llm.weight_checksum)
        llm.close()
    (folder / "admin").write_text(f"{ADMIN}\n")
    flags = {
        "--model": folders[0], "--served_model_name": "policy", "--admin_key_file": folder / "admin",
        "--weight_roots": folder / "root", "--weight_socket": folder / "socket", "--adapter_roots": folder / "root",
        "--block_size": 4,
    }  # fmt: skip
    with serving(*(str(word) for flag in flags.items() for word in flag)) as server:
        yield Trained(server, folder / "root", folder / "socket", expected, checksums)
    assert not (folder / "socket").exists()


@pytest.fixture(scope="session")
def replicated(tmp_path_factory):
    """Two replicas behind one port."""
    folder = tmp_path_factory.mktemp("replicated")
    (folder / "admin").write_text(f"{ADMIN}\n")
    flags = ("--admin_key_file", str(folder / "admin"), "--adapter_roots", str(ROOT / "adapters"))
    with serving("--model", "demo", "--dp", "2", "--served_model_name", "a/b", *flags) as found:
        yield Guarded(found, ROOT / "adapters", ROOT / "adapters")


@pytest.fixture(scope="module")  # while it is there, no other test of the process may run coroutines
def browser():
    if CHROMIUM is None:
        pytest.skip(WITHOUT)
    expect.set_options(timeout=PATIENCE)
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
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda line: complaints.append(line.text) if "Content Security" in line.text else None)
        page.goto(at.address + ("/" + fragment(**asked) if asked else "/"))
        expect(page.locator(".column").first).to_be_visible()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []
