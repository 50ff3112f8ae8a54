"""Where a model's weights are: in its own folder, in another one, or in a folder for each rank."""

from dataclasses import dataclass
from pathlib import Path

from mindgen.checkpoint.hf import map_weights
from mindgen.checkpoint.rank_files import find_rank_folders, map_rank_folder, rank_files, rank_folder
from mindgen.checkpoint.safetensors_map import MappedTensor
from mindgen.errors import ModelError


@dataclass(frozen=True, slots=True)
class WeightFiles:
    """The files of a checkpoint.

    Attributes:
        folder: a Hugging Face folder, or one with rank_N in it.
        has_ranks: the latter.
        is_sharded: each rank's folder holds that rank's slices; else rank_0 holds whole tensors.
    """

    folder: Path
    has_ranks: bool = False
    is_sharded: bool = False

    def map(self, rank: int) -> dict[str, MappedTensor]:
        """The tensors for a rank: its slices, or whole ones.

        Raises:
            ModelError, CheckpointError: they are missing or damaged.
        """
        if not self.has_ranks:
            return map_weights(self.folder)
        return map_rank_folder(rank_folder(self.folder, rank if self.is_sharded else 0))

    def num_bytes(self, num_ranks: int) -> int:
        """Of all ranks together."""
        if not self.has_ranks:
            files = list(self.folder.glob("*.safetensors"))
        else:
            ranks = range(num_ranks if self.is_sharded else 1)
            files = [file for rank in ranks for file in rank_files(rank_folder(self.folder, rank))]
        return sum(file.stat().st_size for file in files)


def find_weights(model: Path, checkpoint: str | Path | None, num_ranks: int) -> WeightFiles:
    """The weights for so many ranks: those of the model's folder unless a checkpoint is given.

    Replicas may have folders of their own behind the first one's; they hold the same.

    Raises:
        ModelError: the checkpoint is for another number of ranks.
        CheckpointError: a rank is missing.
    """
    if checkpoint is None:
        return WeightFiles(model)
    checkpoint = Path(checkpoint)
    if not checkpoint.is_dir():
        raise ModelError(f"no such checkpoint folder: {checkpoint}")
    num_found = len(find_rank_folders(checkpoint))
    if num_found == 0:
        return WeightFiles(checkpoint)
    if num_found % num_ranks and num_found != 1:
        raise ModelError(
            f"{checkpoint} is sharded for {num_found} ranks, but there are {num_ranks}: set auto_trans_ckpt, or use "
            f"`mindgen shard`"
        )
    return WeightFiles(checkpoint, has_ranks=True, is_sharded=num_found > 1)
