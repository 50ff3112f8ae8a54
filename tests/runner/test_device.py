"""Which device it is, and what is refused where there is none."""

import re

import pytest

from mindgen.engine.engine_config import EngineConfig
from mindgen.errors import ConfigError
from mindgen.loop import roles
from mindgen.parallel.launch.machine import ascend_devices
from mindgen.runner import device

without_npu = pytest.mark.skipif(bool(ascend_devices()), reason="there is an NPU")


@without_npu
def test_auto_is_the_cpu():
    assert device.choose_device("auto") == device.choose_device("CPU") == "CPU"


@without_npu
def test_ascend_is_refused_in_one_line():
    reason = "device_target is Ascend, but MindSpore .*: `mindgen doctor` says more; auto takes the CPU"
    with pytest.raises(ConfigError) as refused:
        device.choose_device("Ascend")
    assert re.fullmatch(reason, str(refused.value))


@pytest.mark.parametrize(
    ("sizes", "command"),
    [
        ({"tensor_parallel_size": 2}, "mindgen launch --ranks 2 -- COMMAND"),
        ({"tensor_parallel_size": 2, "data_parallel_size": 4}, "mindgen launch --ranks 8 --data_parallel 4 -- COMMAND"),
    ],
)
def test_several_npus_are_several_processes(sizes, command, monkeypatch):
    roles.check_launched(EngineConfig(device_target="CPU", **sizes))
    monkeypatch.setattr(device, "_why_no_ascend", lambda: None)
    roles.check_launched(EngineConfig())
    with pytest.raises(ConfigError, match=re.escape(command)):
        roles.check_launched(EngineConfig(**sizes))


def test_several_stages_are_refused_on_ascend(monkeypatch):
    limits = {"pipeline_parallel_size": 2, "tensor_parallel_size": 2}
    roles.check_launched(EngineConfig(device_target="CPU", **limits))
    monkeypatch.setattr(device, "_why_no_ascend", lambda: None)
    with pytest.raises(ConfigError, match="pipeline_parallel_size is served on the CPU only: on Ascend set it to 1"):
        roles.check_launched(EngineConfig(**limits))
