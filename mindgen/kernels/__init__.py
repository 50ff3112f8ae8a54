"""The CPU kernels: csrc (C functions, a graph executor, and MindSpore's views of both), and their Python side."""
