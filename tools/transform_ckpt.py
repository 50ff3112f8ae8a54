"""Transforms checkpoints, with the flags of MindFormers' tool of this name:

    python tools/transform_ckpt.py --dst_ckpt_strategy strategy.ckpt --src_ckpt_dir full --dst_ckpt_dir sharded

Without a source strategy the source is whole, in rank_0; without a destination strategy the result is. See also
`python -m mindgen shard --help`.
"""

import argparse
import sys
from pathlib import Path

from mindgen.cli.main import main

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--src_ckpt_strategy", default="", help="a strategy file, or a folder of them")
    parser.add_argument("--dst_ckpt_strategy", default="", help="a strategy file, or a folder of them")
    parser.add_argument("--src_ckpt_dir", required=True, help="a folder with rank_N in it, or a Hugging Face folder")
    parser.add_argument("--dst_ckpt_dir", required=True, type=Path, help="a new folder")
    parser.add_argument("--prefix", default="checkpoint_", help="of the file names, before the rank")
    parser.add_argument("--output_format", choices=["ckpt", "safetensors"], default="ckpt")
    parser.add_argument("--transform_process_num", default="1", help="write so many ranks at a time")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    given = parser.parse_args()
    command = ["shard", given.src_ckpt_dir, "--output", str(given.dst_ckpt_dir), "--prefix", given.prefix]
    command += ["--format", given.output_format, "--processes", given.transform_process_num]
    for flag, value in (("--source_strategy", given.src_ckpt_strategy), ("--strategy", given.dst_ckpt_strategy)):
        command += [flag, value] if value not in ("", "None") else []
    sys.exit(main([*command, "--debug"] if given.debug else command))
