"""OpenAI's client for Node, unchanged, from npm: openai_client.test.mjs says what is asked of it."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from guarded_server import ADMIN

SCRIPTS = Path(__file__).parent / "node"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("npm") is None, reason="needs Node 18 or newer with npm: apt install nodejs npm"),
]


def test_the_client_of_node(server, guarded, tmp_path):
    for name in ("package.json", "package-lock.json", "openai_client.test.mjs"):
        shutil.copy(SCRIPTS / name, tmp_path)
    run(["npm", "ci", "--no-audit", "--no-fund"], tmp_path)
    addresses = {"DEMO_URL": f"{server.address}/v1", "TOOLS_URL": f"{guarded.server.address}/v1", "TOOLS_KEY": ADMIN}
    said = run(["node", "--test", "--test-reporter=tap", "openai_client.test.mjs"], tmp_path, **addresses)
    assert "# tests 8" in said and "# pass 8" in said, said


def run(command, folder, **environment):
    done = subprocess.run(
        command, cwd=folder, env=os.environ | environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
