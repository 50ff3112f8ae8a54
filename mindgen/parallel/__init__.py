"""Several devices: who takes part, the processes, which of them holds what of a network, and how they meet."""
