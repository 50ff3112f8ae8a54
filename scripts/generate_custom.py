"""Continues prompts as MindFormers' script of this name does: python generate_custom.py --model_type gpt2

The prompts come from --input_data or the environment variable INPUT_DATA; see --help.
"""

import sys
import time

STARTED = time.perf_counter()

from mindgen.cli.main import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(["generate_custom", *sys.argv[1:]], STARTED))
