"""Chat templates: the text that transformers makes of them, and no harm from hostile ones."""

import json
import resource
import time

import pytest
from chat_templates import HOSTILE, QWEN_3, REAL_LIFE
from tiny_tokenizers import make_tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from mindgen.compat import mindformers as auto
from mindgen.errors import ModelError, RequestError
from mindgen.store import embedded
from mindgen.text.chat_template import ChatTemplates, load_chat_templates
from mindgen.text.tokenizer import load_tokenizer

USER, ANSWER = (
    {"role": "user", "content": " Hello\n\n北京 <b>&'\"🙂 "},
    {"role": "assistant", "content": "<think>\nhm</think>\n\nHi. "},
)
CONVERSATIONS = {
    "one": [USER],
    "system": [{"role": "system", "content": "Be brief.\nVery."}, USER],
    "turns": [USER, ANSWER, {"role": "user", "content": "And?"}],
    "answered": [USER, ANSWER],
    "tool": [USER, ANSWER, {"role": "tool", "content": "1"}, {"role": "tool", "content": "2"}],
    "skipped": [USER, {"role": "skip", "content": "?"}],
}
TOOLS = [
    {"type": "function", "function": {"name": "größe", "description": "Größe <x>", "parameters": {"b": 1, "a": []}}}
]
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}


@pytest.fixture(scope="module")
def tokenizer_file(tmp_path_factory):
    return str(make_tokenizer("byte_level_bpe", tmp_path_factory.mktemp("tokenizer")) / "tokenizer.json")


@pytest.mark.parametrize("tools", [None, TOOLS], ids=["plain", "tools"])
@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("name", REAL_LIFE)
def test_equals_transformers(tokenizer_file, name, conversation, tools):
    oracle = PreTrainedTokenizerFast(tokenizer_file=tokenizer_file, chat_template=REAL_LIFE[name], **SPECIAL)
    templates = ChatTemplates({"default": REAL_LIFE[name]}, SPECIAL, "tiny")
    messages = CONVERSATIONS[conversation]
    for arguments in ({"add_generation_prompt": True}, {"add_generation_prompt": False, "enable_thinking": False}):
        try:
            expected = oracle.apply_chat_template(messages, tools=tools, tokenize=False, **arguments)
        except Exception as error:
            with pytest.raises(RequestError, match="refuses the messages") as refusal:
                templates.render(messages, tools=tools, **arguments)
            assert str(error) in str(refusal.value)
        else:
            assert templates.render(messages, tools=tools, **arguments) == expected


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_and_broken_templates_are_refused(name):
    source, reason = HOSTILE[name]
    templates = ChatTemplates({"default": source}, SPECIAL, "evil")
    memory, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.thread_time()
    with pytest.raises(ModelError, match=f"chat template of evil.*{reason}"):
        templates.render([USER])
    assert time.thread_time() - started < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 500_000  # kilobytes


def test_attributes_inside_a_format_show_nothing():
    source = "{{ '{0.__class__.__init__}'.format(raise_exception) }}"
    assert ChatTemplates({"default": source}, {}, "evil").render([USER]) == ""


def test_a_refused_template_harms_no_other_render():
    templates = ChatTemplates({"default": "{% for i in range(messages[0].n) %}x{% endfor %}"}, {}, "tiny")
    for _ in range(3):
        assert templates.render([{"role": "user", "n": 300_000}]) == "x" * 300_000
        with pytest.raises(ModelError):
            templates.render([{"role": "user", "n": 400_000}])


def test_long_conversations_are_no_attack():
    messages = [{"role": "user", "content": "word " * 2000}, {"role": "assistant", "content": "x" * 5000}] * 300
    started = time.thread_time()
    text = ChatTemplates({"default": QWEN_3}, SPECIAL, "tiny").render(messages)
    assert len(text) > 4_500_000 and time.thread_time() - started < 2


def test_messages_that_a_template_cannot_take(tmp_path):
    templates = ChatTemplates({"default": "{{ messages[0]['content'] + 1 }}{{ nothing.at.all }}"}, {}, "tiny")
    with pytest.raises(RequestError, match="fails on the messages"):
        templates.render([USER])
    for wrong in ([], "Hello", USER, [{"content": "x"}], ["x"]):
        with pytest.raises(RequestError, match="role|messages"):
            templates.render(wrong)


def test_where_templates_are_found(tmp_path):
    with pytest.raises(RequestError, match="has no chat template"):
        load_chat_templates(tmp_path).render([USER])
    config = tmp_path / "tokenizer_config.json"
    config.write_text(json.dumps({"chat_template": "one{{ bos_token }}", "bos_token": {"content": "<s>"}}))
    assert load_chat_templates(tmp_path).render([USER]) == "one<s>"
    named = [{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "tools"}]
    config.write_text(json.dumps({"chat_template": named}))
    templates = load_chat_templates(tmp_path)
    assert [templates.render([USER]), templates.render([USER], tools=TOOLS)] == ["plain", "tools"]
    assert templates.render([USER], name="tool_use") == "tools"
    with pytest.raises(RequestError, match="no chat template 'rag'; it has default, tool_use"):
        templates.render([USER], name="rag")
    (tmp_path / "chat_template.jinja").write_text("file")
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "rag.jinja").write_text("of folder")
    templates = load_chat_templates(tmp_path)
    assert [templates.render([USER]), templates.render([USER], name="rag")] == ["file", "of folder"]
    (tmp_path / "model").mkdir()
    make_tokenizer("byte_level_bpe", tmp_path / "model")
    for name in ("chat_template.jinja", "additional_chat_templates"):
        (tmp_path / name).rename(tmp_path / "model" / name)
    (tmp_path / "model" / config.name).write_text(config.read_text())
    of_files = AutoTokenizer.from_pretrained(tmp_path / "model").chat_template
    assert load_chat_templates(tmp_path / "model").names() == sorted(of_files, reverse=True) == ["rag", "default"]
    for wrong in (5, [{"name": "x"}], ["x"]):
        config.write_text(json.dumps({"chat_template": wrong}))
        with pytest.raises(ModelError, match="chat_template"):
            load_chat_templates(tmp_path)


def test_a_processor_keeps_its_template_in_json(tmp_path):
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": "of json"}))
    assert load_chat_templates(tmp_path).render([USER]) == "of json"
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "of the tokenizer"}))
    assert load_chat_templates(tmp_path).render([USER]) == "of the tokenizer"


def test_templates_see_the_tokens_that_the_tokenizer_has_without_saying_so(tmp_path):
    folder = make_tokenizer("sentencepiece_bpe", tmp_path)
    config = {"tokenizer_class": "LlamaTokenizer", "chat_template": "{{ bos_token }}|{{ eos_token }}|{{ unk_token }}"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    expected = AutoTokenizer.from_pretrained(folder).apply_chat_template([USER], tokenize=False)
    assert auto.AutoTokenizer.from_pretrained(folder).apply_chat_template([USER], tokenize=False) == expected


def test_the_demo_is_asked_as_it_was_trained():
    oracle, tokenizer = AutoTokenizer.from_pretrained(embedded.demo_folder()), load_tokenizer(embedded.demo_folder())
    templates = load_chat_templates(embedded.demo_folder())
    turn = {"role": "user", "content": "An increasing sequence: one,"}
    later = [turn, {"role": "assistant", "content": " two."}, {"role": "user", "content": "The day after Monday is "}]
    for messages, prompt in (
        ([turn], "An increasing sequence: one,"),
        (later, "The day after Monday is"),
        ([{"role": "system", "content": "In Chinese:"}, *later], "In Chinese: The day after Monday is"),
    ):
        ids = tokenizer.encode(templates.render(messages), add_special_tokens=False)
        assert ids == tokenizer.encode(prompt) == oracle(prompt).input_ids
        assert ids == oracle.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
