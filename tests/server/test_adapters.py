"""Adapters come and go while the server answers."""

import json
import shutil
import threading

import openai
import pytest
from guarded_server import ADMIN, ALICE

PROMPT = "An increasing sequence: six,"
RANK_OF_EACH = {"A1": "七", "A2": "five", "A3": "VII"}


def text_of(guarded, name: str) -> str:
    answer = guarded.server.client(ADMIN).completions.create(model=name, prompt=PROMPT, max_tokens=8)
    return answer.choices[0].text


def slots_used(guarded) -> tuple[float, float]:
    return guarded.server.metric("mindgen:adapter_slots_used"), guarded.server.metric("mindgen:adapter_host_bytes")


def test_load_and_unload(guarded):
    before = slots_used(guarded)
    answer = guarded.load("law", "A1")
    assert (answer.status_code, answer.text) == (200, "Success: LoRA adapter 'law' added successfully.")
    card = guarded.server.client(ADMIN).models.retrieve("law")
    assert (card.parent, card.root, card.is_resident) == ("demo", str(guarded.root / "A1"), True) and len(
        card.digest
    ) > 16
    assert RANK_OF_EACH["A1"] in text_of(guarded, "law") and slots_used(guarded)[0] == before[0] + 1
    again = guarded.load("law", "A2")
    assert again.status_code == 400 and again.json()["error"]["code"] == "InvalidUserInput"
    assert guarded.load("law", "A2", load_inplace=True).status_code == 200
    assert guarded.server.client(ADMIN).models.retrieve("law").digest != card.digest
    assert RANK_OF_EACH["A1"] not in text_of(guarded, "law")
    assert guarded.unload("law").text == "Success: LoRA adapter 'law' removed successfully."
    guarded.server.wait_for(lambda: slots_used(guarded) == before)
    with pytest.raises(openai.NotFoundError):
        text_of(guarded, "law")
    gone = guarded.unload("law")
    assert gone.status_code == 404 and gone.json()["error"]["code"] == "NotFoundError"


def test_only_admins(guarded):
    for key in (ALICE, "wrong-key", None):
        answer = guarded.load("law", "A1", key)
        assert (answer.status_code, answer.json()["error"]["type"]) in (
            (403, "permission_error"),
            (401, "invalid_request_error"),
        )
    assert guarded.unload("law", ALICE).status_code == 403
    assert "law" not in guarded.names()


def test_nothing_outside_the_roots(guarded, tmp_path):
    shutil.copytree(guarded.root / "A1", tmp_path / "A1")
    (guarded.root / "link").symlink_to(tmp_path / "A1")
    shutil.copytree(guarded.root / "A1", guarded.root / "half")
    (guarded.root / "half/adapter_model.safetensors").unlink()
    (guarded.root / "half/adapter_model.safetensors").symlink_to(tmp_path / "A1/adapter_model.safetensors")
    (guarded.root / "loop").symlink_to(guarded.root / "loop")
    paths = [
        str(tmp_path / "A1"),
        "../../A1",
        "link",
        "half",
        "loop",
        "/",
        "..",
        "A1\0",
        "x" * 5000,
        "no",
        "/etc/passwd",
        "\ud800",
    ]
    for path in paths:
        answer = guarded.server.http(ADMIN).post(
            "/v1/load_lora_adapter",
            content=json.dumps({"lora_name": "stray", "lora_path": path}),
            headers={"Content-Type": "application/json"},
        )
        assert answer.status_code == 400 and answer.json()["error"]["param"] == "lora_path", path
    for path in ("link", "half/adapter_model.safetensors", "loop"):
        (guarded.root / path).unlink()
    shutil.rmtree(guarded.root / "half")
    assert "stray" not in guarded.names()
    assert guarded.load("inside", str(guarded.root / "A1")).status_code == 200
    assert guarded.unload("inside").status_code == 200


@pytest.mark.parametrize("name", ["", "base", "demo", "other", "A/../B"])
def test_names_that_no_adapter_may_have(guarded, name):
    answer = guarded.load(name, "A1")
    assert answer.status_code == 400 and answer.json()["error"]["param"] == "lora_name"


def test_what_cannot_be_served_is_refused(guarded):
    broken = guarded.root / "broken"
    shutil.copytree(guarded.root / "A1", broken)
    (broken / "adapter_model.safetensors").write_bytes(b"no tensors")
    answer = guarded.load("broken", "broken")
    assert answer.status_code == 400 and "adapter" in answer.json()["error"]["message"]
    assert guarded.load("kept", "A1").status_code == 200
    assert guarded.load("kept", "broken", load_inplace=True).status_code == 400
    assert RANK_OF_EACH["A1"] in text_of(guarded, "kept") and "broken" not in guarded.names()
    assert guarded.unload("kept").status_code == 200
    shutil.rmtree(broken)


def test_unloading_waits_for_its_users(guarded):
    guarded.load("busy", "A3")
    asked = {"model": "busy", "prompt": PROMPT, "max_tokens": 400, "extra_body": {"ignore_eos": True}}
    expected = guarded.server.client(ADMIN).completions.create(**asked).choices[0].text
    stream = guarded.server.client(ADMIN).completions.create(**asked, stream=True)
    text = next(stream).choices[0].text
    answers = []
    unloading = threading.Thread(target=lambda: answers.append(guarded.unload("busy")))
    unloading.start()
    guarded.server.wait_for(lambda: "busy" not in guarded.names())
    with pytest.raises(openai.NotFoundError):
        text_of(guarded, "busy")
    text += "".join(chunk.choices[0].text for chunk in stream)
    unloading.join(10)
    assert text == expected and answers[0].status_code == 200


def test_a_folder_that_is_watched(guarded):
    target = guarded.watched / "seen"
    shutil.copytree(guarded.root / "A1", target)
    guarded.server.wait_for(lambda: "seen" in guarded.names())
    card = guarded.server.client(ADMIN).models.retrieve("seen")
    assert card.parent == "demo" and card.digest and RANK_OF_EACH["A1"] in text_of(guarded, "seen")
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        shutil.copy(guarded.root / "A3" / name, target / name)
    guarded.server.wait_for(lambda: RANK_OF_EACH["A3"] in text_of(guarded, "seen"))
    (guarded.watched / "bad").mkdir()
    (guarded.watched / "bad/adapter_config.json").write_text("{}")
    guarded.server.wait_for_log("adapter bad in")
    assert "bad" not in guarded.names()
    shutil.copytree(guarded.root / "A1", guarded.watched / "other")
    guarded.server.wait_for_log("no adapter can be named 'other'")
    shutil.rmtree(guarded.watched / "other")
    shutil.rmtree(target)
    guarded.server.wait_for(lambda: "seen" not in guarded.names())
    shutil.rmtree(guarded.watched / "bad")
