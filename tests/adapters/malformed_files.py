"""Seeded malformed files of torch and MindSpore."""

import io
import os
import pickle
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from good_adapter import tensors


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
            field(1, tag + field(2, tensor(value.astype(np.int64), kind=b"Int64"))),
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
