"""Numbers to verdicts: limits, baselines and the statistics between them. Nothing here knows what a tensor is."""
