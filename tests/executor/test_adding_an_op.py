"""The page about adding an op: its example is compiled against the library, and a graph calls it."""

import ctypes
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from graphs import Graph, tensor_type

from mindgen.kernels.library import DType

ROOT = Path(__file__).parents[2]


def test_the_example_runs_in_a_graph(library, tmp_path):
    (code,) = re.findall(r"```c\+\+\n(.*?)```", (ROOT / "docs/adding_an_op.md").read_text(), re.DOTALL)
    (tmp_path / "halve.cc").write_text(code)
    sources = ROOT / "mindgen/kernels/csrc"
    command = ["g++", "-std=gnu++17", "-shared", "-fPIC", "-O1", tmp_path / "halve.cc", library.path]
    command += [f"-I{sources / room}" for room in ("include", "ops")]
    subprocess.run([*command, "-o", tmp_path / "libhalve.so"], check=True, capture_output=True)
    ctypes.CDLL(str(tmp_path / "libhalve.so"))

    def halved(factor: float | int) -> Graph:
        graph = Graph(library)
        x = graph.input(DType.FLOAT32, -1, 4)
        return graph.compile(graph.node("Halve", x, [factor], outputs=[tensor_type(DType.FLOAT32, -1, 4)]))

    with pytest.raises(ValueError, match=r"Halve \(layer/Halve\): factor is of another type"):
        halved(1)
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    np.testing.assert_array_equal(halved(0.5).run(values)[0], values / 2)
