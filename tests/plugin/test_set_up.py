"""What keeps MindSpore from finding the library is told in one line. Each case is an installation of its own."""

import os
import shutil
import subprocess
import sys
import sysconfig
from importlib.metadata import distribution
from pathlib import Path

import pytest

import mindgen
from mindgen.kernels import plugin

LOAD = """
from mindgen.errors import KernelError
from mindgen.kernels import plugin
try:
    print("loaded", plugin.load().version)
except KernelError as error:
    print(error)
"""


@pytest.fixture
def installation(tmp_path):
    """A folder with a copy of the installed package: the path of its library, and of its metadata."""
    version = distribution("mindgen").version
    metadata = f"mindgen-{version}.dist-info"
    shutil.copytree(Path(mindgen.__file__).parent, tmp_path / "mindgen", ignore=shutil.ignore_patterns("csrc", "*.so"))
    shutil.copytree(distribution("mindgen").locate_file(metadata), tmp_path / metadata)
    library = tmp_path / "mindgen" / "kernels" / "libmindgen_cpu.so"
    shutil.copy(plugin.library_path(), library)
    return library, tmp_path / metadata / "METADATA"


def output_of(code, folder):
    """What the code prints, in a process that sees the folder's mindgen (-S: and no editable one)."""
    paths = [str(folder), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1"}
    del environment["MS_OP_PLUGIN_PATH"]
    command = [sys.executable, "-S", "-c", code]
    done = subprocess.run(command, env=environment, cwd=folder.parent, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_complete_installation(installation, tmp_path):
    assert output_of(LOAD, tmp_path) == [f"loaded {distribution('mindgen').version}"]


def test_missing_library(installation, tmp_path):
    library, _ = installation
    library.unlink()
    [line] = output_of(LOAD, tmp_path)
    assert line.startswith("the CPU kernels (libmindgen_cpu.so) are not built: run `pip install -e .`")


def test_garbage_library(installation, tmp_path):
    library, _ = installation
    library.write_bytes(b"not a library")
    [line] = output_of(LOAD, tmp_path)
    assert line.startswith("cannot load the CPU kernels: ")
    assert str(library) in line


def test_stale_library(installation, tmp_path):
    _, metadata = installation
    version = distribution("mindgen").version
    metadata.write_text(metadata.read_text().replace(f"\nVersion: {version}\n", "\nVersion: 99.0\n"))
    [line] = output_of(LOAD, tmp_path)
    assert line.startswith(f"the CPU kernels are of version {version}, mindgen of 99.0: run `pip install -e .`")


def test_mindspore_imported_first(installation, tmp_path):
    [line] = output_of("import mindspore" + LOAD, tmp_path)
    assert line.startswith("mindspore was imported before mindgen") and line.endswith("import mindgen first")
