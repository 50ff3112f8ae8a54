"""Seeded malformed adapters: each function damages a good one so that it must be refused."""

import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
from good_adapter import CONFIG, tensors
from malformed_files import damage_mindspore_file, damage_torch_file
from safetensors.numpy import save_file


def damage_config(folder: Path, rng: random.Random, marker: Path) -> None:
    bad_numbers = [-1, 0, 3, 2**40, 1e308, 0.5, "4", None, [4], {}, True, 10**5000 if rng.random() < 0.01 else 10**400]
    bad_names = [None, [], "", [3], [None], {"q_proj": 1}, 7, "(", "([a-z]+)*x", ["q_proj", ""], "q" * 5000]
    bad_names += [["q_proj"], ["q_proj", "v_proj", "lm_head"], "nothing", [".*k_proj"], r"\d+"]
    field, values = rng.choice(
        [
            ("r", bad_numbers),
            ("lora_alpha", [None, "8", [8], {}, True, 10**400, 1e39, -1e31]),
            ("target_modules", bad_names),
            ("exclude_modules", [3, [3], {"a": 1}, "(", ["q_proj"], "(a+)+", r".*v_proj", [""]]),
            ("rank_pattern", [3, [4], {"q_proj": 3}, {"q_proj": "4"}, {"(": 4}, {"q_proj": 0}, {"(x*)*": 4}]),
            ("alpha_pattern", [3, ["q_proj"], {"q_proj": "8"}, {"(": 8}, {"v_proj": None}, {"v_proj": [1]}]),
            ("layers_to_transform", ["all", [0.5], {"0": 1}, [0], 1, [7], True]),
            ("modules_to_save", [3, [3], ["lm_head"], "norm", ["("], ["q_proj"], ["(a+)+"]]),
            ("use_dora", [True, 1, "yes", [0], {"a": 1}]),
            ("use_rslora", [1, "no", [True], {"a": 1}]),
            ("lora_bias", [True, "yes", 3]),
            ("bias", ["some", 3, [1], {"none": 1}, True]),
            ("peft_type", ["IA3", None, 3, ["LORA"], "lora", {}]),
            ("init_lora_weights", ["pissa", "pissa_niter_16", "olora", "corda", "loftq", "PiSSA", "lora_ga"]),
            ("fan_in_fan_out", [1, "yes", [True]]),
            ("trainable_token_indices", [[1], {"embed_tokens": [1]}, 3]),
            ("layer_replication", [[[0, 1]], 3]),
            ("target_parameters", [["x"], 3]),
        ]
    )
    text = json.dumps({**CONFIG, field: rng.choice(values)})
    if rng.random() < 0.25:
        text = rng.choice(
            [
                "", "{", "[1]", "null", "3", text[: rng.randrange(1, len(text) - 1)], "\x00" + text, text + "}",
                '{"r": 4, "r": 4}', "[" * 100_000, '{"a":' * 50_000, '"' + "x" * 1000, "\ufeff" + text, "NaN",
            ]
        )  # fmt: skip
    (folder / "adapter_config.json").write_bytes(text.encode("utf-16" if rng.random() < 0.03 else "utf-8"))


def damage_header(folder: Path, rng: random.Random, marker: Path) -> None:
    path = folder / "adapter_model.safetensors"
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    name = rng.choice([key for key in header if key != "__metadata__"])
    entry = header[name]
    huge = rng.choice([2**20, 2**40, 2**62, 10**30])
    begin, end = entry["data_offsets"]
    change = rng.randrange(12)
    if change < 8:
        header[name] |= [
            {"shape": [huge, huge]}, {"shape": [-1, -48]}, {"shape": "412"}, {"dtype": rng.choice(["F8_E4M3", 7])},
            {"data_offsets": [begin, end + huge]}, {"data_offsets": [begin - huge, end]},
            {"data_offsets": [end, begin]}, {"data_offsets": [begin]},
        ][change]  # fmt: skip
    elif change == 8:
        header[name] = rng.choice([None, 3, [], "x", {}, {"dtype": "F32"}])
    text = json.dumps(header).encode()
    if change == 9:
        text = text[: rng.randrange(1, len(text) - 1)]
    if change == 10:
        text = b'{"a":' * 40_000
    claimed = rng.choice([2**63, 2**64 - 1, len(content) + 1, 2**33]) if change == 11 else len(text)
    path.write_bytes(claimed.to_bytes(8, "little") + text + data)
    if rng.random() < 0.2:
        path.write_bytes(content[: rng.choice([0, 3, 8, 9, length, len(content) - 1, rng.randrange(len(content))])])


def damage_names(folder: Path, rng: random.Random, marker: Path) -> None:
    weights = tensors()
    name = rng.choice(list(weights))
    value = weights.pop(name)
    new = rng.choice(
        [
            None, name + ".extra", name.replace("lora_", "lora-"), name.replace("layers", "layer"), "../" + name,
            name.replace("self_attn", "mlp"), name.replace("layers.", "layers.9"), name + "\n", "x" * 100_000,
            name.replace("_proj", "_proj_proj"), name.replace(".weight", ".bias"), "", ".lora_A.weight", "\x00",
            name.replace("lora_", "ia3_"), name.replace("lora_", "lora_embedding_").replace(".weight", ""),
            "base_model.model.lm_head.weight", "base_model.model.model.embed_tokens.weight", "global_step",
            name.replace(".lora_A.weight", ".bias").replace(".lora_B.weight", ".bias"), name.replace(".", "/"),
        ]
    )  # fmt: skip
    if new is not None:
        weights[new] = value
    if rng.random() < 0.15:  # the same tensor under two of its names
        weights = tensors() | {name.replace(".weight", ".default.weight"): value}
    save_file(weights, folder / "adapter_model.safetensors")


def damage_shapes(folder: Path, rng: random.Random, marker: Path) -> None:
    weights = tensors()
    name = rng.choice(list(weights))
    shape = weights[name].shape
    weights[name] = rng.choice(
        [
            np.zeros((*shape, 1), np.float32), np.zeros(shape[0], np.float32), np.zeros((), np.float32),
            np.zeros(shape[::-1], np.float32), np.zeros((0, *shape[1:]), np.float32), np.zeros(shape, np.int32),
            np.zeros((shape[0] + rng.randrange(1, 9), shape[1]), np.float32), np.zeros(shape, np.int8),
            np.zeros((shape[0], shape[1] - 1), np.float32), np.full(shape, rng.choice([np.nan, -np.inf, 1e300])),
            np.full(shape, rng.choice([np.nan, np.inf]), np.float32), np.full(shape, np.inf, np.float16),
        ]
    )  # fmt: skip
    save_file(weights, folder / "adapter_model.safetensors")


def damage_paths(folder: Path, rng: random.Random, marker: Path) -> None:
    victim = folder / rng.choice(["adapter_config.json", "adapter_model.safetensors"])
    victim.unlink()
    match rng.randrange(6):
        case 0:
            victim.mkdir()
        case 1:
            os.mkfifo(victim)
        case 2:
            victim.symlink_to(victim)
        case 3:
            victim.symlink_to("/dev/zero")
        case 4:
            victim.touch()
            os.truncate(victim, 1 << 40)  # sparse
        case 5:
            pass


KINDS: dict[Callable[[Path, random.Random, Path], None], int] = {
    damage_config: 130,
    damage_header: 80,
    damage_names: 60,
    damage_shapes: 50,
    damage_paths: 20,
    damage_torch_file: 80,
    damage_mindspore_file: 80,
}
