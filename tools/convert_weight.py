"""Converts weights to MindFormers' names or back, with the flags of MindFormers' tool of this name:

    python tools/convert_weight.py --model llama --input_path hf/pytorch_model.bin --output_path llama.ckpt --dtype bf16
    python tools/convert_weight.py --model llama --reversed --input_path llama.ckpt --output_path hf.safetensors

See also `python -m mindgen convert --help`.
"""

import sys

from mindgen.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["convert_weight", *sys.argv[1:]]))
