"""Joins rank tables of several servers: python tools/merge_hccl.py hccl_a.json hccl_b.json

The file is hccl_2s_16p.json in the current folder; ranks follow the order of the files.
"""

import argparse
import sys
from pathlib import Path

from mindgen.errors import MindgenError
from mindgen.parallel.launch.make_rank_table import merged_name
from mindgen.parallel.launch.rank_table import merge_rank_tables, read_rank_table, write_rank_table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file_list", nargs="+", type=Path, metavar="TABLE", help="rank tables, the first ranks first")
    parser.add_argument("--output_dir", type=Path, default=Path(), metavar="DIR", help="default: the current folder")
    arguments = parser.parse_args()
    try:
        merged = merge_rank_tables([read_rank_table(path) for path in arguments.file_list])
        path = arguments.output_dir / merged_name(merged)
        write_rank_table(merged, path)
    except MindgenError as error:
        print(f"merge_hccl: error: {error}", file=sys.stderr)
        return error.exit_code
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
