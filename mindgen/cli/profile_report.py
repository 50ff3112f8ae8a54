"""What --profile prints: a table of the kernels, against the machine's limits."""

import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mindgen.runner.profiling import Profile

_WIDTH = 110  # where there is no terminal to ask


def report_profile(profile: Profile, trace: Path) -> None:
    """Writes the trace and prints the table on standard error."""
    profile.write_trace(trace)
    console = Console(file=sys.stderr, width=None if sys.stderr.isatty() else _WIDTH, soft_wrap=True)
    if not profile.calls:
        console.print("no kernel calls to show: MindSpore's runtime ran the network, which keeps no record of them")
        return
    limits = profile.measure_limits()
    for kind in ("prompt", "decode"):
        steps = [step for step in profile.steps if step.kind == kind]
        if not steps:
            continue
        table = Table(title=f"{len(steps)} {kind} step(s)", title_justify="left")
        table.add_column("kernel", no_wrap=True)
        for name in ("calls", "ms", "share of time", "GB/s", "GFLOP/s", "share of limit"):
            table.add_column(name, justify="right")
        wall = sum(step.end - step.start for step in steps) / 1e9
        for group in profile.summarize(limits):
            if group.kind == kind:
                table.add_row(
                    group.group, str(group.num_calls), f"{group.seconds * 1e3:.2f}", f"{group.seconds / wall:.1%}",
                    f"{group.gigabytes_per_second:.1f}", f"{group.gigaflops:.0f}", f"{group.share_of_limit:.2f}",
                )  # fmt: skip
        console.print(table)
        console.print(f"outside kernels: {profile.outside_kernels(kind) * 1e3:.2f} ms in the median {kind} step")
    console.print(
        f"limits of this machine: {limits.read_bandwidth / 1e9:.1f} GB/s read, {limits.product_rate / 1e9:.0f} GFLOP/s"
        f"\ntrace: {trace}"
    )
