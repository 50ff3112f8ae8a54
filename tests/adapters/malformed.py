"""Seeded malformed adapters: each function damages a good one so that it must be refused."""

import io
import json
import os
import pickle
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

RANK, SIZE = 4, 12
NAMES = [f"model.layers.{layer}.self_attn.{name}_proj" for layer in range(2) for name in "qv"]
MODULES = {name: (SIZE, SIZE) for name in NAMES}
CONFIG = {"peft_type": "LORA", "r": RANK, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], "bias": "none"}


def tensors() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    shapes = {"A": (RANK, SIZE), "B": (SIZE, RANK)}
    return {
        f"base_model.model.{module}.lora_{half}.weight": generator.standard_normal(shape, np.float32)
        for module in NAMES
        for half, shape in shapes.items()
    }


def write_good(folder: Path) -> None:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(CONFIG))
    save_file(tensors(), folder / "adapter_model.safetensors")


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
            ("fan_in_fan_out", [True, 1, "yes"]),
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
            np.zeros((shape[0] + rng.randrange(1, 9), shape[1]), np.float32), np.zeros(shape, np.float64),
            np.zeros((shape[0], shape[1] - 1), np.float32), np.full(shape, rng.choice([np.nan, np.inf, -np.inf])),
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


class Malice:
    """Runs a command when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return (os.system, (f"touch {self.marker}",))


def damage_torch_file(folder: Path, rng: random.Random, marker: Path) -> None:
    (folder / "adapter_model.safetensors").unlink()
    path = folder / "adapter_model.bin"
    good = {name: torch.from_numpy(value) for name, value in tensors().items()}
    kind = rng.randrange(10)
    if kind == 0:
        torch.save({**good, "x": rng.choice([Malice(marker), 3, [1], "text", None, {"a": 1}])}, path)
    elif kind == 1:
        torch.save(rng.choice([Malice(marker), list(good.values()), 3, None]), path)
    elif kind == 2:
        torch.save(good, path, _use_new_zipfile_serialization=False)
    elif kind == 3:
        path.write_bytes(pickle.dumps(rng.choice([Malice(marker), [Malice(marker)], 3]), rng.randrange(6)))
    else:
        buffer = io.BytesIO()
        torch.save(good, buffer)
        rewrite_zip(buffer, path, rng, kind, marker)


def rewrite_zip(buffer: io.BytesIO, path: Path, rng: random.Random, kind: int, marker: Path) -> None:
    with zipfile.ZipFile(buffer) as source:
        entries = {name: source.read(name) for name in source.namelist()}
    program = next(name for name in entries if name.endswith("data.pkl"))
    storage = rng.choice([name for name in entries if "/data/" in name])
    compression = zipfile.ZIP_STORED
    if kind == 4:  # a bomb: a megabyte for each kilobyte of the file
        entries[storage] = bytes(1 << 24)
        compression = zipfile.ZIP_DEFLATED
    elif kind == 5:
        entries[program] = rng.choice(HOSTILE_PICKLES)(marker)
    elif kind == 6:
        entries[program] = entries[program][: rng.randrange(len(entries[program]))]
    elif kind == 7:
        del entries[rng.choice([program, storage])]
    elif kind == 8:
        entries[storage] = entries[storage][: rng.randrange(len(entries[storage]))]
    with zipfile.ZipFile(path, "w", compression) as target:
        for name, content in entries.items():
            target.writestr(name, content)
        if kind == 5 and rng.random() < 0.3:
            target.writestr("second/data.pkl", b"\x80\x02}.")
    if kind == 9:
        content = path.read_bytes()
        cut = rng.choice([0, 10, len(content) - 30, rng.randrange(len(content) - 22)])
        path.write_bytes(content[:cut])


def hostile_tensor(offset: int, shape: tuple[int, ...], strides: tuple[int, ...], size: int) -> bytes:
    """A pickle of one tensor that says where its values lie."""
    numbers = lambda values: b"(" + b"".join(b"J" + struct.pack("<i", value) for value in values) + b"t"  # noqa: E731
    return (
        b"\x80\x02}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
        b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuJ" + struct.pack("<i", size) + b"tQJ" + struct.pack("<i", offset)
        + numbers(shape) + numbers(strides) + b"\x89ccollections\nOrderedDict\n)RtRs."
    )  # fmt: skip


HOSTILE_PICKLES: list[Callable[[Path], bytes]] = [
    lambda marker: f"cos\nsystem\n(S'touch {marker}'\ntR.".encode(),
    lambda marker: f"(S'touch {marker}'\nios\nsystem\n.".encode(),
    lambda marker: f"cbuiltins\neval\n(Vopen('{marker}','w')\ntR.".encode(),
    lambda marker: pickle.dumps(Malice(marker), 4),
    lambda marker: b"\x80\x02}r\xff\xff\xff\x7f.",  # a memo of 2 billion entries
    lambda marker: b"\x80\x04\x96" + struct.pack("<Q", 1 << 60) + b".",  # a bytearray of an exabyte
    lambda marker: b"\x80\x04\x8e" + struct.pack("<Q", 1 << 60) + b".",
    lambda marker: b"\x80\x02" + b"(" * 200_000 + b".",
    lambda marker: b"\x80\x02" + b"}" * 200_000 + b".",
    lambda marker: b"\x80\x02)" + b"q\x00h\x00\x86" * 1000 + b".",  # a tuple of 2^1000 elements
    lambda marker: b"\x80\x02}" + b")" + b"q\x00h\x00\x86" * 100 + b"Ns.",  # ... as a key
    lambda marker: b"\x80\x02}X\x01\x00\x00\x00a}s.",
    lambda marker: b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.",  # a dictionary in itself
    lambda marker: b"\x80\x02.",
    lambda marker: b"",
    lambda marker: b"\x80\x09}.",
    lambda marker: b"\x80\x02}X\x01\x00\x00\x00a\x88s.",
    lambda marker: b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.",
    lambda marker: b"\x80\x02X\x02\x00\x00\x00osX\x06\x00\x00\x00system\x93.",
    lambda marker: hostile_tensor(0, (4, 12), (12, 1), 1 << 30),
    lambda marker: hostile_tensor(1 << 20, (4, 12), (12, 1), 48),
    lambda marker: hostile_tensor(0, (1 << 30, 1 << 30), (0, 0), 48),
    lambda marker: hostile_tensor(0, (4, 12), (1 << 20, 1 << 20), 48),
    lambda marker: hostile_tensor(0, (-4, -12), (12, 1), 48),
    lambda marker: hostile_tensor(0, (4,) * 100, (0,) * 100, 48),
    lambda marker: hostile_tensor(-5, (4, 12), (12, 1), 48),
]


def damage_mindspore_file(folder: Path, rng: random.Random, marker: Path) -> None:
    (folder / "adapter_model.safetensors").unlink()
    path = folder / "adapter_model.ckpt"

    def varint(value: int) -> bytes:
        value &= (1 << 70) - 1
        digits = b""
        while value > 0x7F:
            digits, value = digits + bytes([value & 0x7F | 0x80]), value >> 7
        return digits + bytes([value])

    def field(number: int, content: bytes, length: int | None = None) -> bytes:
        return varint(number << 3 | 2) + varint(len(content) if length is None else length) + content

    def tensor(value: np.ndarray, dims=None, kind: bytes = b"Float32", content: bytes | None = None) -> bytes:
        sizes = b"".join(b"\x08" + varint(size) for size in (value.shape if dims is None else dims))
        return sizes + field(2, kind) + field(3, value.tobytes() if content is None else content)

    names = {
        name.replace("base_model.model.", "").replace("self_attn.q_proj", "attention.wq")
        .replace("self_attn.v_proj", "attention.wv").replace("lora_A.weight", "lora_a")
        .replace("lora_B.weight", "lora_b"): value
        for name, value in tensors().items()
    }  # fmt: skip
    records = [field(1, field(1, name.encode()) + field(2, tensor(value))) for name, value in names.items()]
    victim = rng.randrange(len(records))
    name, value = list(names.items())[victim]
    tag = field(1, name.encode())
    huge = rng.choice([2**31, 2**40, 2**62, 2**63, 2**64 - 1])
    cut = records[victim][: rng.randrange(1, len(records[victim]))]
    bad = rng.choice(
        [
            field(1, tag + field(2, tensor(value, dims=(huge, huge)))),
            field(1, tag + field(2, tensor(value, dims=(2, 2)))),
            field(1, tag + field(2, tensor(value, dims=(1,) * 1000))),
            field(1, tag + field(2, tensor(value, kind=rng.choice([b"str", b"Int8", b"\xff\xfe", b"x" * 5000])))),
            field(1, tag + field(2, tensor(value, content=value.tobytes()[:-1]))),
            field(1, tag + field(2, tensor(value, content=b""))),
            field(1, tag + field(2, tensor(value)), length=huge),
            field(1, tag + field(2, tensor(value), length=huge)),
            field(1, field(1, name.encode(), length=huge) + field(2, tensor(value))),
            field(1, tag + field(3, tensor(value))),
            field(1, tag),
            field(1, field(2, tensor(value))),
            field(1, field(1, b"\xff\xfe") + field(2, tensor(value))),
            field(1, field(1, name.encode() * 2000) + field(2, tensor(value))),
            field(9, tag),
            b"\xff" * 20,
            b"\x0b" * 3,
            records[victim] + records[victim - 1] + records[victim],
            b"",
            cut,
            field(1, tag + field(2, tensor(value.astype(np.float64), kind=b"Float64"))),
            field(1, tag + field(2, tensor(np.full_like(value, np.nan)))),
            field(1, field(1, b"model.layers.0.attention.wq.lora_c") + field(2, tensor(value))),
            field(1, field(1, b"model.layers.0.attention.w_qkv.lora_a") + field(2, tensor(value))),
            records[victim] + b"crc_num" + bytes(10),
        ]
    )
    if bad.endswith(b"crc_num" + bytes(10)) or bad == cut:
        records = records[:victim] + records[victim + 1 :] + [bad]
    else:
        records[victim] = bad
    path.write_bytes(rng.choice([b"".join(records)] * 9 + [b"", b"\x80\x02}."]))


KINDS: dict[Callable[[Path, random.Random, Path], None], int] = {
    damage_config: 130,
    damage_header: 80,
    damage_names: 60,
    damage_shapes: 50,
    damage_paths: 20,
    damage_torch_file: 80,
    damage_mindspore_file: 80,
}
