"""How often the gate is wrong on this very machine: measured, not promised."""
