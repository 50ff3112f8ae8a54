"""How people write down devices: "[0,8)", "[0,8]" where a document means the same, "0,1,2"."""

import re

from mindgen.errors import UsageError

_MOST = 4096


def half_open_range(text: str) -> range:
    """The devices of "[0,8)", which are 0 to 7.

    Raises:
        UsageError: it is no such interval, or an empty one; for "[0,8]" the message says how to write it.
    """
    first, end, bracket = _parse(text)
    if bracket == "]":
        raise UsageError(
            f"device range {text!r}: the end is not part of it, so write [{first},{end}) for devices {first} to "
            f"{end - 1}, or [{first},{end + 1}) for {first} to {end}"
        )
    return range(first, end)


def launch_range(text: str) -> range:
    """The devices of "[0,8]" as run_dist_gen.sh takes it, 0 included and 8 not; "[0,8)" says the same.

    Raises:
        UsageError: it is no such interval, or an empty one.
    """
    first, end, _ = _parse(text)
    return range(first, end)


def parse_devices(text: str) -> list[int]:
    """The devices of "4,5,6,7".

    Raises:
        UsageError: it is no such list, or a device is there twice.
    """
    if not re.fullmatch(r"\s*\d{1,4}\s*(,\s*\d{1,4}\s*)*", text, re.ASCII):
        raise UsageError(f"expected devices like 0,1,2, not {text!r}")
    devices = [int(word) for word in text.split(",")]
    repeated = sorted({device for device in devices if devices.count(device) > 1})
    if repeated:
        raise UsageError(f"devices {text!r}: {', '.join(map(str, repeated))} is there twice")
    return devices


def _parse(text: str) -> tuple[int, int, str]:
    match = re.fullmatch(r"\s*\[\s*(\d{1,4})\s*,\s*(\d{1,4})\s*([\])])\s*", text, re.ASCII)
    if match is None:
        raise UsageError(f"expected a device range like [0,8), which is devices 0 to 7, not {text!r}")
    first, end = int(match[1]), int(match[2])
    if first >= end:
        raise UsageError(f"device range {text!r} is empty: its end must be above {first}")
    if end > _MOST:
        raise UsageError(f"device range {text!r} goes beyond {_MOST}")
    return first, end, match[3]
