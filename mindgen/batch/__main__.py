"""python -m mindgen.batch, which is `mindgen batch`."""

import runpy
import sys

if __name__ == "__main__":
    sys.argv.insert(1, "batch")
    runpy.run_module("mindgen", run_name="__main__")
