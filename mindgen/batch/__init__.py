"""Batch generation: files of prompts in, files of answers out, with nothing lost when it is killed."""

from mindgen.batch.config import BatchConfig

__all__ = ["BatchConfig"]
