"""Tokens and classes that stand outside of a tokenizer.json, against transformers."""

import json
import re
from pathlib import Path

import pytest
import sentencepiece
from tiny_tokenizers import TEXT, TORTURE, make_tokenizer
from transformers import AutoTokenizer

from mindgen.errors import ModelError
from mindgen.text.tokenizer import load_tokenizer

TEXTS = [
    "Hello world",
    "<|start|>user\nHi<|end|>\n<|start|>  a <|end|>",
    " <tool> x <tool>y<tool><tool>",
    "a <word> b<word>c <word>.",
    "<unk>a<unk> b",
    "<s>x</s> y</s>z",
    "<|image|>北京<|image|> 🙂",
    "A\u030angstro\u0308m e\u0301 <e\u0301>x <é>",  # decomposed
    "we'll DON'T 12345 x\r\n\n  y\u00a0z",
    *TORTURE,
    *(f"{text}<|end|> {text}<|start|>{text}" for text in TORTURE),
    *(f"<tool>{text}<s> {text}</s>" for text in TORTURE),
]


def token(content: str, special: bool = True, **flags: bool) -> dict[str, object]:
    return {
        "content": content, "special": special, "lstrip": False, "rstrip": False, "single_word": False,
        "normalized": False, **flags,
    }  # fmt: skip


def added_tokens(size: int) -> dict[str, object]:
    """Of a vocabulary of this size."""
    tokens = [
        token("<|start|>"),
        token("<|end|>", rstrip=True),
        token("<tool>", special=False, lstrip=True),
        token("<word>", special=False, single_word=True),
        token("<é>", special=False, normalized=True),
    ]
    return {str(size + place): each for place, each in enumerate(tokens)}


ENDS = {"bos_token": "<s>", "eos_token": "</s>"}
LISTED = ["<|start|>", {"__type": "AddedToken", **token("<|end|>", rstrip=True)}]
NAMED = {"image_token": "<|image|>", "start_of_turn": "<|start|>"}
BARE = {name: value for name, value in token("<|end|>", lstrip=True).items() if name != "special"}
# File names and what they hold.
FORMS = {
    "decoder": {"tokenizer_config.json": {**ENDS, "additional_special_tokens": ["<|start|>", "<|image|>"]}},
    "files of their own": {
        "tokenizer_config.json": {"bos_token": "<s>"},
        "added_tokens.json": {"<|start|>": 0, "<|end|>": 1, "<tool>": 2, "<é>": 3},
        "special_tokens_map.json": {"eos_token": BARE, "additional_special_tokens": ["<|start|>", "<|image|>"]},
    },
    "two lists": {
        "tokenizer_config.json": {**ENDS, "additional_special_tokens": ["<|image|>"]},
        "special_tokens_map.json": {"pad_token": "<pad>", "additional_special_tokens": ["<tool>"]},
    },
    "list": {"tokenizer_config.json": {**ENDS, "extra_special_tokens": LISTED, "video_token": "<word>"}},
    "names": {"tokenizer_config.json": {**ENDS, "extra_special_tokens": NAMED}},
    "list and list": {
        "tokenizer_config.json": {**ENDS, "extra_special_tokens": LISTED, "additional_special_tokens": ["<word>"]},
        "special_tokens_map.json": {"extra_special_tokens": ["<tool>"]},
    },
    "names and list": {
        "tokenizer_config.json": {**ENDS, "extra_special_tokens": NAMED},
        "special_tokens_map.json": {"extra_special_tokens": ["<tool>"]},
    },
}


def write(folder: Path, files: dict[str, dict[str, object]]) -> Path:
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    return folder


def check_equal(folder: Path, texts: list[str] = TEXTS) -> None:
    oracle, tokenizer = AutoTokenizer.from_pretrained(folder), load_tokenizer(folder)
    assert (tokenizer.bos_id, tokenizer.eos_id) == (oracle.bos_token_id, oracle.eos_token_id)
    assert (tokenizer.special_tokens, tokenizer.vocab_size) == (oracle.special_tokens_map, len(oracle))
    for text in texts:
        ids = oracle.encode(text)
        assert tokenizer.encode(text) == ids
        assert tokenizer.encode(text, False) == oracle.encode(text, add_special_tokens=False)
        for skip in (True, False):
            assert tokenizer.decode(ids, skip) == oracle.decode(ids, skip_special_tokens=skip)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["byte_level_bpe", "byte_fallback_bpe", "byte_fallback_unigram"])
def test_tokens_beside_tokenizer_json(tmp_path, kind, form):
    folder = make_tokenizer(kind, tmp_path)
    size = len(json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"])
    files = dict(FORMS[form])
    if form == "decoder":
        files["tokenizer_config.json"] = files["tokenizer_config.json"] | {"added_tokens_decoder": added_tokens(size)}
    if "added_tokens.json" in files:
        files["added_tokens.json"] = {name: size + place for name, place in files["added_tokens.json"].items()}
    check_equal(write(folder, files))


@pytest.mark.parametrize("form", ["decoder", "files of their own", "model type alone"])
def test_qwen_2_splits_and_composes(tmp_path, form):
    folder = make_tokenizer("vocab_and_merges", tmp_path)
    (folder / "tokenizer_config.json").unlink()
    size = len(json.loads((folder / "vocab.json").read_text()))
    check_equal(
        write(
            folder,
            {
                "decoder": {
                    "tokenizer_config.json": {
                        "tokenizer_class": "Qwen2Tokenizer",
                        "eos_token": "<|end|>",
                        "bos_token": None,
                        "added_tokens_decoder": added_tokens(size),
                    }
                },
                "files of their own": {
                    "tokenizer_config.json": {"tokenizer_class": "Qwen2TokenizerFast"},
                    "added_tokens.json": {"<|endoftext|>": size, "<|start|>": size + 1, "<|end|>": size + 2},
                    "special_tokens_map.json": {"eos_token": BARE, "additional_special_tokens": ["<|start|>"]},
                },
                "model type alone": {"config.json": {"model_type": "qwen2"}},
            }[form],
        )
    )


def test_an_unknown_class_and_ids_of_another_model_are_refused(tmp_path):
    folder = make_tokenizer("vocab_and_merges", tmp_path)
    write(folder, {"tokenizer_config.json": {"tokenizer_class": "RobertaTokenizer"}})
    with pytest.raises(ModelError, match="tokenizer_class RobertaTokenizer is not known for vocab.json"):
        load_tokenizer(folder)
    write(folder, {"tokenizer_config.json": {"added_tokens_decoder": {"7000": token("<|start|>")}}})
    with pytest.raises(ModelError, match="'<|start|>' has id 7000 in the configuration"):
        load_tokenizer(folder)
    write(folder, {"tokenizer_config.json": {"extra_special_tokens": [5]}})
    with pytest.raises(ModelError, match="added or special tokens are malformed"):
        load_tokenizer(folder)


@pytest.fixture(scope="module", params=["identity", "nmt_nfkc"])
def sentencepiece_folder(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(TEXT), model_prefix=str(folder / "tokenizer"), vocab_size=330, model_type="bpe",
        byte_fallback=True, character_coverage=1.0, normalization_rule_name=request.param, hard_vocab_limit=False,
        remove_extra_whitespaces=request.param != "identity", minloglevel=2,
    )  # fmt: skip
    return folder


@pytest.mark.parametrize("legacy", [True, False])
def test_special_tokens_of_sentencepiece(sentencepiece_folder, legacy):
    """Without what nmt_nfkc normalizes, which transformers leaves to the sentencepiece package."""
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    size = sentencepiece.SentencePieceProcessor(str(sentencepiece_folder / "tokenizer.model")).GetPieceSize()
    decoder = {str(place): token(name) for place, name in enumerate(["<unk>", "<s>", "</s>"])}
    decoder[str(size)] = token("<|end|>")
    config = {"tokenizer_class": "LlamaTokenizer", "legacy": legacy, "add_bos_token": True, **names}
    write(sentencepiece_folder, {"tokenizer_config.json": {**config, "added_tokens_decoder": decoder}})
    texts = ["a<unk>b", "<unk>", "<s>x</s>z", "<|end|>Hello world<|end|>北京<unk><unk>x", "龘<|end|>龘"]
    check_equal(sentencepiece_folder, texts)
    tokenizer = load_tokenizer(sentencepiece_folder)
    assert tokenizer.decode([0, *tokenizer.encode_fragment("Hello"), 0]) == "Hello"


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("kind", ["sentencepiece_bpe", "sentencepiece_unigram"])
def test_sentencepiece_equals_transformers(tmp_path, kind, legacy):
    """transformers 5 puts no space before a text that begins with one; sentencepiece, by which models were trained,
    does, and so did transformers 4: for such texts it is given that space."""
    folder = make_tokenizer(kind, tmp_path)
    size = sentencepiece.SentencePieceProcessor(str(folder / "tokenizer.model")).GetPieceSize()
    decoder = {str(place): token(name) for place, name in enumerate(["<unk>", "<s>", "</s>"])}
    decoder |= {str(size): token("<|end|>"), str(size + 1): token("<tool>", special=False)}
    config = {
        "tokenizer_class": "LlamaTokenizer",
        "legacy": legacy,
        "add_bos_token": True,
        **ENDS,
        "unk_token": "<unk>",
    }
    write(folder, {"tokenizer_config.json": {**config, "added_tokens_decoder": decoder}})
    oracle, tokenizer = AutoTokenizer.from_pretrained(folder), load_tokenizer(folder)
    name = re.compile(r"(<unk>|<s>|</s>|<\|end\|>|<tool>)")
    for text in TEXTS:
        parts = name.split(text)  # every second one is a token's name
        spaced = [
            f" {part}" if part.startswith((" ", "\u2581")) and place % 2 == 0 and (legacy or place == 0) else part
            for place, part in enumerate(parts)
        ]
        ids = oracle.encode("".join(spaced))
        assert tokenizer.encode(text) == ids
        for skip in (True, False):
            assert tokenizer.decode(ids, skip) == oracle.decode(ids, skip_special_tokens=skip)
