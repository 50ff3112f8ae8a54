"""Texts and token ids: tokenizers, stop strings, chat templates, guided decoding."""
