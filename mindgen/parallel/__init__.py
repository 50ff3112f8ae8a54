"""Which device holds what of a network, and the processes that run it together."""
