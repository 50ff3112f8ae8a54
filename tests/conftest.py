import os

# Before anything imports torch or mindspore: mindgen must be first, and two test processes share two cores.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import mindgen  # noqa: F401
