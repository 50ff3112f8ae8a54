"""Looks at what this machine has for mindgen: each check says ok, warning or fails, and what to do. Starts nothing."""

import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from mindgen.errors import KernelError, MindgenError
from mindgen.kernels import plugin
from mindgen.kernels.compiler import find_compiler
from mindgen.kernels.library import KernelLibrary
from mindgen.parallel.launch.launch_plan import own_server
from mindgen.parallel.launch.machine import (
    LOOPBACK,
    ascend_devices,
    free_ports,
    host_address,
)
from mindgen.parallel.launch.rank_table import read_rank_table
from mindgen.parallel.launch.table_check import check_server
from mindgen.system import environment
from mindgen.system.cores import usable_cores
from mindgen.system.memory import free_memory

Verdict = Literal["ok", "warning", "fails"]

_GIB = 2**30
_LITTLE_MEMORY = 4 * _GIB
_LITTLE_SHARED_MEMORY = 256 * 2**20  # a container without --shm-size has 64 MiB
_MSRUN_PORT = 8118
_IMPORT_SECONDS = 120
_CANN = Path("/usr/local/Ascend/ascend-toolkit/latest")
# Newest first: what served versions begin with.
_MINDSPORE = ("2.10.", "2.9.")


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check saw; advice says what to do about it, where something is to be done."""

    subject: str
    verdict: Verdict
    text: str
    advice: str = ""


def examine(rank_table: Path | None = None, server_id: str | None = None) -> Iterator[Finding]:
    """One finding after the other; a check that breaks is a finding too.

    Args:
        rank_table: checked as well.
        server_id: which server of the table this machine is; None finds out.
    """
    checks: list[tuple[str, Callable[[], Finding]]] = [
        ("Python", check_python),
        ("MindSpore", check_mindspore),
        ("packages", check_packages),
        ("devices", check_devices),
        ("CANN", check_cann),
        ("kernels", check_kernels),
        ("compiler", check_compiler),
        ("memory", check_memory),
        ("shared memory", check_shared_memory),
        ("ports", check_ports),
        ("host name", check_host_name),
    ]
    if rank_table is not None:
        checks.append(("rank table", lambda: check_rank_table(rank_table, server_id)))
    for subject, check in checks:
        try:
            yield check()
        except (MindgenError, OSError, ValueError) as error:
            yield Finding(subject, "fails", str(error))


def check_python() -> Finding:
    return Finding("Python", "ok", f"{platform.python_version()} ({sys.executable}), mindgen {version('mindgen')}")


def check_mindspore() -> Finding:
    """Its version, and that it can be imported, which takes another process some seconds."""
    found = _version("mindspore")
    if found is None:
        return Finding("MindSpore", "fails", "not installed", "pip install 'mindspore>=2.9,<2.11'")
    script = [sys.executable, "-c", "import mindspore"]
    try:
        done = subprocess.run(script, capture_output=True, text=True, errors="replace", timeout=_IMPORT_SECONDS)
    except subprocess.TimeoutExpired:
        return Finding("MindSpore", "fails", f"{found} does not import within {_IMPORT_SECONDS} s")
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return Finding("MindSpore", "fails", f"{found} does not import: {said}", "install it again")
    if not found.startswith(_MINDSPORE):
        return Finding("MindSpore", "warning", f"{found} is not a version that was tested", "install 2.9 or 2.10")
    return Finding("MindSpore", "ok", found)


def check_packages() -> Finding:
    """Those whose later versions compute wrong results."""
    limits = {"numpy": (2, 0), "safetensors": (0, 8)}
    found = {name: _version(name) or "0" for name in limits}
    text = ", ".join(f"{name} {number}" for name, number in found.items())
    wrong = [name for name, limit in limits.items() if not (0, 0) < _numbers(found[name]) < limit]
    if wrong:
        needed = " ".join(f"'{name}<{'.'.join(map(str, limits[name])).removesuffix('.0')}'" for name in wrong)
        return Finding("packages", "fails", text, f"pip install {needed}")
    return Finding("packages", "ok", text)


def check_devices() -> Finding:
    devices = ascend_devices()
    cores = len(usable_cores())
    if devices:
        return Finding("devices", "ok", f"{len(devices)} Ascend NPUs ({', '.join(map(str, devices))})")
    return Finding("devices", "ok", f"no Ascend NPU; the CPU with {cores} cores")


def check_cann() -> Finding:
    """The toolkit that MindSpore's Ascend backend loads; a machine without NPUs needs none."""
    home = environment.ascend_home() or _CANN
    files = [file for name in ("version.cfg", "*/version.info") for file in sorted(home.glob(name))]
    if files:
        return Finding("CANN", "ok", f"{_cann_version(files[0])} in {home}")
    if not ascend_devices():
        return Finding("CANN", "ok", "not there, and not needed without an Ascend NPU")
    return Finding("CANN", "fails", f"not in {home}", "install it, and source its set_env.sh")


def check_kernels() -> Finding:
    """The library of MindSpore's CPU ops."""
    path = plugin.library_path()
    if path is None:
        return Finding("kernels", "fails", "libmindgen_cpu.so is not built", "pip install -e . (needs g++ and CMake)")
    library = KernelLibrary(path)
    if library.version != version("mindgen"):
        raise KernelError(f"they are of version {library.version}: run pip install -e . again")
    best = library.best_instruction_set
    text = f"op plugin {library.version}, instruction set {best}, {library.num_threads} threads"
    if best == "portable":
        return Finding("kernels", "warning", text, "the processor has no AVX2: expect it to be slow")
    return Finding("kernels", "ok", text)


def check_compiler() -> Finding:
    """What compiles the graph backend, once for each version of MindSpore, into the cache."""
    folder = environment.cache_folder()
    compiled = sorted(path.name for path in folder.glob(f"mindspore-{_version('mindspore')}-*.so"))
    compiler = find_compiler()
    if compiler is None and not compiled:
        advice = "install g++ (Debian: apt install g++); without it MindSpore's runtime runs the graphs, more slowly"
        return Finding("compiler", "warning", "no C++ compiler for the graph backend", advice)
    nearest = next(each for each in (folder, *folder.parents) if each.exists())
    if not os.access(nearest, os.W_OK) and not compiled:
        advice = "set MINDGEN_CACHE to a folder that can be written to"
        return Finding("compiler", "warning", f"cannot write to {folder}, where the graph backend is kept", advice)
    state = "compiled already" if compiled else "to be compiled at the first run, in about a minute"
    return Finding("compiler", "ok", f"{compiler or 'none'}; the graph backend is {state}")


def check_memory() -> Finding:
    free = free_memory()
    text = f"{free / _GIB:.1f} GiB free"
    if free < _LITTLE_MEMORY:
        return Finding("memory", "warning", text, "a billion parameters take 2 GiB in bfloat16: small models only")
    return Finding("memory", "ok", text)


def check_shared_memory() -> Finding:
    """Where the ranks of one machine meet."""
    folder = Path("/dev/shm")
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        advice = f"mount a tmpfs there; ranks meet in {tempfile.gettempdir()} until then"
        return Finding("shared memory", "warning", f"{folder} cannot be written to", advice)
    free = shutil.disk_usage(folder).free
    text = f"{free / 2**20:.0f} MiB free in {folder}"
    if free < _LITTLE_SHARED_MEMORY:
        return Finding("shared memory", "warning", text, "little for several ranks: docker run --shm-size=1g")
    return Finding("shared memory", "ok", text)


def check_ports() -> Finding:
    """That there are free ones, and whether MindFormers' usual one is among them."""
    free_ports(8)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, _MSRUN_PORT))
        except OSError:
            advice = "give another to msrun_launcher.sh, or none: it takes a free one"
            return Finding("ports", "warning", f"{_MSRUN_PORT}, MindFormers' usual one, is taken", advice)
    return Finding("ports", "ok", f"free ones on {LOOPBACK}, {_MSRUN_PORT} among them")


def check_host_name() -> Finding:
    address = host_address()
    if address is None:
        advice = "give --server_ip to tools/hccl_tools.py, or add the name to /etc/hosts"
        return Finding("host name", "warning", f"{socket.gethostname()} does not resolve", advice)
    return Finding("host name", "ok", f"{socket.gethostname()} is {address}")


def check_rank_table(path: Path, server_id: str | None) -> Finding:
    """That it can be read, is of this machine, and has the addresses that its NPUs have now."""
    table = read_rank_table(path)
    server = own_server(table, path, server_id)
    text = f"{table.num_ranks} ranks on {len(table.servers)} servers, {len(server.devices)} of them here"
    again = "make it again with tools/hccl_tools.py if that is wrong"
    check = check_server(server, ascend_devices())
    if check.wrong:
        return Finding("rank table", "fails", f"{text}; {check.wrong}", "make it again with tools/hccl_tools.py")
    if check.doubtful:
        return Finding("rank table", "warning", f"{text}; {check.doubtful}", again)
    return Finding("rank table", "ok", text)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) if part.isdecimal() else 0 for part in text.split(".")[:2])


def _cann_version(file: Path) -> str:
    """The version that a version.cfg or version.info of CANN tells, in one of several forms."""
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        name, equals, value = line.partition("=")
        if equals and "version" in name.lower():
            return value.strip().strip("[]").rpartition(":")[2]
    return "of unknown version"
