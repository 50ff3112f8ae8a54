"""docs/rlhf_module.md says what is there, and its program runs."""

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

from mindgen.rlhf.module_keys import MODULE_KEYS

PAGE = Path(__file__).parents[2] / "docs" / "rlhf_module.md"


def keys_text() -> str:
    lines = ["| key | sets | |", "|---|---|---|"]
    for key in MODULE_KEYS:
        if key.effect in ("sampling", "engine", "module"):
            target = f"`engine.{key.target or key.name}`" if key.effect == "engine" else ""
            lines.append(f"| `{key.name}` | {target} | {key.note} |")
    lines += ["", "Refused, unless the value asks for nothing:", "", "| key | may be | |", "|---|---|---|"]
    for key in MODULE_KEYS:
        if key.effect == "refused":
            lines.append(f"| `{key.name}` | {', '.join(str(value) for value in key.allowed)} | {key.note} |")
    lines += ["", "Of no effect, and named on standard error when they are given:", "", "| | keys |", "|---|---|"]
    names = defaultdict(list)
    for key in MODULE_KEYS:
        if key.effect == "ignored":
            names[key.note].append(f"`{key.name}`")
    return "\n".join([*lines, *(f"| {note} | {', '.join(keys)} |" for note, keys in names.items())])


def test_the_tables_of_keys_are_those_of_the_code():
    (found,) = re.findall(r"says what stands here -->\n(.*?)<!-- end of keys", PAGE.read_text(), re.DOTALL)
    assert found.strip() == keys_text(), f"it should be:\n{keys_text()}"


def test_the_program_runs():
    (program,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("(2, 64) (2, 63) [' two, three, four,"), done.stdout
