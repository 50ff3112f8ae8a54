"""docs/batch.md says what is there."""

import re
import shlex
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from mindgen.batch.settings import BatchSettings
from mindgen.batch.verl_keys import VERL_KEYS
from mindgen.settings import setting_keys

OWN_KEYS = setting_keys(BatchSettings)
PAGE = Path(__file__).parents[2] / "docs" / "batch.md"


def keys_text() -> str:
    """The tables of veRL's keys."""
    lines = ["| key | sets | |", "|---|---|---|"]
    for row in VERL_KEYS:
        if row.effect == "honoured":
            target = f"`{row.target}`" if row.target in OWN_KEYS else ""
            lines.append(f"| `{row.name}` | {target} | {row.note} |")
    lines += ["", "Refused, unless the value asks for nothing:", "", "| key | may be | |", "|---|---|---|"]
    for row in VERL_KEYS:
        if row.effect == "refused":
            values = ", ".join("null" if value is None else str(value) for value in row.allowed)
            lines.append(f"| `{row.name}` | {values} | {row.note} |")
    lines += ["", "Of no effect, and named on standard error when they are given:", "", "| | keys |", "|---|---|"]
    names = defaultdict(list)
    for row in VERL_KEYS:
        if row.effect == "ignored":
            names[row.note].append(f"`{row.name}`" + (f" ({', '.join(row.allowed)})" if row.allowed else ""))
    return "\n".join([*lines, *(f"| {note} | {', '.join(keys)} |" for note, keys in names.items())])


def test_the_tables_of_keys_are_those_of_the_code():
    (found,) = re.findall(r"says what stands here -->\n(.*?)\n<!-- end of keys", PAGE.read_text(), re.DOTALL)
    assert found.strip() == keys_text(), f"it should be:\n{keys_text()}"


def test_the_table_of_settings_names_all_of_them():
    page = PAGE.read_text()
    sections = ("model", "engine", "generation")
    others = {"use_parallel", "on_missing_adapter", "load_checkpoint", "auto_trans_ckpt", "src_strategy_path_or_dir"}
    for key in OWN_KEYS:
        if key.partition(".")[0] not in sections and key not in {*others, "columns", "prompts", "outputs"}:
            assert f"`{key}`" in page, key


def commands() -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return [block for block in blocks if "mindgen" in block]


def run_in(folder: Path, blocks: list[str]) -> str:
    """What the commands print, with this Python's programs first."""
    script = "\n".join([f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH", *blocks])
    done = subprocess.run(["bash", "-ec", script], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_first_commands_of_the_page_run_as_they_stand(tmp_path):
    out = run_in(tmp_path, commands()[:2])
    assert "2 of 2 (100.0%)" in out
    assert len((tmp_path / "answers.jsonl").read_text().splitlines()) == 2
    assert len((tmp_path / "samples.jsonl").read_text().splitlines()) == 4


@pytest.mark.slow
def test_all_commands_of_the_page_run_as_they_stand(tmp_path):
    run_in(tmp_path, commands())
    assert len((tmp_path / "final.jsonl").read_text().splitlines()) == 10
