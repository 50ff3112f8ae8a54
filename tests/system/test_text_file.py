"""Files that people write, as editors save them: with a byte-order mark, with other ends of lines, in UTF-16."""

import json

import pytest

from mindgen.adapters.registry import AdapterRegistry
from mindgen.cli.generate import read_prompts
from mindgen.cli.option_values import read_text_or_file
from mindgen.errors import MindgenError, ModelError
from mindgen.parallel.launch.rank_table import read_rank_table
from mindgen.settings import load_settings
from mindgen.system.text_file import read_text_file
from mindgen.text.chat_template import load_chat_templates

TABLE = {
    "version": "1.0",
    "server_count": "1",
    "server_list": [
        {"server_id": "10.0.0.1", "device": [{"device_id": "0", "device_ip": "10.1.0.1", "rank_id": "0"}]},
    ],
    "status": "completed",
}
# File name, what it holds, how it is read, and what it means.
FILES = [
    ("prompts.txt", "北京\nand two", lambda path: read_prompts(str(path)), ["北京", "and two"]),
    ("run.yaml", "predict_data: 北京", lambda path: load_settings(path, {}).predict_data, "北京"),
    ("grammar", 'root ::= "a"', lambda path: read_text_or_file("--guided_grammar", f"@{path}"), 'root ::= "a"'),
    ("list.json", '{"A1": "here"}', lambda path: AdapterRegistry.read(path).names(), ["A1"]),
    ("table.json", json.dumps(TABLE), lambda path: read_rank_table(path).servers[0].devices[0].device_ip, "10.1.0.1"),
    (
        "chat_template.jinja",
        "Hi: {{ messages[0].content }}",
        lambda path: load_chat_templates(path.parent).render([{"role": "user", "content": "北京"}]),
        "Hi: 北京",
    ),
    (
        "tokenizer_config.json",
        '{"chat_template": "Hi"}',
        lambda path: load_chat_templates(path.parent).render([{"role": "user", "content": ""}]),
        "Hi",
    ),
]


@pytest.mark.parametrize(("name", "text", "read", "expected"), FILES, ids=[file[0] for file in FILES])
def test_a_byte_order_mark_is_no_text(tmp_path, name, text, read, expected):
    (tmp_path / name).write_bytes(text.encode("utf-8"))
    assert read(tmp_path / name) == expected
    (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + text.encode("utf-8"))
    assert read(tmp_path / name) == expected


@pytest.mark.parametrize(("name", "text", "read", "expected"), FILES, ids=[file[0] for file in FILES])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32", "latin-1"])
def test_other_encodings_are_refused_in_one_line(tmp_path, name, text, read, expected, encoding):
    mark = b"\xfe\xff" if encoding == "utf-16-be" else b"\xe9" if encoding == "latin-1" else b""
    (tmp_path / name).write_bytes(mark + text.encode(encoding, "replace"))
    with pytest.raises(MindgenError) as raised:
        read(tmp_path / name)
    reason = "is not UTF-8 text" if encoding == "latin-1" else "is UTF-16 or UTF-32 text; save it as UTF-8"
    assert reason in str(raised.value) and name in str(raised.value) and "\n" not in str(raised.value)


def test_lines_end_in_one_way_and_a_mark_inside_stays(tmp_path):
    path = tmp_path / "text"
    path.write_bytes("a\r\nb\rc\n\ufeffd".encode())
    assert read_text_file(path, ModelError) == "a\nb\nc\n\ufeffd"
    with pytest.raises(ModelError, match=r"^cannot read the notes in .*nowhere: No such file"):
        read_text_file(tmp_path / "nowhere", ModelError, "the notes in")
