"""The CPU kernels: csrc/kernels (plain C functions), csrc/plugin (MindSpore's view of them), and their Python side."""
