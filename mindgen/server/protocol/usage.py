"""What a request has cost."""

from mindgen.server.protocol.body import ResponseBody


class PromptTokensDetails(ResponseBody):
    """
    Attributes:
        cached_tokens: the ones that another request had computed before.
    """

    cached_tokens: int


class Usage(ResponseBody):
    """In tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails | None = None

    @classmethod
    def of(cls, prompt_tokens: int, completion_tokens: int, cached_tokens: int | None = None) -> "Usage":
        """With the details where they are known."""
        total = prompt_tokens + completion_tokens
        made = cls(prompt_tokens=prompt_tokens, completion_tokens=completion_tokens, total_tokens=total)
        if cached_tokens is not None:
            made.prompt_tokens_details = PromptTokensDetails(cached_tokens=cached_tokens)
        return made
