"""Several devices: who takes part (rank tables), and the processes, one for each device."""
