"""What every part may need: the environment, files that people write, checks of values."""
