"""Sweeps: many settings of some recipes, each run and measured, and which of them no other one beats."""
