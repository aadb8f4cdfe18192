"""The machine: whole files, other processes, this CPU, and how far long work is; nothing of it knows torch."""
