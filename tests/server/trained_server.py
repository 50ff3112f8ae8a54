"""A server whose weights a trainer changes, and the folders that they come from."""

from dataclasses import dataclass
from pathlib import Path

from guarded_server import ADMIN
from server_process import Server
from updates import GREEDY, PROMPTS

ASKED = {"model": "policy", "prompt": PROMPTS, "max_tokens": GREEDY.max_tokens, "temperature": 0}
MORE = {"ignore_eos": True, "return_token_ids": True}


@dataclass
class Trained:
    """A server whose weights may change, the folders they come from, and what fresh models of these say."""

    server: Server
    root: Path
    socket: Path
    expected: dict[str, list[list[int]]]  # by the checksum of the weights
    checksums: list[str]

    def post(self, path: str, key: str | None = ADMIN, **sent):
        with self.server.http(key) as http:
            return http.post(path, **sent)

    def update(self, path: str, key: str | None = ADMIN, **options):
        return self.post("/update_weights", key, json={"path": path, **options})

    def ask(self, **changes):
        return self.server.client().completions.create(**(ASKED | changes), extra_body=MORE)

    def restore(self) -> None:
        """Has the first weights served, whatever a test has done."""
        assert self.update("0", expect_change=False).status_code == 200


def token_ids(answer) -> list[list[int]]:
    return [choice.token_ids for choice in answer.choices]
