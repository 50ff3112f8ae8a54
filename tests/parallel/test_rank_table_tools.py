"""tools/hccl_tools.py and tools/merge_hccl.py as they are called, with a hccn_tool that is not Ascend's."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mindgen.errors import RankTableError, UsageError
from mindgen.parallel.launch.machine import ascend_addresses, ascend_devices, is_own_address
from mindgen.parallel.launch.make_rank_table import make_rank_table
from mindgen.parallel.launch.rank_table import read_rank_table

TOOLS = Path(__file__).parents[2] / "tools"


def run_tool(name: str, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TOOLS / f"{name}.py"), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60)


@pytest.fixture
def hccn_tool(tmp_path, monkeypatch):
    """Puts a hccn_tool on PATH that knows devices 0 to 7; without it PATH has none."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def install(script: str = 'echo "ipaddr:10.20.0.$((100 + $2))"; echo "netmask:255.255.0.0"') -> None:
        file = folder / "hccn_tool"
        file.write_text(f'#!/bin/sh\n[ "$1 $3 $4" = "-i -ip -g" ] || exit 9\n{script}\n')
        file.chmod(0o755)

    return install


def test_addresses_come_from_hccn_tool(tmp_path, hccn_tool):
    hccn_tool()
    result = run_tool("hccl_tools", "--device_num", "[0,8)", "--server_ip", "10.9.8.7", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "hccl_8p_01234567_10.9.8.7.json\n" and result.stderr == ""
    raw = json.loads((tmp_path / "hccl_8p_01234567_10.9.8.7.json").read_text())
    assert raw == {
        "version": "1.0",
        "server_count": "1",
        "server_list": [
            {
                "server_id": "10.9.8.7",
                "device": [
                    {"device_id": str(n), "device_ip": f"10.20.0.{100 + n}", "rank_id": str(n)} for n in range(8)
                ],
                "host_nic_ip": "reserve",
            }
        ],
        "status": "completed",
    }


def test_visible_devices_are_what_the_range_counts(hccn_tool, tmp_path):
    hccn_tool()
    made = make_rank_table(range(1, 3), [4, 5, 7], "10.9.8.7", "Ascend")
    assert made.file_name == "hccl_2p_12_10.9.8.7.json"
    assert [(d.device_id, d.device_ip, d.rank_id) for d in made.table.servers[0].devices] == [
        (5, "10.20.0.105", 0),
        (7, "10.20.0.107", 1),
    ]
    with pytest.raises(UsageError, match=r"ends at 4, and there are 3 visible devices.*\[0,3\) is all of them"):
        make_rank_table(range(0, 4), [4, 5, 7], "10.9.8.7", "Ascend")


def test_hccn_conf_helps_where_the_tool_does_not(tmp_path, hccn_tool):
    conf = tmp_path / "hccn.conf"
    conf.write_text("# ports\naddress_0=192.168.100.101\nnetmask_0=255.255.255.0\naddress_1 = 192.168.100.102\n")
    for script in (None, "echo 'Command execute failed!'; exit 1", "exit 0"):
        if script:
            hccn_tool(script)
        assert ascend_addresses([0, 1], conf) == {0: "192.168.100.101", 1: "192.168.100.102"}
        with pytest.raises(RankTableError, match=r"for device 2: .*, and .*hccn\.conf has no address_2"):
            ascend_addresses([1, 2], conf)
    with pytest.raises(RankTableError, match="hccn_tool says 'nothing' of device 0, and .*none is not there"):
        ascend_addresses([0], tmp_path / "none")


def test_an_address_that_is_none_is_refused(hccn_tool):
    hccn_tool("echo ipaddr:unknown")
    with pytest.raises(RankTableError, match="device_ip of device 0 .* is no IP address: 'unknown'"):
        make_rank_table(range(1), None, "10.9.8.7", "Ascend")


def test_a_cpu_has_loopback_entries_and_auto_says_so(tmp_path):
    arguments = ("--device_num", "[0,2)", "--server_ip", "127.0.0.1", "--hccn_conf", tmp_path / "none")
    result = run_tool("hccl_tools", *arguments, "--device_target", "CPU", cwd=tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (0, "hccl_2p_01_127.0.0.1.json\n", "")
    table = read_rank_table(tmp_path / "hccl_2p_01_127.0.0.1.json")
    assert [device.device_ip for device in table.servers[0].devices] == ["127.0.0.1", "127.0.0.2"]
    (tmp_path / "sub").mkdir()
    result = run_tool("hccl_tools", *arguments, "--output_dir", "sub", cwd=tmp_path)
    assert result.returncode == 0 and "loopback addresses, for a CPU" in result.stderr
    assert read_rank_table(tmp_path / "sub" / "hccl_2p_01_127.0.0.1.json") == table
    result = run_tool("hccl_tools", *arguments, "--device_target", "Ascend", cwd=tmp_path)
    assert result.returncode == 1 and "use --device_target CPU" in result.stderr and result.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device_num", "[0,8]"], "write [0,8) for devices 0 to 7, or [0,9) for 0 to 8"),
        (["--device_num", "[0,9)"], "goes beyond the 8 devices of a machine"),
        (["--device_num", "[4,4)"], "is empty: its end must be above 4"),
        (["--device_num", "[5,4)"], "is empty"),
        (["--device_num", "8"], "expected a device range like [0,8)"),
        (["--device_num", "[a,8)"], "expected a device range like [0,8)"),
        (["--device_num", "[0,8) [2,3)"], "expected a device range like [0,8)"),
        (["--device_num", "[-1,8)"], "expected a device range like [0,8)"),
        (["--visible_devices", "0,1,1"], "devices '0,1,1': 1 is there twice"),
        (["--visible_devices", "0,,1"], "expected devices like 0,1,2"),
        (["--server_ip", "server", "--device_target", "CPU"], "server_ip 'server' is no IP address"),
    ],
)
def test_refused(tmp_path, arguments, message):
    result = run_tool("hccl_tools", *arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert message in result.stderr and result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_merge(tmp_path):
    for address in ("10.0.0.1", "10.0.0.2"):
        run_tool("hccl_tools", "--device_target", "CPU", "--server_ip", address, cwd=tmp_path)
    names = ["hccl_8p_01234567_10.0.0.2.json", "hccl_8p_01234567_10.0.0.1.json"]
    result = run_tool("merge_hccl", *names, cwd=tmp_path)
    assert (result.returncode, result.stdout) == (0, "hccl_2s_16p.json\n"), result.stderr
    table = read_rank_table(tmp_path / "hccl_2s_16p.json")
    assert [server.server_id for server in table.servers] == ["10.0.0.2", "10.0.0.1"]
    assert [device.rank_id for device in table.servers[1].devices] == list(range(8, 16))
    result = run_tool("merge_hccl", names[0], names[0], cwd=tmp_path)
    assert result.returncode == 1 and result.stderr == "merge_hccl: error: server 10.0.0.2 is there twice\n"
    result = run_tool("merge_hccl", names[0], "none.json", cwd=tmp_path)
    assert result.returncode == 1 and "cannot read none.json" in result.stderr
    result = run_tool("merge_hccl", *names, "--output_dir", "none", cwd=tmp_path)
    assert result.stderr == "merge_hccl: error: cannot write none/hccl_2s_16p.json: No such file or directory\n"


def test_what_the_machine_has(tmp_path):
    for name in ("davinci1", "davinci0", "davinci_manager", "null"):
        (tmp_path / name).touch()
    assert ascend_devices(tmp_path) == [0, 1]
    assert is_own_address("127.0.0.1")
    assert not is_own_address("203.0.113.1") and not is_own_address("localhost")
