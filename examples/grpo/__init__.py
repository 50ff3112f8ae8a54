"""The parts of grpo_lora.py: a loop that improves an adapter by the rewards of its own answers."""
