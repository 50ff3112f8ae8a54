"""veRL's generation server, as a trainer's coroutines see it: token ids in, token ids and log-probabilities out, of one
`mindgen serve` or of several."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from mindgen.errors import ConfigError, MindgenError

_MOST_REMEMBERED = 10_000  # request ids, and where they were sent
_CONNECT_SECONDS = 10.0
# What holds for a request that does not say, whatever the model's generation_config.json says: as in vLLM.
_DEFAULTS = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "typical_p": 1.0, "repetition_penalty": 1.0}
_LENGTHS = ("max_tokens", "max_new_tokens")
_FOR_A_WHILE = ("rate_limit_exceeded", "concurrency_limit", "queue_full", "asleep", "replica_ended")


class GenerationClientError(MindgenError):
    """A server has refused a request, or is gone.

    Attributes:
        status: of HTTP; None where there was no answer.
        code: of OpenAI's error object, if it has one.
    """

    def __init__(self, message: str, status: int | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code = status, code


@dataclass(frozen=True, slots=True)
class TokenOutput:
    """One output, with veRL's names.

    Attributes:
        log_probs: of each token in the distribution that it was drawn from; None unless asked for.
        routed_experts: None, for no model that is served has experts.
        stop_reason: "completed", or "aborted" where new weights have called it off.
        num_preempted: None, for the server does not say.
        extra_fields: `global_steps`, the version of the weights that are trained: the adapter's where one has answered,
            else the base model's; `weight_checksum`, `adapter_digest`, and `finish_reason` as OpenAI has it. Where
            weights have changed since the first token, `weight_versions` and `adapter_versions`, one for each token.
    """

    token_ids: list[int]
    log_probs: list[float] | None = None
    routed_experts: Any = None
    stop_reason: str | None = None
    num_preempted: int | None = None
    extra_fields: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class _Server:
    """
    Attributes:
        num_open: requests that it has now.
        max_model_len: tokens of prompt and output together; None until it is asked for.
    """

    address: str
    num_open: int = 0
    max_model_len: int | None = None


class GenerationClient:
    """Belongs to one event loop. A request id stays with the server that had it before, whose cache holds what earlier
    turns have computed; a new one goes to the server with the fewest requests. Behind a server's port its router does
    the same for replicas. A call that is cancelled is called off in the server as well.

    Args:
        addresses: of servers of the same model, like "http://127.0.0.1:8000"; one or several.
        model: the base model's name or an adapter's, as the servers have it; None is the base model.
        api_key: for servers with keys; an admin's for `update_weights`, `sleep` and `wake_up`.
        retry_seconds: for which a request is sent again while its server is full or sleeps.

    Raises:
        ConfigError: there are no addresses, or httpx is not installed.
    """

    def __init__(
        self,
        addresses: str | Sequence[str],
        model: str | None = None,
        api_key: str | None = None,
        retry_seconds: float = 600.0,
    ) -> None:
        named = [addresses] if isinstance(addresses, str) else addresses
        self._servers = [_Server(each.rstrip("/")) for each in named]
        if not self._servers:
            raise ConfigError("a GenerationClient needs the address of a server, like http://127.0.0.1:8000")
        self._model, self._retry_seconds = model, retry_seconds
        self._homes: OrderedDict[str, _Server] = OrderedDict()
        self._http = _http_client(api_key)

    async def generate(
        self,
        request_id: str,
        *,
        prompt_ids: Sequence[int],
        sampling_params: Mapping[str, Any],
        image_data: Any = None,
        video_data: Any = None,
    ) -> TokenOutput:
        """
        Args:
            request_id: the same for all turns of a conversation.
            sampling_params: names of vLLM's; `logprobs` true asks for log_probs, `max_new_tokens` is `max_tokens`,
                and without either the output may be as long as the context allows.
            image_data, video_data: None: the models read text.

        Raises:
            GenerationClientError: the server has refused it, or is gone.
        """
        if image_data is not None or video_data is not None:
            raise GenerationClientError("the model reads text: image_data and video_data must be None")
        server = self._home(request_id)
        server.num_open += 1
        try:
            body = _body(self._model, prompt_ids, sampling_params, await self._longest(server))
            answer = await self._ask(server, "/v1/completions", body, {"X-Request-Id": request_id})
        except GenerationClientError as error:
            if error.status is None:  # it is gone: the next turn may go elsewhere
                self._homes.pop(request_id, None)
            raise
        finally:
            server.num_open -= 1
        return _output(answer, body["processed_logprobs"])

    async def update_weights(self, path: str, target: str = "base", **options: Any) -> list[dict[str, Any]]:
        """Has a folder's weights served by all servers; their reports, which LLM.update_weights describes.

        Args:
            path: below one of their --weight_roots.
            options: version, and those of `LLM.update_weights`.
        """
        body = {"path": path, "target": target, **options}
        return list(await asyncio.gather(*(self._ask(each, "/update_weights", body) for each in self._servers)))

    async def sleep(self, level: int = 1, in_flight: str = "finish") -> None:
        """Has all servers give memory back, as LLM.sleep does."""
        path = f"/sleep?level={level}&in_flight={in_flight}"
        await asyncio.gather(*(self._ask(each, path, None) for each in self._servers))

    async def wake_up(self, tags: Sequence[str] | None = None) -> None:
        """Has them take it again: of the "weights", the "kv_cache", or both."""
        path = "/wake_up" + "".join(f"{'&' if place else '?'}tags={tag}" for place, tag in enumerate(tags or ()))
        await asyncio.gather(*(self._ask(each, path, None) for each in self._servers))

    async def aclose(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> "GenerationClient":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.aclose()

    def _home(self, request_id: str) -> _Server:
        """Where a request id belongs."""
        server = self._homes.get(request_id) or min(self._servers, key=lambda each: each.num_open)
        self._homes[request_id] = server
        self._homes.move_to_end(request_id)
        while len(self._homes) > _MOST_REMEMBERED:
            self._homes.popitem(last=False)
        return server

    async def _longest(self, server: _Server) -> int:
        if server.max_model_len is None:
            listed = await self._ask(server, "/v1/models", None, method="GET")
            server.max_model_len = listed["data"][0]["max_model_len"]
        return server.max_model_len

    async def _ask(
        self, server: _Server, path: str, body: Any, headers: Mapping[str, str] | None = None, method: str = "POST"
    ) -> Any:
        """The answer, when there is room for the request."""
        import httpx

        deadline = time.monotonic() + self._retry_seconds
        while True:
            try:
                answer = await self._http.request(method, server.address + path, json=body, headers=headers)
            except httpx.HTTPError as error:
                raise GenerationClientError(f"{server.address}: {str(error) or type(error).__name__}") from error
            if answer.is_success:
                return answer.json() if answer.content else None
            failure = _failure(server, answer)
            if failure.code not in _FOR_A_WHILE or time.monotonic() > deadline:
                raise failure
            await asyncio.sleep(float(answer.headers.get("Retry-After", 1)))


def _http_client(api_key: str | None) -> Any:
    try:
        import httpx
    except ImportError:
        raise ConfigError("GenerationClient needs httpx: pip install 'mindgen[client]'") from None
    headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
    # A trainer has thousands of requests open, each for as long as it takes.
    timeout, limits = httpx.Timeout(None, connect=_CONNECT_SECONDS), httpx.Limits(max_connections=None)
    return httpx.AsyncClient(headers=headers, timeout=timeout, limits=limits)


def _body(model: str | None, prompt_ids: Sequence[int], given: Mapping[str, Any], longest: int) -> dict[str, Any]:
    """Of a completion; raises GenerationClientError where several outputs are asked for."""
    if (given.get("n") or 1) != 1:
        raise GenerationClientError(f"a call has one output, and sampling_params ask for {given['n']}: call n times")
    params = {name: value for name, value in given.items() if value is not None}
    wants_logprobs = params.pop("logprobs", False)
    limits = [params.pop(name) for name in _LENGTHS if name in params]
    room = max(1, longest - len(prompt_ids))
    body = _DEFAULTS | params | {
        "prompt": list(prompt_ids),
        "max_tokens": min([room, *limits]),
        "return_token_ids": True,
        "processed_logprobs": wants_logprobs is not False,
    }  # fmt: skip
    return body if model is None else body | {"model": model}


def _output(answer: Mapping[str, Any], has_logprobs: bool) -> TokenOutput:
    (choice,) = answer["choices"]
    version = answer["adapter_version"]
    extra = {
        "global_steps": answer["weight_version"] if version is None else version,
        "weight_checksum": answer["weight_checksum"],
        "adapter_digest": answer["adapter_digest"],
        "finish_reason": choice["finish_reason"],
    }
    extra |= {name: choice[name] for name in ("weight_versions", "adapter_versions") if name in choice}
    return TokenOutput(
        token_ids=choice["token_ids"],
        log_probs=choice["processed_logprobs"] if has_logprobs else None,
        stop_reason="aborted" if choice["finish_reason"] == "abort" else "completed",
        extra_fields=extra,
    )


def _failure(server: _Server, answer: Any) -> GenerationClientError:
    try:
        error = answer.json()["error"]
        return GenerationClientError(f"{server.address}: {error['message']}", answer.status_code, error["code"])
    except (ValueError, KeyError, TypeError):
        return GenerationClientError(f"{server.address} answers {answer.status_code}", answer.status_code)
