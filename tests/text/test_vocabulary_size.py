"""A model may have more tokens than its tokenizer, and no fewer."""

import pytest
import torch
from tiny_models import make_model
from tiny_tokenizers import make_tokenizer
from tokenizers import Tokenizer

from mindgen import LLM, SamplingParams
from mindgen.errors import ModelError


@pytest.mark.parametrize("vocab_size", [330, 340])
def test_padding_of_the_vocabulary_is_served(vocab_size, tmp_path):
    model = make_tokenizer(
        "byte_level_bpe", make_model("qwen2-tied", tmp_path / "model", torch.float32, vocab_size=vocab_size)
    )
    (output,) = LLM(model).generate("Hello", SamplingParams(temperature=0, max_tokens=2))
    assert len(output.outputs[0].token_ids) == 2


def test_a_larger_tokenizer_is_another_model_s(tmp_path):
    """Known before the weights are looked at."""
    model = make_tokenizer(
        "byte_level_bpe", make_model("qwen2-tied", tmp_path / "model", torch.float32, vocab_size=329)
    )
    (model / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"model: the tokenizer has 330 tokens, and the model 329: they are of"):
        LLM(model)


def test_a_special_token_beyond_the_model_is_refused_where_a_prompt_names_it(tmp_path):
    """As of Llama 2 with a [PAD] that was added to its tokenizer alone."""
    model = make_tokenizer(
        "byte_level_bpe", make_model("qwen2-tied", tmp_path / "model", torch.float32, vocab_size=330)
    )
    file = Tokenizer.from_file(str(model / "tokenizer.json"))
    file.add_special_tokens(["[PAD]"])
    file.save(str(model / "tokenizer.json"))
    llm = LLM(model)
    assert llm.tokenizer.encode("[PAD]")[-1] == 330
    refused, served = llm.generate(["Hello[PAD]", "Hello"], SamplingParams(temperature=0, max_tokens=2))
    assert "token ids outside the vocabulary of 330" in refused.error and len(served.outputs[0].token_ids) == 2
    llm.close()
