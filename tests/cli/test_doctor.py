"""mindgen doctor: on this machine nothing fails, and what is wrong is found."""

import json
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from launches import write_table
from tables import loopback_json, table_json

from mindgen.cli import diagnosis as doctor
from mindgen.cli.main import main
from mindgen.kernels import plugin
from mindgen.parallel.launch import table_check


def test_this_machine_is_well(tmp_path, capsys):
    table = tmp_path / write_table(tmp_path, 2)
    assert main(["doctor", "--rank_table", str(table)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith(("ok ", "warning ")) for line in lines)
    subjects = [line[9:23].strip() for line in lines]
    assert subjects == [
        "Python", "MindSpore", "packages", "devices", "CANN", "kernels", "compiler", "memory", "shared memory", "ports",
        "host name", "rank table",
    ]  # fmt: skip
    assert lines[-1] == "ok       rank table     2 ranks on 1 servers, 2 of them here"
    assert any(name in lines[5] for name in ("portable", "avx2", "avx512", "amx"))


def test_what_breaks_is_a_line_and_the_exit_code(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(doctor, "check_mindspore", lambda: doctor.Finding("MindSpore", "ok", ""))
    monkeypatch.setattr(plugin, "library_path", lambda: tmp_path / "none.so")
    (tmp_path / "table.json").write_text("{}")
    assert main(["doctor", "--rank_table", str(tmp_path / "table.json")]) == 1
    failed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("fails")]
    assert len(failed) == 2
    assert "cannot load the CPU kernels" in failed[0] and 'expected "version": "1.0", not none' in failed[1]


@pytest.mark.parametrize(
    ("versions", "verdict", "text"),
    [
        ({"numpy": "1.26.4", "safetensors": "0.7.0"}, "ok", ""),
        ({"numpy": "2.0.1", "safetensors": "0.7.0"}, "fails", "pip install 'numpy<2'"),
        ({"numpy": "1.26.4", "safetensors": "0.8.0rc1"}, "fails", "pip install 'safetensors<0.8'"),
        ({"safetensors": "0.10"}, "fails", "pip install 'numpy<2' 'safetensors<0.8'"),
    ],
)
def test_packages(monkeypatch, versions, verdict, text):
    monkeypatch.setattr(doctor, "_version", versions.get)
    found = doctor.check_packages()
    assert (found.verdict, found.advice) == (verdict, text)


@pytest.mark.parametrize(
    ("version", "code", "verdict", "text"),
    [
        (None, 0, "fails", "not installed"),
        ("2.9.0", 1, "fails", "2.9.0 does not import: ImportError: libgomp"),
        ("2.10.0", 0, "ok", "2.10.0"),
        ("2.11.0", 0, "warning", "2.11.0 is not a version that was tested"),
    ],
)
def test_mindspore(monkeypatch, version, code, verdict, text):
    done = subprocess.CompletedProcess([], code, "", "Traceback\nImportError: libgomp\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    monkeypatch.setattr(doctor, "_version", lambda _: version)
    found = doctor.check_mindspore()
    assert (found.verdict, found.text) == (verdict, text)


def test_cann(monkeypatch, tmp_path):
    monkeypatch.setenv("ASCEND_HOME_PATH", str(tmp_path))
    assert doctor.check_cann().verdict == "ok"
    monkeypatch.setattr(doctor, "ascend_devices", lambda: [0, 1])
    assert doctor.check_devices().text == "2 Ascend NPUs (0, 1)"
    found = doctor.check_cann()
    assert found.verdict == "fails" and found.advice == "install it, and source its set_env.sh"
    (tmp_path / "compiler").mkdir()
    (tmp_path / "compiler" / "version.info").write_text("Version=7.6.0.1.220\nversion_dir=8.0.RC3\n")
    assert doctor.check_cann().text == f"7.6.0.1.220 in {tmp_path}"
    (tmp_path / "version.cfg").write_text("# version: 1.0\nruntime_running_version=[7.6.0.1.220:8.0.RC3]\n")
    assert doctor.check_cann() == doctor.Finding("CANN", "ok", f"8.0.RC3 in {tmp_path}")


def test_no_compiler(monkeypatch, tmp_path):
    monkeypatch.setenv("MINDGEN_CACHE", str(tmp_path / "cache"))
    assert doctor.check_compiler().verdict == "ok"
    monkeypatch.setattr(shutil, "which", lambda _: None)
    found = doctor.check_compiler()
    assert found.verdict == "warning" and "apt install g++" in found.advice
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / f"mindspore-{doctor._version('mindspore')}-0.so").touch()
    assert "compiled already" in doctor.check_compiler().text


def test_little_room(monkeypatch):
    monkeypatch.setattr(doctor, "free_memory", lambda: 2**30)
    assert doctor.check_memory().verdict == "warning"
    usage = shutil.disk_usage("/")._replace(free=64 * 2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert doctor.check_shared_memory().advice.endswith("docker run --shm-size=1g")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setattr(doctor, "_MSRUN_PORT", taken.getsockname()[1])
        assert doctor.check_ports().verdict == "warning"


def check_table(tmp_path: Path, raw: object) -> doctor.Finding:
    (tmp_path / "table.json").write_text(json.dumps(raw))
    return doctor.check_rank_table(tmp_path / "table.json", None)


def test_a_stale_rank_table(monkeypatch, tmp_path):
    assert check_table(tmp_path, loopback_json(2)).verdict == "ok"
    assert "203.0.113.9 is not this machine's address" in check_table(tmp_path, loopback_json(2, "203.0.113.9")).text
    monkeypatch.setattr(doctor, "ascend_devices", lambda: [0])
    assert "there is no /dev/davinci1" in check_table(tmp_path, loopback_json(2)).text
    monkeypatch.setattr(table_check, "ascend_addresses", lambda ids: {device_id: "10.0.0.1" for device_id in ids})
    found = check_table(tmp_path, table_json(("127.0.0.1", [(0, "10.0.0.2", 0)])))
    assert found.verdict == "fails" and "device 0 has the address 10.0.0.1, not 10.0.0.2" in found.text
