"""The engine with adapters of every kind that a batch serves, against peft on the same float32 weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
from adapter_options import EXTENDED, make_option
from engine_probe import Ask, EngineProbe
from peft import PeftModel
from tiny_adapters import make_adapter
from tiny_models import VOCAB_SIZE, load_oracle, make_model

from mindgen.sampling_params import SamplingParams

PLAIN = ("everything", "query-value")
GENERATOR = np.random.default_rng(2)
PROMPTS = [GENERATOR.integers(3, VOCAB_SIZE, length).tolist() for length in GENERATOR.integers(1, 30, 12)]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> tuple[Path, dict[str, Path]]:
    """A model's folder and its adapters' folders by name."""
    folder = make_model("qwen2-tied", tmp_path_factory.mktemp("model"), torch.float32)
    adapters = tmp_path_factory.mktemp("adapters")
    made = {name: make_adapter(name, folder, adapters) for name in PLAIN}
    return folder, made | {name: make_option(name, folder, adapters) for name in EXTENDED}


def greedy_tokens(folder: Path, adapter: Path | None, prompt: list[int]) -> list[int]:
    network = load_oracle(folder, torch.float32)
    if adapter is not None:
        network = PeftModel.from_pretrained(network, adapter).eval()
    generated = network.generate(
        input_ids=torch.tensor([prompt]), max_new_tokens=12, min_new_tokens=12, do_sample=False, pad_token_id=0
    )
    return generated[0, len(prompt) :].tolist()


def test_one_slot_for_every_kind_in_turn(model):
    """What one adapter leaves behind in a slot must not reach the next; two come while others run."""
    folder, adapters = model
    late = {name: adapters[name] for name in ("dora-bias", "lora-bias")}
    early = {name: adapter for name, adapter in adapters.items() if name not in late}
    probe = EngineProbe(folder, early, max_loras=1, num_blocks=200)
    params = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True, num_speculative_tokens=2)
    names = ["everything", "dora", "query-value", None, "dora-embedding", "everything", "dora-head", None]
    first = probe.run([Ask(PROMPTS[place], params, name) for place, name in enumerate(names)])
    for name, adapter in late.items():
        probe.engine._adapters.add(name, adapter)
    names += ["dora-bias", "everything", "lora-bias", "embedding-and-head"]
    rest = probe.run([Ask(PROMPTS[place], params, names[place]) for place in range(8, 12)])
    for place, (name, request) in enumerate(zip(names, [*first, *rest], strict=True)):
        expected = greedy_tokens(folder, None if name is None else adapters[name], PROMPTS[place])
        assert request.sequences[0].token_ids[len(PROMPTS[place]) :] == expected, name
