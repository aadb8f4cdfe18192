"""Verdicts as a table that a reader can take in at a glance: in the terminal and in Markdown."""
