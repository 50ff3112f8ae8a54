"""Rank tables for tests."""

from typing import Any


def table_json(*servers: tuple[str, list[tuple[int, str, int]]]) -> dict[str, Any]:
    """A rank table of servers, each with its (device_id, device_ip, rank_id)."""
    return {
        "version": "1.0",
        "server_count": str(len(servers)),
        "server_list": [
            {
                "server_id": server_id,
                "device": [
                    {"device_id": str(device), "device_ip": address, "rank_id": str(rank)}
                    for device, address, rank in devices
                ],
                "host_nic_ip": "reserve",
            }
            for server_id, devices in servers
        ],
        "status": "completed",
    }


def loopback_json(num_devices: int, server_id: str = "127.0.0.1") -> dict[str, Any]:
    return table_json((server_id, [(device, f"127.0.0.{device + 1}", device) for device in range(num_devices)]))
