"""Joins what runs of slora.py have measured: a table of shares of the base model's throughput, and a plot of them.

python benchmarks/slora_plot.py [output/benchmarks/slora.json ...] [--output docs/slora.png]
"""

import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt

POPULARITIES = ("zipf", "uniform", "distinct")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, nargs="*", default=[Path("output/benchmarks/slora.json")])
    parser.add_argument("--output", type=Path, default=Path("docs/slora.png"))
    arguments = parser.parse_args()
    rows = [row for path in arguments.results for row in json.loads(path.read_text())]
    for ranks in dict.fromkeys(row["ranks"] for row in rows):
        print(f"ranks {ranks}\n\n{table([row for row in rows if row['ranks'] == ranks])}\n")
    draw(rows, arguments.output)


def table(rows: list[dict]) -> str:
    """In Markdown: the share, its limit in brackets, and the median time to the first token."""
    found = {(row["registered"], row["popularity"]): row for row in rows}
    found |= {(1, name): row for row in rows if row["registered"] == 1 for name in POPULARITIES}
    lines = [f"| registered | {' | '.join(POPULARITIES)} |", "|---" * (len(POPULARITIES) + 1) + "|"]
    for registered in sorted({row["registered"] for row in rows}):
        cells = [cell(found.get((registered, name))) for name in POPULARITIES]
        lines.append(f"| {registered:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(row: dict | None) -> str:
    return "" if row is None else f"{row['of_base']:.2f} ({row['limit']:.2f}), {row['first_ms'] / 1e3:.1f} s"


def draw(rows: list[dict], output: Path) -> None:
    figure, axes = plt.subplots(figsize=(6.4, 4))
    for ranks, style in (("8", "o-"), ("mixed", "s--")):
        for color, popularity in enumerate(POPULARITIES):
            points = [row for row in rows if row["ranks"] == ranks and row["popularity"] in (popularity, "identical")]
            points = sorted((row["registered"], row["of_base"], row["limit"]) for row in points)
            if not points:
                continue
            registered, shares, limits = zip(*points, strict=True)
            label = popularity if ranks == "8" else f"{popularity}, ranks 8 to 64"
            axes.plot(registered, shares, style, color=f"C{color}", label=label)
            axes.plot(registered, limits, ":", color=f"C{color}", linewidth=1)
    axes.plot([], [], ":", color="gray", label="limit by bytes read")
    axes.axhline(1, color="gray", linewidth=0.8)
    axes.set(xscale="log", ylim=(0, 1.1), xlabel="registered adapters", ylabel="tokens/s, of the base model alone")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left", fontsize="small")
    figure.tight_layout()
    figure.savefig(output, dpi=100)


if __name__ == "__main__":
    main()
