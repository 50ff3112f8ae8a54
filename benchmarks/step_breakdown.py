"""Where a step's time outside kernels goes, by part."""

import statistics
from collections.abc import Sequence
from typing import Any

from step_times import PARTS

from mindgen.runner.profiling import Profile

_OUTSIDE = [{"network": "between kernels"}.get(part, part) for part in PARTS]


def outside_kernels(profile: Profile, kind: str, steps: Sequence[dict[str, float]]) -> list[dict[str, float]]:
    """Of each step of a kind, seconds by part: those of StepTimes, where the network's lie between its kernels.

    Args:
        steps: of StepTimes, the same as the profile's.
    """
    busy_times, recording_times = profile.busy_times(), profile.recording_times()
    rows = []
    for step, parts, busy, recording in zip(profile.steps, steps, busy_times, recording_times, strict=True):
        if step.kind != kind:
            continue
        row = {"between kernels" if part == "network" else part: seconds for part, seconds in parts.items()}
        row["between kernels"] -= busy / 1e9
        row["all"] = sum(row[part] for part in _OUTSIDE)
        row["all but the sampling kernel"] = row["all"] - row["sampling kernel"]
        row["recording, not counted"] = recording / 1e9
        rows.append(row)
    return rows[:-1] if len(rows) > 1 else rows  # requests end in the last


def summarize(
    rows: Sequence[dict[str, float]], profiled_seconds: Sequence[float], plain_seconds: Sequence[float]
) -> dict[str, Any]:
    """Medians in microseconds, and what the profile adds to a step: median, lowest and highest of the turns."""
    summary: dict[str, Any] = {part: statistics.median(row[part] for row in rows) * 1e6 for part in rows[0]}
    added = sorted((profiled - plain) * 1e6 for profiled, plain in zip(profiled_seconds, plain_seconds, strict=True))
    summary["step with the profile less one without"] = statistics.median(added)
    summary["lowest"], summary["highest"] = added[0], added[-1]
    return summary


def print_breakdown(summaries: dict[str, dict[str, Any]]) -> None:
    print(f"\n{'outside kernels, microseconds':42}" + "".join(f"{name:>18}" for name in summaries))
    for part in next(iter(summaries.values())):
        print(f"{part:42}" + "".join(f"{summary[part]:18.0f}" for summary in summaries.values()))
