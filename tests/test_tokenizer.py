"""Tokenizers of both kinds, and detokenizing token by token."""

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as FastTokenizer
from tokenizers import decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from mindgen.errors import ModelError
from mindgen.tokenizer import IncrementalDetokenizer, load_tokenizer

TEXT = [
    "Hello world, hello  again.",
    "I love Beijing, because it is big.",
    "我爱北京,因为它很大。",
    "two, three, four",
] * 20
SAMPLES = ["Hello world", " leading", "double  space", "北京 and 🙂🚀 emoji", "é ü ñ", "naïve\nline", "龘"]


@pytest.fixture(scope="module")
def sentencepiece_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sentencepiece")
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(TEXT), model_prefix=str(folder / "tokenizer"), vocab_size=330, model_type="bpe",
        byte_fallback=True, character_coverage=1.0, normalization_rule_name="identity",
        remove_extra_whitespaces=False, minloglevel=2,
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def byte_level_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("byte_level")
    tokenizer = FastTokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=330, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator(TEXT, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(params=["sentencepiece_folder", "byte_level_folder"])
def folder(request):
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("text", SAMPLES)
def test_round_trip(folder, text):
    tokenizer = load_tokenizer(folder)
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("text", SAMPLES)
def test_fast_tokenizer_equals_transformers(byte_level_folder, text):
    oracle = PreTrainedTokenizerFast(tokenizer_file=str(byte_level_folder / "tokenizer.json"))
    assert load_tokenizer(byte_level_folder).encode(text) == oracle.encode(text)


def test_sentencepiece_adds_the_special_tokens_of_its_configuration(sentencepiece_folder):
    assert load_tokenizer(sentencepiece_folder).encode("Hello")[0] == 1
    config = sentencepiece_folder / "tokenizer_config.json"
    config.write_text('{"add_bos_token": false, "add_eos_token": true}')
    ids = load_tokenizer(sentencepiece_folder).encode("Hello")
    config.unlink()
    assert ids[0] != 1 and ids[-1] == 2


def detokenize(tokenizer, prompt_ids: list[int], output_ids: list[int]) -> list[str]:
    detokenizer = IncrementalDetokenizer(tokenizer, prompt_ids)
    return [detokenizer.append([token_id]) for token_id in output_ids] + [detokenizer.flush()]


@pytest.mark.parametrize("text", SAMPLES)
def test_chunks_join_to_the_text_and_never_break_a_character(folder, text):
    tokenizer = load_tokenizer(folder)
    ids = tokenizer.encode("Hello world," + text)
    for cut in range(1, len(ids)):
        prompt = tokenizer.decode(ids[:cut])
        if prompt.endswith("\ufffd"):
            continue
        chunks = detokenize(tokenizer, ids[:cut], ids[cut:])
        assert prompt + "".join(chunks) == "Hello world," + text
        assert not any("\ufffd" in chunk for chunk in chunks)


@settings(max_examples=200, deadline=None)
@given(ids=st.lists(st.integers(3, 329), min_size=1, max_size=30))
def test_any_tokens_give_the_text_that_follows_the_prompt(sentencepiece_folder, ids):
    """Also byte tokens that make no valid character: the joined chunks are the decoded continuation."""
    tokenizer = load_tokenizer(sentencepiece_folder)
    prompt_ids = tokenizer.encode("Hello world")
    joined = "".join(detokenize(tokenizer, prompt_ids, ids))
    assert "Hello world" + joined == tokenizer.decode(prompt_ids + ids)


def test_damaged_and_missing_tokenizers(tmp_path):
    with pytest.raises(ModelError, match="neither tokenizer.json nor tokenizer.model"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(b"garbage")
    with pytest.raises(ModelError, match="no usable sentencepiece model"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="no usable tokenizer.json"):
        load_tokenizer(tmp_path)
