"""python -m mindgen"""

import sys

from mindgen.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
