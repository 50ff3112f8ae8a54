"""python -m mindgen"""

import sys

from mindgen.cli import main

if __name__ == "__main__":
    sys.exit(main())
