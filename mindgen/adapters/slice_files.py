"""The slices of adapters on disk, in MindFormers' places: a folder rank_N for each rank of the tensor-parallel group.

With auto_trans_ckpt: True they are made at start, under output/transform_ckpt/slora; with False they lie ready in the
folder of the first adapter.
"""

from pathlib import Path
from urllib.parse import quote

from mindgen.adapters.slicing import slice_update
from mindgen.checkpoint.peft import LoraUpdate
from mindgen.checkpoint.safetensors_map import MappedTensor, map_safetensors, read_metadata
from mindgen.checkpoint.safetensors_write import write_safetensors
from mindgen.errors import AdapterError, CheckpointError
from mindgen.parallel.layout import TensorLayout

TRANSFORMED = Path("output/transform_ckpt/slora")


def slices_folder(auto_trans_ckpt: bool, first_adapter: Path, output: Path = TRANSFORMED) -> Path:
    """Where the slices are: made by mindgen in `output`, or made before in the first adapter's folder."""
    if auto_trans_ckpt:
        return output
    return first_adapter / "slora" if (first_adapter / "slora").is_dir() else first_adapter


def write_slices(
    folder: Path,
    adapter_id: str,
    digest: str,
    updates: dict[str, LoraUpdate],
    layouts: dict[str, TensorLayout],
    num_ranks: int,
) -> list[Path]:
    """Writes each rank's slices of an adapter; returns the files, rank by rank.

    Args:
        digest: of the whole adapter; the slices are read for it only.
        updates: by the model's module names, as `match_updates` gives them.
        layouts: of the same modules' weights (out, in), on num_ranks ranks.

    Raises:
        AdapterError: a module has no layout.
    """
    unknown = sorted(updates.keys() - layouts.keys())
    if unknown:
        raise AdapterError(f"adapter {adapter_id}: the model has no layout for {unknown[0]}")
    paths = []
    for rank in range(num_ranks):
        tensors: dict[str, MappedTensor] = {}
        for module, update in updates.items():
            part = slice_update(update, layouts[module], rank)
            tensors |= {f"{module}.lora_A.weight": part.a, f"{module}.lora_B.weight": part.b}
        path = _path(folder, adapter_id, rank)
        path.parent.mkdir(parents=True, exist_ok=True)
        scalings = {f"scaling.{module}": update.scaling.hex() for module, update in updates.items()}
        metadata = {"digest": digest, "num_ranks": str(num_ranks), "rank": str(rank), **scalings}
        unfinished = path.with_suffix(".partial")
        write_safetensors(unfinished, tensors, metadata)
        unfinished.replace(path)
        paths.append(path)
    return paths


def read_slices(folder: Path, adapter_id: str, digest: str, num_ranks: int, rank: int) -> dict[str, LoraUpdate]:
    """The rank's slices of an adapter, mapped.

    Raises:
        AdapterError: they are missing or damaged, or were made of other content or for another number of ranks.
    """
    path = _path(folder, adapter_id, rank)
    expected = {"digest": digest, "num_ranks": str(num_ranks), "rank": str(rank)}
    try:
        metadata, tensors = read_metadata(path), map_safetensors(path)
    except CheckpointError as error:
        raise AdapterError(f"adapter {adapter_id} has no slices for rank {rank}: {error}") from error
    for key, value in expected.items():
        if metadata.get(key) != value:
            raise AdapterError(
                f"adapter {adapter_id}: {path} was made for {key} {metadata.get(key)}, not {value}; "
                "slice the adapter again (auto_trans_ckpt: True)"
            )
    updates = {}
    for name in sorted(tensors):
        module, _, half = name.rpartition(".lora_A")
        if half == ".weight":
            try:
                scaling = float.fromhex(metadata[f"scaling.{module}"])
                updates[module] = LoraUpdate(tensors[name], tensors[f"{module}.lora_B.weight"], scaling)
            except (KeyError, ValueError, OverflowError) as error:
                raise AdapterError(f"adapter {adapter_id}: {path} is damaged at {module}") from error
    return updates


def _path(folder: Path, adapter_id: str, rank: int) -> Path:
    return folder / f"rank_{rank}" / f"{quote(adapter_id, safe='')}.safetensors"
