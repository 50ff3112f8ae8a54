"""The tables of `mindgen adapters`."""

import re
from pathlib import Path

from mindgen.adapters.formats.peft import Adapter, LoraUpdate
from mindgen.adapters.loader import unservable
from mindgen.adapters.tools.compare import compare_adapters
from mindgen.cli.tables import make_console, make_table
from mindgen.errors import AdapterError

_DIGEST_DIGITS = 12
_FORMATS = {
    "adapter_model.safetensors": "PEFT",
    "adapter_model.bin": "PEFT .bin",
    "adapter_model.ckpt": "MindFormers",
}


def print_list(folders: dict[str, Path], adapters: dict[str, Adapter | AdapterError]) -> None:
    """One line for each adapter, or what is wrong with it."""
    table = make_table("name", "format", "rank", "modules", "MB", "digest", "served")
    for name, adapter in adapters.items():
        if isinstance(adapter, AdapterError):
            table.add_row(name, "-", "-", "-", "-", "-", f"no: {adapter}")
            continue
        ranks = ",".join(str(rank) for rank in adapter.ranks())
        table.add_row(
            name, _FORMATS[adapter.weights_file], ranks, _modules(adapter), f"{adapter.size() / 1e6:.2f}",
            adapter.digest[:_DIGEST_DIGITS], _served(unservable(adapter)),
        )  # fmt: skip
    make_console().print(table)


def print_adapter(adapter: Adapter) -> None:
    """Everything that the record says, modules of one kind together."""
    config = adapter.config
    facts = make_table("", "")
    for key, value in {
        "folder": adapter.folder,
        "format": f"{_FORMATS[adapter.weights_file]} ({adapter.weights_file})",
        "digest": adapter.digest,
        "size": f"{adapter.size() / 1e6:.2f} MB",
        "r, alpha": f"{config.rank}, {config.alpha}" + (", rsLoRA" if config.use_rslora else ""),
        "target_modules": config.target_modules,
        "DoRA": "yes" if config.use_dora else "no",
        "whole parameters": ", ".join((*adapter.base_weights, *adapter.saved_modules)) or "none",
        "new tokens": len(adapter.added_tokens),
        "served in a batch": _served(unservable(adapter)),
    }.items():
        facts.add_row(key, str(value))
    modules = make_table("module", "layers", "r", "scaling", "A", "B", "dtype")
    groups: dict[tuple[str, ...], int] = {}
    for module, update in adapter.updates.items():
        row = (
            re.sub(r"\.\d+\.", ".*.", module), str(update.rank), f"{update.scaling:.6g}", str(update.a.shape),
            str(update.b.shape), update.a.dtype,
        )  # fmt: skip
        groups[row] = groups.get(row, 0) + 1
    for (name, *rest), count in groups.items():
        modules.add_row(name, str(count), *rest)
    console = make_console()
    console.print(facts)
    console.print(modules)


def print_problems(adapter: Adapter, problems: list[str], refusal: str | None) -> None:
    """What does not fit, or that all does; and why no batch can have the adapter, if so."""
    table = make_table("", "problem")
    for number, problem in enumerate(problems, start=1):
        table.add_row(str(number), problem)
    console = make_console()
    if problems:
        console.print(table)
    else:
        console.print(f"{len(adapter.updates)} modules fit the model; digest {adapter.digest[:_DIGEST_DIGITS]}")
    console.print(f"served in a batch: {'yes' if refusal is None else f'no: {refusal}'}")


def print_differences(first: Adapter, second: Adapter) -> None:
    """The modules that differ, and by how much."""
    console = make_console()
    if first.digest == second.digest:
        console.print(f"the same: digest {first.digest[:_DIGEST_DIGITS]}")
        return
    table = make_table("module", "r", "scaling", "relative difference")
    equal = 0
    for difference in compare_adapters(first, second):
        if difference.relative == 0.0:
            equal += 1
            continue
        one, other = difference.first, difference.second
        missing = "only in the second" if one is None else "only in the first" if other is None else "other sizes"
        relative = missing if difference.relative is None else f"{difference.relative:.3g}"
        table.add_row(difference.module, _both(one, other, "rank"), _both(one, other, "scaling"), relative)
    if table.row_count:
        console.print(table)
    whole = [
        name
        for kind in ("base_weights", "saved_modules", "extra_rows")
        for name in sorted(getattr(first, kind).keys() | getattr(second, kind).keys())
    ]
    console.print(
        f"{equal} modules compute the same, {table.row_count} differ"
        + (f"; not compared: {', '.join(whole)}" if whole else "")
    )


def _both(first: LoraUpdate | None, second: LoraUpdate | None, field: str) -> str:
    values = ["-" if update is None else f"{getattr(update, field):.6g}" for update in (first, second)]
    return values[0] if values[0] == values[1] else " / ".join(values)


def _served(reasons: list[str]) -> str:
    return f"no: {' and '.join(reasons)}; merge it" if reasons else "yes"


def _modules(adapter: Adapter) -> str:
    kinds = list(dict.fromkeys(module.rsplit(".", 1)[-1] for module in adapter.updates))
    return f"{len(adapter.updates)}: {', '.join(kinds)}"
