"""Generates text with a model and its LoRA adapters: python run_generate.py --adapter_id A1

The same as `python -m mindgen generate`; see --help.
"""

import time

STARTED = time.perf_counter()

import sys  # noqa: E402
from pathlib import Path  # noqa: E402

from mindgen.cli.main import main  # noqa: E402

if __name__ == "__main__":
    demo = Path(__file__).parent / "configs" / "demo.yaml"
    sys.exit(main(["generate", "--config", str(demo), *sys.argv[1:]], STARTED))
