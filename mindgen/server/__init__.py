"""The HTTP server: OpenAI's API and vLLM's additions to it, with every adapter as a model of its own."""
