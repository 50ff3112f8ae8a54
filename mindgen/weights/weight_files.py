"""Where a model's weights are: in its own folder, in another one, or in a folder for each rank."""

import math
from dataclasses import dataclass
from pathlib import Path

from mindgen.errors import ModelError
from mindgen.kernels.dtypes import FLOATS, STORAGE
from mindgen.weights.folder import has_checkpoint, map_weights, warn_of_two_checkpoints, weight_paths
from mindgen.weights.mapped_tensor import MappedTensor
from mindgen.weights.mindformers_fused import separate_fused
from mindgen.weights.network_names import are_equal, has_own_head, network_weights
from mindgen.weights.quantization import FP8, with_unpacked
from mindgen.weights.rank_files import STRATEGY_FILE, find_rank_folders, map_rank_folder, rank_files
from mindgen.weights.tensor_names import EMBEDDING, HEAD
from mindgen.weights.weight_format import format_of, map_file


@dataclass(frozen=True, slots=True)
class WeightFiles:
    """The files of a checkpoint.

    Attributes:
        model: the folder of the configuration and the tokenizer.
        folders: a Hugging Face folder, or one (or one file) of a rank's tensors; with is_sharded one for each rank.
        is_sharded: each rank's tensors are its slices.
    """

    model: Path
    folders: tuple[Path, ...]
    is_sharded: bool = False

    def map(self, rank: int) -> dict[str, MappedTensor]:
        """The tensors for a rank: its slices, or whole ones.

        Raises:
            ModelError, CheckpointError: they are missing or damaged, or as of `separate_fused`.
        """
        folder = self.folders[rank if self.is_sharded else 0]
        if _is_model(folder, self.model):
            return map_weights(folder, self.model)
        tensors = with_unpacked(map_rank_folder(folder), self.model)
        return tensors if self.is_sharded else separate_fused(self.model, tensors)

    def choose_dtype(self, declared: str | None) -> str:
        """The dtype that config.json gives the model's own weights, or else that of most of the checkpoint's tensors.

        Raises:
            ModelError: no tensor is in a dtype that is served; or as of `map`.
        """
        if declared in STORAGE and self.folders == (self.model,):
            return declared
        names = [tensor.dtype for tensor in self.map(0).values() if tensor.dtype in FLOATS]
        if not names:
            raise ModelError(f"{self.folders[0]}: the checkpoint has no tensor in {', '.join(FLOATS)}")
        most = max(set(names), key=names.count)
        return most if most in STORAGE else "float32"

    def files(self, ranks: slice = slice(None)) -> list[Path]:
        """Those of all ranks, or of some for which there are folders."""
        return [
            file
            for folder in self.folders[ranks]
            for file in (weight_paths(folder) if _is_model(folder, self.model) else rank_files(folder))
        ]

    def num_bytes(self, dtype: str, ranks: slice = slice(None)) -> int:
        """Of all ranks together, or of some for which there are folders; what is packed is unpacked into dtype."""
        total = 0
        for file in self.files(ranks):
            is_packed = format_of(file).is_packed
            tensors = map_file(file).values()
            packed = sum(math.prod(tensor.shape) for tensor in tensors if is_packed or tensor.dtype == FP8)
            as_it_is = 0 if is_packed else file.stat().st_size - packed
            total += as_it_is + packed * STORAGE[dtype]().itemsize
        return total

    def has_own_head(self) -> bool:
        """Whether there is a head beside the embedding, and it is another one.

        Raises:
            ModelError, CheckpointError: as of `map`.
        """
        if not self.is_sharded:
            return has_own_head(network_weights(self.model, self.map(0)))
        ranks = [self.map(rank) for rank in range(len(self.folders))]
        embeddings, heads = (
            [tensors[f"{module}.weight"] for tensors in ranks if f"{module}.weight" in tensors]
            for module in (EMBEDDING, HEAD)
        )
        # A head that was no other one lies whole beside the slices.
        pairs = [pair for pair in zip(embeddings, heads, strict=False) if pair[0].shape == pair[1].shape]
        return not all(are_equal(*pair) for pair in pairs)


def find_weights(model: Path, checkpoint: str | Path | None, num_ranks: int) -> WeightFiles:
    """The weights for so many ranks: those of the model's folder unless a checkpoint is given.

    Replicas may have folders of their own behind the first one's; they hold the same.

    Raises:
        ModelError: the checkpoint is not there, or for another number of ranks.
        CheckpointError: a rank is missing.
    """
    if checkpoint is None:
        warn_of_two_checkpoints(model)
        return WeightFiles(model, (model,))
    checkpoint = Path(checkpoint)
    if not checkpoint.exists():
        raise ModelError(f"no such checkpoint: {checkpoint}")
    folders = find_rank_folders(checkpoint)
    if len(folders) == 1 and (checkpoint / STRATEGY_FILE).is_file():
        raise ModelError(f"{checkpoint} is sharded by its {STRATEGY_FILE}, and has only rank_0: others are missing")
    if len(folders) < 2:
        warn_of_two_checkpoints(checkpoint)
        return WeightFiles(model, tuple(folders) or (checkpoint,))
    if len(folders) % num_ranks:
        raise ModelError(
            f"{checkpoint} is sharded for {len(folders)} ranks, but there are {num_ranks}: set auto_trans_ckpt, or use "
            f"`mindgen shard`"
        )
    return WeightFiles(model, tuple(folders[:num_ranks]), is_sharded=True)


def _is_model(folder: Path, model: Path) -> bool:
    return folder == model or (folder / "config.json").is_file() or has_checkpoint(folder)
