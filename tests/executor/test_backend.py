"""The executor against MindSpore's own runtime on the same graphs: whole networks, and graphs with their own twists."""

import gc
import resource
from pathlib import Path

import mindspore
import numpy as np
import pytest
import torch
from mindspore import Parameter, Tensor, nn, ops
from mindspore.ops import auto_generate as gen
from probe import Probe
from tiny_adapters import make_adapter
from tiny_models import KINDS, VOCAB_SIZE, make_model

from mindgen.kernels import backend, plugin

HALF_EPSILON = {"bfloat16": 2.0**-8, "float16": 2.0**-11, "float32": 2.0**-24}

FAST_KINDS = ("llama3-grouped-tied", "llama-biased-one-kv-head", "qwen3-untied", "gpt2")


def steps(probe: Probe, slots: list[int]) -> list[np.ndarray]:
    """The logits of prompts of many lengths, of chunks, then of decoding with ever fewer sequences."""
    generator = np.random.default_rng(0)
    prompts = [generator.integers(3, VOCAB_SIZE, length).tolist() for length in (1, 2, 9, 16, 31, 57)]
    sequences = [probe.open(prompt, slot) for prompt, slot in zip(prompts, slots, strict=True)]
    logits = [probe.advance(sequences, [(len(prompt) + 1) // 2 for prompt in prompts])]
    logits.append(probe.advance(sequences[1:]))
    for step in range(4):
        for sequence in sequences[1:]:
            sequence.token_ids.append(7 + step)
        logits.append(probe.advance(sequences[1 + step :]))
    probe.close(*sequences)
    return logits


@pytest.mark.parametrize(
    "dtype", ["bfloat16", *(pytest.param(dtype, marks=pytest.mark.slow) for dtype in ("float16", "float32"))]
)
@pytest.mark.parametrize(
    "kind", [kind if kind in FAST_KINDS else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]
)
def test_networks_equal_the_runtime_bitwise_unless_fused(kind, dtype, tmp_path):
    folder = make_model(kind, tmp_path / "model", getattr(torch, dtype))
    adapters = [make_adapter(name, folder, tmp_path) for name in ("everything", "query-value")]
    by_executor = {}
    for executor in backend.EXECUTORS:
        probe = Probe(folder, dtype, adapters, executor=executor)
        by_executor[executor] = steps(probe, [0] * 6) + steps(probe, [0, 2, 1, 0, 2, 1])
    in_order = (by_executor[name] for name in ("mindgen_unfused", "mindgen", "mindspore"))
    for ours, fused, theirs in zip(*in_order, strict=True):
        np.testing.assert_array_equal(ours, theirs)
        np.testing.assert_allclose(fused, theirs, atol=16 * HALF_EPSILON[dtype] * np.abs(theirs).max())


def compile_dynamic(cell: nn.Cell, *inputs: Tensor, executor: str = "mindgen"):
    """Any number of rows."""
    assert backend.available(executor) == executor
    cell.set_inputs(*(Tensor(shape=[None, *x.shape[1:]], dtype=x.dtype) for x in inputs))
    mindspore.set_context(mode=mindspore.PYNATIVE_MODE)
    return backend.CompiledGraph(cell, executor)


class Views(nn.Cell):
    """Splits, reshapes of splits, an input given out, a view given out."""

    def __init__(self) -> None:
        super().__init__()
        self.split = ops.Split(1, 3)
        self.reshape = ops.Reshape()
        self.norm = gen.RmsNorm(1e-6)
        self.weight = Parameter(Tensor(np.linspace(0.5, 1.5, 4, dtype=np.float32)), name="weight")

    def construct(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        first, second, _ = self.split(x)
        normed = self.norm(self.reshape(second, (-1, 2, 4)), self.weight)[0]
        return self.reshape(normed, (-1, 8)), self.reshape(first, (2, -1)), x


@pytest.mark.parametrize("executor", ["mindgen", "mindgen_unfused"])
def test_views_and_outputs_without_memory_of_their_own(executor):
    graph = None
    for rows in (2, 1, 6):
        x = np.random.default_rng(rows).standard_normal((rows, 24)).astype(np.float32)
        graph = graph or compile_dynamic(Views(), Tensor(x), executor=executor)
        normed, first, same = (output.asnumpy() for output in graph(Tensor(x)))
        heads = x[:, 8:16].reshape(rows, 2, 4).astype(np.float64)
        expected = heads / np.sqrt((heads**2).mean(-1, keepdims=True) + 1e-6) * np.linspace(0.5, 1.5, 4)
        np.testing.assert_allclose(normed, expected.reshape(rows, 8), rtol=1e-5)
        np.testing.assert_array_equal(first, x[:, :8].reshape(2, -1))
        np.testing.assert_array_equal(same, x)


class Sum(nn.Cell):
    def __init__(self) -> None:
        super().__init__()
        self.add = ops.Add()

    def construct(self, x: Tensor, y: Tensor) -> Tensor:
        return self.add(x, y)


def test_an_output_that_is_still_held_is_not_written_over():
    ones, twos = (Tensor(np.full((3, 5), value, np.float32)) for value in (1, 2))
    graph = compile_dynamic(Sum(), ones, ones)
    held = graph(ones, ones)
    array = graph(ones, twos).asnumpy()
    graph(twos, twos)
    assert (held.asnumpy() == 2).all()
    assert (array == 3).all()


class Sine(nn.Cell):
    def __init__(self) -> None:
        super().__init__()
        self.sin = ops.Sin()

    def construct(self, x: Tensor) -> Tensor:
        return self.sin(x)


def test_a_graph_with_an_unknown_op_runs_on_the_runtime_and_says_so(capfd):
    x = np.linspace(0, 3, 7, dtype=np.float32)
    graph = compile_dynamic(Sine(), Tensor(x))
    for _ in range(2):
        np.testing.assert_allclose(graph(Tensor(x)).asnumpy(), np.sin(x), rtol=1e-6)
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    assert "the executor does not know the op Sin" in said


class Overwritten(nn.Cell):
    """Needs the cache as it was before it is written."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = Parameter(Tensor(np.zeros((2, 2, 1, 4)), mindspore.float16), name="cache")
        self.other = Parameter(Tensor(np.zeros((2, 2, 1, 4)), mindspore.float16), name="other")
        self.write = gen.ReshapeAndCache()
        self.add = ops.Add()
        self.depend = ops.Depend()

    def construct(self, row: Tensor, slots: Tensor) -> Tensor:
        before = self.add(self.cache, self.cache)
        written = self.write(row, row, self.cache, self.other, slots)
        return self.add(before, self.depend(self.cache, written))


def test_what_is_read_before_a_write_is_the_value_before():
    row, slots = Tensor(np.ones((1, 4)), mindspore.float16), Tensor(np.array([1], np.int32))
    graph = compile_dynamic(Overwritten(), row, slots)
    assert float(graph(row, slots).asnumpy().sum()) == 4
    assert float(graph(row, slots).asnumpy().sum()) == 12


def test_several_graphs_and_engines_take_turns(tmp_path):
    folder = make_model("qwen2-tied", tmp_path / "model", torch.bfloat16)
    adapter = make_adapter("everything", folder, tmp_path)
    probes = [Probe(folder, dtype, [adapter]) for dtype in ("bfloat16", "float16", "bfloat16")]
    prompts = [[5, 6, 7], [9] * 20]
    alone = [[probe.logits(prompts, slots) for slots in ([0, 0], [1, 0])] for probe in probes]
    for _ in range(3):
        for which, slots in enumerate(([0, 0], [1, 0])):
            for probe, expected in zip(probes, alone, strict=True):
                np.testing.assert_array_equal(probe.logits(prompts, slots), expected[which])


def test_one_build_and_flat_memory_over_thousands_of_steps(tmp_path):
    probe = Probe(make_model("llama-multi-head", tmp_path, torch.bfloat16), "bfloat16")
    generator = np.random.default_rng(0)

    def run(count: int) -> None:
        for _ in range(count):
            probe.logits([[5] * int(length) for length in generator.integers(1, 9, generator.integers(1, 6))])

    run(500)
    gc.collect()
    before = resident_bytes()
    run(3000)
    gc.collect()
    assert resident_bytes() - before < 4 << 20
    assert len(probe.runner._graphs) == 1


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def ops_called(folder: Path) -> list[str]:
    probe = Probe(folder, "bfloat16")
    kernels = plugin.load()
    probe.logits([[5, 6]])
    kernels.start_profile()
    probe.logits([[5, 6]])
    return sorted(call.op.decode() for call in kernels.stop_profile())


def test_fused_groups_are_found(tmp_path):
    """A decoder layer is eight kernels."""
    layer = ["RmsNorm", "Linear", "RotaryAndCache", "PagedAttention", "Linear", "RmsNorm", "LinearSwiglu", "Linear"]
    expected = ["Gather", *layer, *layer, "RmsNorm", "Gather", "Linear"]
    expected += ["Gather", "Gather"]  # cosines and sines
    assert ops_called(make_model("qwen3-untied", tmp_path, torch.bfloat16)) == sorted(expected)


def test_fused_groups_of_gpt2(tmp_path):
    """Biases and residuals join the products; attention and the cache want rows without gaps."""
    attention = ["LayerNorm", "Linear", *["Contiguous"] * 3, "ReshapeAndCache", "PagedAttention", "Linear"]
    layer = [*attention, "LayerNorm", "Linear", "GeLU", "Linear"]
    expected = ["Gather", "Gather", "Add", *layer, *layer, "LayerNorm", "Gather", "Linear"]
    assert ops_called(make_model("gpt2", tmp_path, torch.bfloat16)) == sorted(expected)
