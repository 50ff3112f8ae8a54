"""Checkpoint formats: files are mapped, not copied, and nothing in them is executed."""
