"""python -m mindgen.batch"""

import sys

from mindgen.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["batch", *sys.argv[1:]]))
