"""A stand-in for CANN, so that MindSpore compiles for Ascend on a machine without a card.

MindSpore's Ascend plugin links to CANN's libraries. Here each of them is the same small library, in which every symbol
that the plugin wants exists and does nothing. With MindSpore's own dry run (MS_SIMULATION_LEVEL) that is enough: level
0 compiles, level 1 also walks through the kernels' shapes, launches none, and answers zeros.

It is built by g++ and binutils in seconds, once for each version of MindSpore, and is only ever given to child
processes.
"""

import fcntl
import hashlib
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mindgen.system.environment import cache_folder

_SOURCE = Path(__file__).with_name("stand_in.cc")
_LIBRARY = "cann/lib64/libstand_in.so"  # MindSpore looks for CANN in a path with "cann/lib64"
_TOOLS = ("nm", "readelf")  # binutils
_CARD = Path("/dev/davinci_manager")

# Names that the plugin looks up at run time, and libraries that it opens then.
_LOOKED_UP = re.compile(rb"\0((?:acl[a-z]*[A-Z]|Hccl[A-Z]|hcom[A-Z])\w+)(?=\0)")
_OPENED = (
    "libacl_op_compiler.so", "libacl_tdt_channel.so", "libacl_tdt_queue.so", "libaclnn_math.so", "libopapi_math.so",
    "libopapi_nn.so", "libopapi_transformer.so", "libcust_opapi.so",
)  # fmt: skip
# The CANN version, in the files where MindSpore reads it.
_VERSION_FILES = {
    "cann/compiler/version.info": "Version=9.0.0\n",
    "cann/opp/version.info": "Version=9.0.0\n",
    "python/hccl/__init__.py": "",
    "python/hccl/sys_version.py": '__sys_version__ = "9.0.0"\n',
}


class StandInUnavailable(Exception):
    """This machine cannot have a stand-in, and the message says why."""


def environment(folder: Path, level: int, num_ranks: int, rank: int) -> dict[str, str]:
    """For a child process that compiles as one rank of several; no other process need run."""
    package = mindspore_package()
    libraries = [folder / "cann/lib64", package / "lib", package / "lib/plugin", package / "lib/plugin/ascend"]
    variables = {
        "MS_SIMULATION_LEVEL": str(level),
        "RANK_SIZE": str(num_ranks),
        "RANK_ID": str(rank),
        "ASCEND_HOME_PATH": str(folder / "cann"),
        "ASCEND_OPP_PATH": str(folder / "cann/opp"),
        "LD_PRELOAD": str(folder / _LIBRARY),  # before MindSpore, of which it replaces a function
        "LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries)),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(folder / "python"), os.environ.get("PYTHONPATH")])),
        "GLOG_v": "3",
    }
    return {**os.environ, **variables}


def mindspore_package() -> Path:
    """Where MindSpore is installed, without importing it."""
    spec = importlib.util.find_spec("mindspore")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent


def build() -> Path:
    """The folder of the stand-in for the MindSpore that is installed; built if it is not there yet.

    Raises:
        StandInUnavailable: there is no compiler, or there is a card, which a stand-in would hide.
    """
    if _CARD.exists():
        raise StandInUnavailable(f"this machine has {_CARD}: on a card, run the network itself")
    if platform.machine() != "x86_64":
        raise StandInUnavailable(f"the stand-in was only tried on x86_64, not {platform.machine()}")
    if shutil.which("g++") is None:
        raise StandInUnavailable("there is no g++ (Debian, Ubuntu: apt install g++)")
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        raise RuntimeError(f"g++ is here, but not {' and '.join(missing)} (Debian, Ubuntu: apt install binutils)")
    package = mindspore_package()
    digest = hashlib.sha256(_SOURCE.read_bytes() + Path(__file__).read_bytes())
    digest.update(str(package).encode() + (package / "version.py").read_bytes())
    folder = cache_folder() / f"ascend-stand-in-{digest.hexdigest()[:16]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / "ascend-stand-in.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
                _build(package, Path(scratch) / "built")
                os.replace(Path(scratch) / "built", folder)
    return folder


def _build(package: Path, folder: Path) -> None:
    for name, text in _VERSION_FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    library = folder / _LIBRARY
    library.parent.mkdir()
    compiled, aliases = folder / "stand_in.o", folder / "aliases.ld"
    _run("g++", "-D_GLIBCXX_USE_CXX11_ABI=0", "-O1", "-fPIC", "-c", _SOURCE, "-o", compiled)

    plugins = [path for path in _plugin_libraries(package) if "X86-64" in _run("readelf", "-h", path)]
    shipped = [*package.glob("*.so"), *(package / "lib").glob("*.so*"), *plugins]
    needed = set(re.findall(r"\(NEEDED\).*\[(.*)\]", _run("readelf", "-d", *plugins)))
    system = _system_libraries(needed | set(_OPENED))
    missing = (needed | set(_OPENED)) - system.keys() - {path.name for path in shipped}

    wanted = _undefined_symbols(plugins) - _defined_symbols([*shipped, *system.values()], "-D")
    wanted = (wanted | _looked_up(plugins)) - _defined_symbols([compiled])
    aliases.write_text("".join(f"{name} = {_alias(name)};\n" for name in sorted(wanted)))
    _run("g++", "-shared", "-o", library, compiled, aliases)
    for name in missing:
        (library.parent / name).symlink_to(library.name)


def _alias(name: str) -> str:
    """Which symbol of stand_in.cc serves for this one, as its mangled name tells."""
    if name.startswith(("_ZTV", "_ZTI", "_ZTS")):
        return "stand_in_table"
    if re.search("C[12]E", name) and name.startswith("_ZN") and "Register" not in name:
        return "stand_in_construct"
    return "stand_in_instance" if "Instance" in name else "stand_in_zero"


def _plugin_libraries(package: Path) -> list[Path]:
    """Those of custom operators stay away, as they do where CANN lacks what they need."""
    folder = package / "lib/plugin"
    ascend = [*(folder / "ascend").glob("*.so"), *(folder / "ascend").glob("ms_kernels*/**/*.so")]
    return [*ascend, *folder.glob("libmindspore*ascend.so*"), package / "lib/libmindspore_ge_backend.so"]


def _system_libraries(names: set[str]) -> dict[str, Path]:
    """Those of the libraries that this machine has."""
    with ThreadPoolExecutor(4) as pool:  # g++ answers the bare name when it finds no such file
        found = pool.map(lambda name: _run("g++", f"-print-file-name={name}").strip(), names)
        return {name: Path(path) for name, path in zip(names, found, strict=True) if path != name}


def _undefined_symbols(libraries: list[Path]) -> set[str]:
    """Without weak ones, and without the interpreter's."""
    lines = [line.split() for line in _run("nm", "-D", "--undefined-only", *libraries).splitlines()]
    symbols = {line[1].split("@")[0] for line in lines if len(line) == 2 and line[0] == "U"}
    return {name for name in symbols if not name.startswith(("Py", "_Py"))}


def _defined_symbols(libraries: list[Path], *options: str) -> set[str]:
    lines = [line.split() for line in _run("nm", *options, "--defined-only", *libraries).splitlines()]
    return {line[2].split("@")[0] for line in lines if len(line) == 3}


def _looked_up(libraries: list[Path]) -> set[str]:
    return {name.decode() for path in libraries for name in _LOOKED_UP.findall(path.read_bytes())}


def _run(*command: str | Path) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, errors="replace")
    if done.returncode != 0 and command[0] == "g++":
        raise RuntimeError(f"the stand-in for CANN does not build: {done.stderr.strip()}")
    return done.stdout
