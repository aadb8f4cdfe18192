"""Calling a model: with what, what counts of what it puts out, how near two come, and two in turn against the clock."""
