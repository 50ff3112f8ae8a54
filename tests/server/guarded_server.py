"""A server with keys and limits, and who may ask it."""

from dataclasses import dataclass
from pathlib import Path

from server_process import Server

ADMIN, ALICE, BOB, CAROL = "admin-key-1", "alice-key-1", "bob-key-11", "carol-key-1"


@dataclass
class Guarded:
    """A server with keys and limits, a root of adapters that may be loaded, and a folder that it watches.

    Its chat template takes tools.
    """

    server: Server
    root: Path
    watched: Path

    def load(self, name: str, path: str, key: str = ADMIN, **more):
        with self.server.http(key) as http:
            return http.post("/v1/load_lora_adapter", json={"lora_name": name, "lora_path": path, **more})

    def unload(self, name: str, key: str = ADMIN):
        with self.server.http(key) as http:
            return http.post("/v1/unload_lora_adapter", json={"lora_name": name})

    def names(self) -> list[str]:
        return [each.id for each in self.server.client(ADMIN).models.list().data]
