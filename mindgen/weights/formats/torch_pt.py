"""Training checkpoints of torch (.pt): the state dict among what else was saved; nothing in them is executed."""

from mindgen.weights.formats.torch_bin import map_torch_file
from mindgen.weights.weight_format import WeightFormat

FORMAT = WeightFormat(
    name="torch checkpoint",
    suffix=".pt",
    model_file="model.pt",
    index_file=None,
    preference=4,
    map=map_torch_file,
    has_any_name=True,
)
