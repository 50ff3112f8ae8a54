"""Which runner serves which device."""

from mindgen.parallel.rank_place import RankPlace
from mindgen.runner.ascend import DeviceRunner
from mindgen.runner.cpu import CpuRunner
from mindgen.runner.local import LocalRunner
from mindgen.runner.spec import RunnerSpec
from mindgen.weights.weight_files import WeightFiles


def open_runner(spec: RunnerSpec, weights: WeightFiles, place: RankPlace | None = None) -> LocalRunner:
    """This process's part of the network on its device: all of it, or a rank's."""
    return (CpuRunner if spec.device == "CPU" else DeviceRunner)(spec, weights, place)
