"""Making a model smaller by leaving weights out: whole channels, or single weights."""
