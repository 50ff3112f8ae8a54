"""Thousands of requests that the OpenAPI document allows, or nearly: none is the server's fault."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from guarded_server import ADMIN
from server_process import ROOT, serving

_CASES_PER_OPERATION = 640


@pytest.mark.slow
def test_no_request_is_the_servers_fault(tmp_path):
    (tmp_path / "admin").write_text(f"{ADMIN}\n")
    flags = ("--admin_key_file", str(tmp_path / "admin"), "--adapter_roots", str(ROOT / "adapters"))
    with serving("--model", "demo", "--request_timeout", "60", *flags) as server:
        command = [
            Path(sys.executable).with_name("schemathesis"), "run", f"{server.address}/openapi.json",
            "--checks", "not_a_server_error", "--phases", "fuzzing", "--max-examples", str(_CASES_PER_OPERATION),
            "--generation-deterministic", "--exclude-path", "/sleep",
            "--header", f"Authorization: Bearer {ADMIN}", "--request-timeout", "60",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stdout
        statuses = [json.loads(line)["status"] for line in server.log if line.startswith("{")]
        assert statuses and max(statuses) < 500
        (num_cases,) = re.findall(r"(\d+) generated, \1 passed", done.stdout)
        assert int(num_cases) >= 5000 and server.http().get("/health").status_code == 200
