"""docs/serving.md says what there is: its commands are run, in their order, and its names are looked for."""

import dataclasses
import json
import re
import shlex
import subprocess
from contextlib import ExitStack

from server_process import ROOT, serving

from mindgen.server.config import ServerConfig

PAGE = (ROOT / "docs/serving.md").read_text()


def test_its_commands(tmp_path, capsys):
    (tmp_path / "adapters").symlink_to(ROOT / "adapters")
    addresses: dict[str, str] = {}
    num_answers = 0
    with ExitStack() as servers:
        for language, block in re.findall(r"```(bash|python)\n(.*?)```", PAGE, re.DOTALL):
            for address, own in addresses.items():
                block = block.replace(address, own)
            if language == "python":
                exec(block, {})
                assert "七" in capsys.readouterr().out
                continue
            for line in block.splitlines():
                if line.startswith("mindgen serve"):
                    _, _, *flags = shlex.split(line)
                    port = flags.index("--port")
                    own = servers.enter_context(serving(*flags[:port], *flags[port + 2 :], folder=tmp_path))
                    addresses[f"http://127.0.0.1:{flags[port + 1]}"] = own.address
                elif not line.startswith("pip"):
                    done = subprocess.run(line, shell=True, cwd=tmp_path, capture_output=True, text=True, timeout=60)
                    assert done.returncode == 0 and '"error"' not in done.stdout, (line, done.stdout, done.stderr)
                    num_answers += bool(done.stdout)
    assert len(addresses) == 2 and num_answers == 10


def test_its_names(server):
    fields = {field.name for field in dataclasses.fields(ServerConfig)}
    flags = set(re.findall(r"--(\w+)", PAGE))
    others = {
        "model",
        "adapters",
        "adapter_path",
        "max_num_seqs",
        "tp",
        "dp",
        "port",
        "help",
        "open",
        "head",
        "address",
    }
    others |= {"model_args", "tasks"}  # of lm-eval
    assert flags - others <= fields
    page = server.http().get("/metrics").text
    for name in re.findall(r"`((?:vllm|mindgen):\w+)`", PAGE):
        assert f"# TYPE {name.removesuffix('_total')}" in page, name
    document = server.http().get("/openapi.json").json()
    served = set(re.findall(r"^\| (`/.*?) \|", PAGE, re.MULTILINE))
    paths = {path for line in served for path in re.findall(r"`(/[\w/]+)`", line)} - {"/v1/models/NAME"}
    assert paths <= {*document["paths"], "/openapi.json"}
    asked = json.dumps(document["components"]["schemas"]["ChatCompletionRequest"]["properties"])
    (listed,) = re.findall(r"those of vLLM are served: (.*?)\.\n", PAGE, re.DOTALL)
    for name in re.findall(r"`(\w+)`", listed):
        assert f'"{name}"' in asked, name
