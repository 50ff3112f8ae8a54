"""Whether a rank table is of this machine as it is now."""

from collections.abc import Sequence
from typing import NamedTuple

from mindgen.errors import RankTableError
from mindgen.parallel.launch.machine import ascend_addresses, is_own_address
from mindgen.parallel.launch.rank_table import Server


class TableCheck(NamedTuple):
    """What is not as the table says, or empty.

    Attributes:
        wrong: with this the ranks would wait for each other in vain.
        doubtful: in a container it may be in order.
    """

    wrong: str
    doubtful: str


def check_server(server: Server, there: Sequence[int]) -> TableCheck:
    """The server that is to be this machine, against its addresses and the NPUs that are there."""
    missing = [device.device_id for device in server.devices if device.device_id not in there]
    if there and missing:
        return TableCheck("", f"there is no /dev/davinci{missing[0]}")
    if there:
        try:
            now = ascend_addresses([device.device_id for device in server.devices])
        except RankTableError as error:
            return TableCheck("", str(error))
        for device_id, address in ((device.device_id, device.device_ip) for device in server.devices):
            if address != now[device_id]:
                return TableCheck(f"device {device_id} has the address {now[device_id]}, not {address}", "")
    if not is_own_address(server.server_id):
        return TableCheck("", f"{server.server_id} is not this machine's address")
    return TableCheck("", "")
