"""Requests of the protocol to requests of the engine, and what comes of them back into choices."""
