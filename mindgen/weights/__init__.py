"""Checkpoints: where they lie, under which names, and how ranks share them."""
