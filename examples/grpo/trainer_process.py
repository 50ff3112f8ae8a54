"""The trainer of grpo_lora.py --two_processes: reads lines of JSON, answers each with one, and sends the adapter."""

import os
import sys
import time
from pathlib import Path
from typing import BinaryIO

import msgspec

from grpo.generator import POLICY
from grpo.placement import Reply, Request, Start, Sync
from grpo.trainer import Trainer
from mindgen.errors import MindgenError
from mindgen.rlhf import WeightSender, WeightSendError


def main() -> None:
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever else is printed goes to standard error
    serve(sys.stdin.buffer, replies)


def serve(requests: BinaryIO, replies: BinaryIO) -> None:
    """Until there are no more requests."""
    start = msgspec.json.decode(requests.readline(), type=Start)
    try:
        trainer = Trainer(start.settings, start.lora, start.longest_prompt)
        sender = WeightSender(start.socket)
        _say(replies, Reply(sync=_send(sender, trainer)))
    except (MindgenError, WeightSendError) as error:
        _say(replies, Reply(error=str(error)))
        return
    with sender:
        for line in requests:
            request = msgspec.json.decode(line, type=Request)
            try:
                reply = _answer(request, sender, trainer)
            except (MindgenError, WeightSendError) as error:
                reply = Reply(error=str(error))
            _say(replies, reply)


def _answer(request: Request, sender: WeightSender, trainer: Trainer) -> Reply:
    if request.save_to is not None:
        trainer.policy.save(Path(request.save_to))
    report = None if request.batch is None else trainer.step(request.batch)
    return Reply() if report is None else Reply(report, _send(sender, trainer))


def _send(sender: WeightSender, trainer: Trainer) -> Sync:
    started = time.perf_counter()
    policy = trainer.policy
    report = sender.send(policy.tensors(), target=POLICY, adapter_config=policy.adapter_config())
    return Sync(report["version"], report["checksum_after"], time.perf_counter() - started)


def _say(replies: BinaryIO, reply: Reply) -> None:
    replies.write(msgspec.json.encode(reply) + b"\n")
    replies.flush()


if __name__ == "__main__":
    main()
