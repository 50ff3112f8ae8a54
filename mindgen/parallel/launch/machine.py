"""What this machine has: NPUs, the addresses of their network ports, addresses of its own, free ports."""

import contextlib
import ipaddress
import re
import shutil
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

from mindgen.errors import RankTableError

LOOPBACK = "127.0.0.1"
HCCN_CONF = Path("/etc/hccn.conf")
_TOOL = "hccn_tool"
_TOOL_SECONDS = 20
_DEVICE_FILES = Path("/dev")


def ascend_devices(device_files: Path = _DEVICE_FILES) -> list[int]:
    """The NPUs that this machine, or this container, has."""
    names = (re.fullmatch(r"davinci(\d+)", file.name) for file in device_files.glob("davinci*"))
    return sorted(int(match[1]) for match in names if match)


def ascend_addresses(device_ids: Sequence[int], hccn_conf: Path = HCCN_CONF) -> dict[int, str]:
    """The addresses of these NPUs' network ports, by hccn_tool, or else by hccn.conf.

    Raises:
        RankTableError: neither knows them all; it says what each of them said.
    """
    if shutil.which(_TOOL):
        addresses, said = _ask_tool(device_ids)
    else:
        addresses, said = {}, f"{_TOOL} is not on PATH"
    if len(addresses) == len(device_ids):
        return addresses
    listed = _read_conf(hccn_conf)
    missing = [device_id for device_id in device_ids if device_id not in listed]
    if not missing:
        return {device_id: listed[device_id] for device_id in device_ids}
    wanted = ", ".join(map(str, missing))
    reason = f"has no address_{missing[0]}" if hccn_conf.is_file() else "is not there"
    raise RankTableError(f"no address is known for device {wanted}: {said}, and {hccn_conf} {reason}")


def loopback_addresses(device_ids: Sequence[int]) -> dict[int, str]:
    """For devices that are processes of a CPU: an address each, 127.0.0.1 for device 0."""
    first = ipaddress.IPv4Address(LOOPBACK)
    return {device_id: str(first + device_id) for device_id in device_ids}


def host_address() -> str | None:
    """What this machine's name resolves to, or None."""
    try:
        return socket.gethostbyname(socket.gethostname())
    except OSError:
        return None


def is_own_address(address: str) -> bool:
    """Whether that is an address of this machine; a name is not."""
    try:
        family = socket.AF_INET6 if ipaddress.ip_address(address).version == 6 else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except (OSError, ValueError):
        return False
    return True


def free_ports(count: int) -> list[int]:
    """Different TCP ports of the loopback that nothing listens on now."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind((LOOPBACK, 0))
        return [probe.getsockname()[1] for probe in probes]


def _ask_tool(device_ids: Sequence[int]) -> tuple[dict[int, str], str]:
    """The addresses that hccn_tool knows, and what it said of the first that it does not."""
    addresses: dict[int, str] = {}
    for device_id in device_ids:
        try:
            answer = subprocess.run(
                [_TOOL, "-i", str(device_id), "-ip", "-g"],
                capture_output=True, text=True, errors="replace", timeout=_TOOL_SECONDS, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            return addresses, f"{_TOOL} does not answer ({error})"
        match = re.search(r"^\s*ipaddr\s*:\s*(\S+)", answer.stdout, re.MULTILINE)
        if match is None:
            said = (answer.stdout + answer.stderr).strip().splitlines()
            return addresses, f"{_TOOL} says {said[0] if said else 'nothing'!r} of device {device_id}"
        addresses[device_id] = match[1]
    return addresses, ""


def _read_conf(path: Path) -> dict[int, str]:
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError:
        return {}
    return {int(number): address for number, address in re.findall(r"^\s*address_(\d+)\s*=\s*(\S+)", text, re.M)}
