"""Writes the rank table of this machine: python tools/hccl_tools.py --device_num "[0,8)"

The file is hccl_8p_01234567_<ip>.json in the current folder. Addresses of NPUs come from hccn_tool, or /etc/hccn.conf.
"""

import argparse
import sys
from pathlib import Path

from mindgen.errors import MindgenError, UsageError
from mindgen.parallel.launch.device_range import half_open_range, parse_devices
from mindgen.parallel.launch.machine import HCCN_CONF
from mindgen.parallel.launch.make_rank_table import DEVICE_TARGETS, make_rank_table
from mindgen.parallel.launch.rank_table import write_rank_table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--device_num", default="[0,8)", metavar="RANGE", help="the devices, the last one excluded (default: [0,8))")
    add("--visible_devices", metavar="LIST", help="like 4,5,6,7: the devices that --device_num counts")
    add("--server_ip", metavar="IP", help="this machine's address (default: what its name resolves to)")
    add("--device_num_per_node", type=int, default=8, metavar="N", help="how many devices there are (default: 8)")
    add("--device_target", choices=DEVICE_TARGETS, default="auto", help="CPU writes loopback addresses")
    add("--output_dir", type=Path, default=Path(), metavar="DIR", help="default: the current folder")
    add("--hccn_conf", type=Path, default=HCCN_CONF, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    try:
        devices = half_open_range(arguments.device_num)
        if devices.stop > arguments.device_num_per_node:
            raise UsageError(
                f"device range {arguments.device_num!r} goes beyond the {arguments.device_num_per_node} devices of a "
                "machine; --device_num_per_node says how many there are"
            )
        visible = parse_devices(arguments.visible_devices) if arguments.visible_devices else None
        made = make_rank_table(devices, visible, arguments.server_ip, arguments.device_target, arguments.hccn_conf)
        path = arguments.output_dir / made.file_name
        write_rank_table(made.table, path)
    except MindgenError as error:
        print(f"hccl_tools: error: {error}", file=sys.stderr)
        return error.exit_code
    if made.note:
        print(f"hccl_tools: {made.note}", file=sys.stderr)
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
