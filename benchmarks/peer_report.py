"""The results of peers.py as a table, as JSON and as a plot."""

import dataclasses
import json
import statistics
from pathlib import Path

from machine import processor_name
from peer_turns import Contender, Measurement, Plan
from workloads import ModelCosts, Workload

_LIMITS = {"decode": "of read bandwidth", "prefill": "of product peak"}
_COLORS = {"mindgen": "#d1495b"}
_OTHER_COLOR = "#8d99ae"


def write_report(contenders: list[Contender], plan: Plan, output: Path) -> None:
    """Prints the table, and writes output.json and, with matplotlib, output.png."""
    report = {
        "machine": {"processor": processor_name(), "threads": plan.threads, **_machine_limits(contenders)},
        "model": {"folder": plan.folder.name, **dataclasses.asdict(plan.costs)},
        "turns": plan.turns,
        "engines": {contender.name: _describe(contender) for contender in contenders},
        "summary": [row for workload in plan.workloads for row in summarize(workload, contenders, plan.costs)],
        "measurements": [
            {"engine": contender.name, **dataclasses.asdict(measurement)}
            for contender in contenders
            for measurement in contender.measurements
        ],
    }
    print(format_table(report, plan.workloads))
    json_path = output.with_name(output.name + ".json")
    json_path.write_text(json.dumps(report, indent=2) + "\n")
    print(f"\nwritten to {json_path}{_plot(report, plan.workloads, output.with_name(output.name + '.png'))}")


def summarize(workload: Workload, contenders: list[Contender], costs: ModelCosts) -> list[dict]:
    """Medians and extremes of each contender that ran the workload; ratios are those of each turn.

    ratio_at_limit is what the ratio would be if mindgen reached the machine's limit.
    """
    own = next((_by_turn(contender, workload) for contender in contenders if contender.name == "mindgen"), {})
    rows = []
    for contender in contenders:
        measured = _by_turn(contender, workload)
        if not measured:
            continue
        rates = [measurement.tokens_per_second for measurement in measured.values()]
        row = {"workload": workload.name, "engine": contender.name, "turns": len(rates), **_spread(rates, "")}
        shares = [share for m in measured.values() if (share := _share(workload, m, costs)) is not None]
        row |= _spread(shares, "share_")
        row["other_cores"] = statistics.median(m.other_cores for m in measured.values())
        if contender.name != "mindgen":
            pairs = [(own[turn], measured[turn]) for turn in measured if turn in own]
            ratios = [ours.tokens_per_second / theirs.tokens_per_second for ours, theirs in pairs]
            row |= _spread(ratios, "ratio_")
            own_shares = [_share(workload, ours, costs) for ours, _ in pairs]
            limits = [ratio / share for ratio, share in zip(ratios, own_shares, strict=True) if share]
            row |= _spread(limits, "ratio_at_limit_")
            same = [
                a == b for ours, theirs in pairs for a, b in zip(ours.first_tokens, theirs.first_tokens, strict=True)
            ]
            row |= {"same_first_tokens": sum(same), "first_tokens": len(same)}
        rows.append(row)
    return rows


def _by_turn(contender: Contender, workload: Workload) -> dict[int, Measurement]:
    return {m.turn: m for m in contender.measurements if m.workload == workload.name}


def _spread(values: list[float], prefix: str) -> dict[str, float]:
    if not values:
        return {}
    return {
        f"{prefix}median": statistics.median(values),
        f"{prefix}minimum": min(values),
        f"{prefix}maximum": max(values),
    }


def _share(workload: Workload, measurement: Measurement, costs: ModelCosts) -> float | None:
    """How much of the machine's limit was reached, where one resource clearly is the limit."""
    limits = measurement.limits
    if workload.rate == "decode":
        return measurement.tokens_per_second * costs.weight_bytes / limits.read_bandwidth
    if workload.rate == "prefill":
        return costs.prefill_operations(workload.prompt_len) / measurement.seconds / limits.product_rate
    return None


def _machine_limits(contenders: list[Contender]) -> dict[str, float]:
    limits = [measurement.limits for contender in contenders for measurement in contender.measurements]
    bandwidth = _spread([limit.read_bandwidth for limit in limits], "read_bandwidth_")
    return bandwidth | _spread([limit.product_rate for limit in limits], "product_rate_")


def _describe(contender: Contender) -> dict:
    names = ("absence", "failure", "versions", "precision", "startup_seconds", "peak_memory_bytes")
    return {name: getattr(contender, name) for name in names}


def format_table(report: dict, workloads: list[Workload]) -> str:
    machine = report["machine"]
    lines = [f"{machine['processor']}, {machine['threads']} threads, model {report['model']['folder']}"]
    if "read_bandwidth_median" in machine:
        bandwidth, rate = ([machine[f"{name}_{key}"] for key in ("median", "minimum", "maximum")]
                           for name in ("read_bandwidth", "product_rate"))  # fmt: skip
        lines.append("reads {:.1f} GB/s ({:.1f} to {:.1f})".format(*(value / 1e9 for value in bandwidth)))
        lines.append("bfloat16 products {:.0f} GFLOPS ({:.0f} to {:.0f})".format(*(value / 1e9 for value in rate)))
    lines += ["", f"{'engine':14}{'start to first token':>22}{'peak memory':>14}  versions, precision"]
    lines += [_engine_line(name, engine) for name, engine in report["engines"].items()]
    for workload in workloads:
        rows = [row for row in report["summary"] if row["workload"] == workload.name]
        if rows:
            lines += ["", workload.title, _header(_LIMITS.get(workload.rate, "")), *map(_summary_line, rows)]
    return "\n".join(lines)


def _engine_line(name: str, engine: dict) -> str:
    if engine["absence"]:
        return f"{name:14}absent: {engine['absence']}"
    versions = ", ".join(f"{package} {version}" for package, version in engine["versions"].items())
    startup, memory = engine["startup_seconds"], engine["peak_memory_bytes"]
    cells = f"{f'{startup:.1f} s' if startup else '-':>22}{f'{memory / 2**20:.0f} MiB' if memory else '-':>14}"
    failure = f"; FAILED: {engine['failure']}" if engine["failure"] else ""
    return f"{name:14}{cells}  {versions}; {engine['precision']}{failure}"


def _header(limit: str) -> str:
    columns = f"{'tokens/s':14}{'median':>9}{'min':>9}{'max':>9}{'turns':>7}{'other cores':>13}"
    at_limit = "at the limit" if limit else ""
    return f"{columns}  {'mindgen against it':26}{at_limit:>14}{limit:>20}{'same first tokens':>20}"


def _summary_line(row: dict) -> str:
    rates = "".join(f"{row[key]:9.1f}" for key in ("median", "minimum", "maximum"))
    ratio = at_limit = share = agreement = ""
    if "ratio_median" in row:
        ratio = f"{row['ratio_median']:.2f} x ({row['ratio_minimum']:.2f} to {row['ratio_maximum']:.2f})"
        agreement = f"{row['same_first_tokens']} of {row['first_tokens']}"
    if "ratio_at_limit_median" in row:
        at_limit = f"{row['ratio_at_limit_median']:.2f} x"
    if "share_median" in row:
        share = f"{row['share_median']:.2f}"
    others = f"{row['other_cores']:.2f}"
    start = f"{row['engine']:14}{rates}{row['turns']:7}{others:>13}"
    return f"{start}  {ratio:26}{at_limit:>14}{share:>20}{agreement:>20}".rstrip()


def _plot(report: dict, workloads: list[Workload], path: Path) -> str:
    """What to add to the line that names the files written."""
    try:
        import matplotlib
    except ImportError:
        return "; no plot, as matplotlib is not installed (pip install -e .[bench])"
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, plots = pyplot.subplots(len(workloads), 1, figsize=(9, 2 * len(workloads)), squeeze=False)
    for workload, axes in zip(workloads, plots[:, 0], strict=True):
        _plot_workload(axes, workload, report)
    machine = report["machine"]
    figure.suptitle(f"{machine['processor']}, {machine['threads']} threads, {report['model']['folder']}", fontsize=10)
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
    return f" and {path}"


def _plot_workload(axes, workload: Workload, report: dict) -> None:
    """A bar for each engine's median, a dot for each turn."""
    rows = [row for row in report["summary"] if row["workload"] == workload.name][::-1]
    names = [row["engine"] for row in rows]
    axes.barh(names, [row["median"] for row in rows], color=[_COLORS.get(name, _OTHER_COLOR) for name in names])
    for place, row in enumerate(rows):
        rates = [
            m["tokens_per_second"]
            for m in report["measurements"]
            if (m["engine"], m["workload"]) == (row["engine"], workload.name)
        ]
        axes.plot(rates, [place] * len(rates), "o", color="black", markersize=3)
        notes = [f"{row['median']:.1f}"]
        if "share_median" in row:
            notes.append(f"{row['share_median']:.0%} {_LIMITS[workload.rate]}")
        if "ratio_median" in row:
            notes.append(f"mindgen {row['ratio_median']:.2f} x")
        axes.annotate(
            ", ".join(notes), (max(rates), place), (6, 0), textcoords="offset points", va="center", fontsize=8
        )
    axes.set_title(f"{workload.title}; tokens/s", fontsize=9, loc="left")
    axes.set_xlim(0, max((row["maximum"] for row in rows), default=1) * 1.5)
    axes.spines[["top", "right"]].set_visible(False)
