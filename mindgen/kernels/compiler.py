"""The C++ compiler that this machine has."""

import shutil


def find_compiler() -> str | None:
    return shutil.which("g++") or shutil.which("clang++")
