"""Draws what slora.py has measured: the share of the base model's throughput over the number of registered adapters.

python benchmarks/slora_plot.py [output/benchmarks/slora.json ...] [--output docs/slora.png]
"""

import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, nargs="*", default=[Path("output/benchmarks/slora.json")])
    parser.add_argument("--output", type=Path, default=Path("docs/slora.png"))
    arguments = parser.parse_args()
    rows = [row for path in arguments.results for row in json.loads(path.read_text())]
    figure, axes = plt.subplots(figsize=(6.4, 4))
    lines: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for row in rows:
        lines.setdefault((row["ranks"], row["popularity"]), []).append((row["registered"], row["of_base"]))
    for (ranks, popularity), points in lines.items():
        label = popularity if ranks == "8" else f"{popularity}, ranks 8 to 64"
        axes.plot(*zip(*sorted(points), strict=True), "o-" if ranks == "8" else "s--", label=label)
    axes.axhline(1, color="gray", linewidth=0.8)
    axes.set(xscale="log", ylim=(0, 1.1), xlabel="registered adapters", ylabel="tokens/s, of the base model alone")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left")
    figure.tight_layout()
    figure.savefig(arguments.output, dpi=100)


if __name__ == "__main__":
    main()
