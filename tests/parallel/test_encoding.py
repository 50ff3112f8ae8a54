"""Messages as bytes: what goes in comes out, and nothing else comes out of anything."""

import pickle
import resource
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mindgen import SamplingParams
from mindgen.engine.engine_config import EngineConfig
from mindgen.errors import LaunchError, MessageError, MindgenError, UnknownAdapterError
from mindgen.layers.step_inputs import PLACES, StepInputs
from mindgen.outputs import CompletionOutput, Logprob, RequestMetrics, RequestOutput, TextChunk
from mindgen.parallel.channel import Channel
from mindgen.parallel.encoding import decode, encode
from mindgen.parallel.messages import Call
from mindgen.runner.batch import Batch

PARAMS = SamplingParams(
    stop=["x"], stop_token_ids=[4], logit_bias={3: 1.5}, early_stopping="never", guided_json={"type": ["object", None]},
    seed=2**64 - 1, n=2,
)  # fmt: skip


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ((1, "zwölf", [Path("a/b")], {"k": b"\x00"}), tuple[int, str, list[Path], dict[str, bytes]]),
        (PARAMS, SamplingParams),
        (EngineConfig(memory_utilization=0.5, master_addr="::1"), EngineConfig),
        (TextChunk(3, "text", None, 1, [5, 6]), TextChunk),
    ],
)
def test_values_come_back(value, kind):
    assert decode(encode(value), kind) == value


@pytest.mark.parametrize("dtype", ["bool", "u1", "u2", "i4", "i8", "f2", "f4", "f8"])
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3, 5)])
def test_arrays_come_back(dtype, shape):
    array = (np.random.default_rng(0).standard_normal(shape) * 100).astype(dtype)
    for given in (np.asarray(array), np.asfortranarray(array)):
        back = decode(encode(given), np.ndarray)
        np.testing.assert_array_equal(back, array)
        assert back.dtype == array.dtype and back.flags.writeable


def test_a_batch_comes_back():
    arrays = [np.arange(size, dtype=np.int32) for size in (7, 4, 4, 4, 7, 7, 8, 2)]
    arrays[PLACES.block_tables] = arrays[PLACES.block_tables].reshape(4, 2)
    batch = Batch(StepInputs(*arrays), slots=[0, 1, 1, 2], segment_ends=[np.array([3, 7]), np.array([3])])
    back = decode(encode(batch), Batch)
    for one, other in zip(back.step, batch.step, strict=True):
        np.testing.assert_array_equal(one, other)
    assert back.slots == batch.slots and [each.tolist() for each in back.segment_ends] == [[3, 7], [3]]


def test_outputs_come_back_with_logprobs_and_the_error():
    completion = CompletionOutput(0, "a", [7], 0.5, [{7: Logprob(-0.5, 1, "a"), 9: Logprob(-1.5, 2)}], "stop", 7)
    error = UnknownAdapterError("unknown adapter_id 'x'")
    output = RequestOutput(
        1, "p", [1], [completion], True, RequestMetrics(1.0), [None, {1: Logprob(0, 1)}], error="e", exception=error
    )
    back = decode(encode(output), RequestOutput)
    logprob = back.outputs[0].logprobs[0][7]
    assert (type(logprob), logprob, logprob.rank, logprob.decoded_token) == (Logprob, -0.5, 1, "a")
    assert type(back.exception) is UnknownAdapterError and str(back.exception) == str(error)
    back.exception = output.exception = None
    assert back == output


def test_errors_keep_their_exit_codes():
    assert decode(encode(LaunchError("ended", 137)), MindgenError).exit_code == 137


@dataclass
class Holder:
    array: np.ndarray
    error: MindgenError | None = None


def array_record(dtype: Any = "<i4", shape: Any = (2,), data: Any = b"12345678") -> bytes:
    return encode({"array": (dtype, shape, data)})


HUGE = (b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff")


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", int), (b"\xc1", int), (encode("text"), int), (encode(1) + b"\x00", int),
        (array_record(dtype="|O"), Holder), (array_record(dtype="V8"), Holder), (array_record(dtype="none"), Holder),
        (array_record(shape=(3,)), Holder), (array_record(shape=(-1, -2)), Holder), (array_record(shape="ab"), Holder),
        (array_record(shape=(2**62, 2**62)), Holder), (array_record(data="text"), Holder),
        (encode({"array": 3}), Holder), (encode({}), Holder),
        (encode({"array": ("<i4", (0,), b""), "error": ("SystemExit", "", 0)}), Holder),
        (encode({"array": ("<i4", (0,), b""), "error": ("Path", "", 0)}), Holder),
        (encode({"n": -1}), SamplingParams), (encode({"block_size": "16"}), EngineConfig),
        (encode({"number": 1, "name": "run"}), Call), (pickle.dumps((1, "run", ())), Call),
        (b"\x91" * 100_000, Any), *((head, kind) for head in HUGE for kind in (Any, list[int], Call)),
    ],
)  # fmt: skip
def test_what_is_malformed_is_refused(data, kind):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(MessageError):
        decode(data, kind)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # KiB


@pytest.mark.parametrize("value", [object(), {1, object()}, [lambda: 0]])
def test_what_no_message_holds_is_said(value):
    with pytest.raises(MessageError, match="no message can hold this"):
        encode(value)


@pytest.fixture
def ends():
    first, second = socket.socketpair()
    yield first, Channel(second, max_bytes=1000)
    first.close()
    second.close()


def test_messages_that_claim_too_much_are_refused_before_they_are_read(ends):
    ends[0].sendall((1 << 40).to_bytes(8, "little"))
    with pytest.raises(MessageError, match="claims 1099511627776 bytes: 1000 is the limit"):
        ends[1].receive(bytes)
    with pytest.raises(MessageError, match="too large"):
        ends[1].send(b"0" * 1001)


def test_a_channel_that_is_closed_meanwhile_has_ended(ends):
    ends[1].close()
    with pytest.raises(EOFError):
        ends[1].receive(bytes)


def test_messages_that_do_not_end_are_ended(ends):
    ends[0].sendall((100).to_bytes(8, "little") + b"half")
    with pytest.raises(TimeoutError):
        ends[1].receive(bytes, seconds=0.1)
    ends[0].shutdown(socket.SHUT_WR)
    with pytest.raises(EOFError):
        ends[1].receive(bytes)
