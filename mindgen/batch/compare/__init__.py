"""Two outputs of a batch, sample against sample."""

from mindgen.batch.compare.comparing import compare_outputs
from mindgen.batch.compare.comparison import Comparison
from mindgen.batch.compare.output_file import Columns

__all__ = ["Columns", "Comparison", "compare_outputs"]
