"""Runs the network: on the CPU, on a device, over several ranks; the engine gives it batches."""
