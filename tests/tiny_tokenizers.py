"""Small tokenizers of every served kind, trained here and now."""

import json
from collections.abc import Iterable
from pathlib import Path

import sentencepiece
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

TEXT = [
    "Hello world, hello  again.",
    "I love Beijing, because it is big.",
    "我爱北京,因为它很大。",
    "two, three, four",
    '{"name": "北京", "size": 3.5, "big": true}',
] * 20
# What tokenizers get wrong: spaces and ends of lines, cases, digits, scripts, marks, joiners, controls, rare letters.
TORTURE = [
    "Hello world, hello  again.",
    " leading",
    "  two leading",
    "trailing  ",
    "a   b\t\tc \n d\r\n\r\n  e\n",
    "\n  ",
    " \n \n ",
    " ",
    "\n",
    "",
    "don't I'LL we'Ve they'd'S HELLOworld camelCase",
    "1 12 123 1234567 3.14 2024-11-29 ½ ² ٣٤٥",
    "我爱北京,因为它很大。",
    "日本語 カタカナ ｶﾅ 한국어 ภาษาไทย हिन्दी",
    "مرحبا עולם",
    "Ünïcödé naïve ﬁ ß İ ǆ",
    "cafe\u0301 A\u030a e\u0301\u0302",
    "👩\u200d👩\u200d👧 🙂🚀 🇩🇪 👍🏽",
    "\u00a0x\u3000y\u2028z\ufeff",
    "\x00\x07\x7f\u0085",
    "龘𠀀 \U0001d518\U0001d52b",
    "x++ != y/2;//\n\n\tif(a[0]){return}",
    "▁ _▁_ Ġ Ċ <0x41> </s",
    '{"name": "北京", "size": 3.5}',
]
VOCAB_SIZE = 330
SPECIAL_TOKENS = ["<unk>", "<s>", "</s>"]
KINDS = [
    "sentencepiece_bpe", "sentencepiece_unigram", "byte_level_bpe", "vocab_and_merges", "byte_fallback_bpe",
    "byte_fallback_unigram",
]  # fmt: skip


def make_tokenizer(kind: str, folder: Path, texts: Iterable[str] = TEXT) -> Path:
    """Writes tokenizer.model or tokenizer.json; <unk>, <s> and </s> are 0, 1 and 2. Returns the folder."""
    {
        "sentencepiece_bpe": lambda: _sentencepiece(folder, texts, "bpe"),
        "sentencepiece_unigram": lambda: _sentencepiece(folder, texts, "unigram"),
        "byte_level_bpe": lambda: _byte_level(folder, texts),
        "vocab_and_merges": lambda: _vocab_and_merges(folder, texts),
        "byte_fallback_bpe": lambda: _byte_fallback(folder, texts, "bpe"),
        "byte_fallback_unigram": lambda: _byte_fallback(folder, texts, "unigram"),
    }[kind]()
    return folder


def _sentencepiece(folder: Path, texts: Iterable[str], model_type: str) -> None:
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(texts), model_prefix=str(folder / "tokenizer"), vocab_size=VOCAB_SIZE,
        model_type=model_type, byte_fallback=True, character_coverage=1.0, normalization_rule_name="identity",
        remove_extra_whitespaces=False, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip


def _byte_level(folder: Path, texts: Iterable[str]) -> None:
    _save(_train_byte_level(texts), folder)


def _vocab_and_merges(folder: Path, texts: Iterable[str]) -> None:
    _train_byte_level(texts).model.save(str(folder))
    config = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "add_bos_token": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def _train_byte_level(texts: Iterable[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCAB_SIZE, special_tokens=SPECIAL_TOKENS, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _byte_fallback(folder: Path, texts: Iterable[str], model_type: str) -> None:
    """In the form in which Llama 2 and Gemma are stored."""
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    words = sorted({f"▁{word}" for text in texts for word in text.split() if word.isascii()})
    characters = sorted({character for text in texts for character in text.replace(" ", "▁")} | {"▁"})
    if model_type == "bpe":
        merges = [("▁", "t"), ("▁", "h"), ("▁t", "w"), ("▁tw", "o"), ("l", "l"), ("o", "r")]
        tokens = [*SPECIAL_TOKENS, *byte_tokens, *characters, *("".join(merge) for merge in merges)]
        vocabulary = {token: place for place, token in enumerate(dict.fromkeys(tokens))}
        tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    else:
        pieces = [(token, 0.0) for token in SPECIAL_TOKENS] + [(token, -20.0) for token in byte_tokens]
        pieces += [(token, -8.0) for token in characters] + [(word, -5.0) for word in words if len(word) > 1]
        tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=True))
    tokenizer.add_special_tokens(SPECIAL_TOKENS)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    _save(tokenizer, folder)


def _save(tokenizer: Tokenizer, folder: Path) -> None:
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"bos_token": "<s>", "eos_token": {"content": "</s>"}}')
