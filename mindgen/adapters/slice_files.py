"""The slices of adapters on disk, in MindFormers' places: a folder rank_N for each rank of the tensor-parallel group.

With auto_trans_ckpt: True they are made at start, under output/transform_ckpt/slora; with False they may lie ready in
the folder of the first adapter. Ranks cut those of an adapter that has none, like one with more than LoRA on linears,
from the whole.
"""

from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

from mindgen.adapters.formats.peft import Adapter, LoraUpdate, read_adapter
from mindgen.adapters.loader import AdapterWeights, lora_pair, match_updates
from mindgen.adapters.registry import AdapterRegistry
from mindgen.adapters.slicing import slice_update
from mindgen.errors import AdapterError, CheckpointError
from mindgen.parallel.layout import TensorLayout
from mindgen.system.atomic import whole_file
from mindgen.weights.formats.safetensors import map_safetensors, read_metadata, write_safetensors
from mindgen.weights.mapped_tensor import MappedTensor
from mindgen.weights.network_names import linear_modules
from mindgen.weights.tensor_names import EMBEDDING, HEAD


def find_slices(registry: AdapterRegistry) -> Path | None:
    """The folder of slices that were made before, in the first adapter's."""
    folders = [version.folder for version in registry.versions()[:1]]
    places = [place for folder in folders for place in (folder / "slora", folder)]
    return next((place for place in places if (place / "rank_0").is_dir()), None)


def slice_adapters(folder: Path, registry: AdapterRegistry, layouts: dict[str, TensorLayout]) -> None:
    """Writes the slices of all adapters.

    Args:
        layouts: of the model's weights, by the names of their tensors.

    Raises:
        AdapterError: one cannot be read, or was made for another model.
    """
    modules = linear_modules({name: layout.shape for name, layout in layouts.items()}, tied=True)
    tied_head = layouts.get(f"{HEAD}.weight", layouts[f"{EMBEDDING}.weight"])
    weights = {module: layouts.get(f"{module}.weight", tied_head) for module in modules}
    for version in registry.versions():
        adapter = read_adapter(version.folder)
        if _is_plain(adapter):
            updates = match_updates(f"adapter {version.adapter_id} ({version.folder})", adapter, modules)
            write_slices(folder, version.adapter_id, adapter.digest, updates, weights)


def take_slices(adapter: AdapterWeights, folder: Path | None, num_ranks: int, rank: int) -> AdapterWeights:
    """The adapter with this rank's slices in place of the whole, if it has slices in the folder.

    Raises:
        AdapterError: this rank's are missing or damaged, or were made of other content or for another number of ranks.
    """
    if folder is None or not _path(folder, adapter.adapter_id, 0).is_file():
        return adapter
    updates = read_slices(folder, adapter.adapter_id, adapter.digest, num_ranks, rank)
    pairs = {module: lora_pair(str(folder), module, update) for module, update in updates.items()}
    return replace(adapter, pairs=pairs, is_sliced=True)


def write_slices(
    folder: Path,
    adapter_id: str,
    digest: str,
    updates: dict[str, LoraUpdate],
    layouts: dict[str, TensorLayout],
) -> list[Path]:
    """Writes each rank's slices of an adapter; returns the files, rank by rank.

    Args:
        digest: of the whole adapter; the slices are read for it only.
        updates: by the model's module names, as `match_updates` gives them.
        layouts: of the same modules' weights (out, in), all on as many ranks.

    Raises:
        AdapterError: a module has no layout.
    """
    unknown = sorted(updates.keys() - layouts.keys())
    if unknown:
        raise AdapterError(f"adapter {adapter_id}: the model has no layout for {unknown[0]}")
    num_ranks = next(iter(layouts.values())).num_ranks
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
        with whole_file(path) as unfinished:
            write_safetensors(unfinished, tensors, metadata)
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


def _is_plain(adapter: Adapter) -> bool:
    updates = adapter.updates.values()
    has_more = any(each.magnitude is not None or each.bias is not None or each.is_embedding for each in updates)
    return not has_more and not adapter.base_weights


def _path(folder: Path, adapter_id: str, rank: int) -> Path:
    return folder / f"rank_{rank}" / f"{quote(adapter_id, safe='')}.safetensors"
