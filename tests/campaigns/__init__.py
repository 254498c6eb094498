"""Campaigns: many random faults against the toolkit, from a seed and a size. `python -m tests.campaigns` lists and runs them."""
