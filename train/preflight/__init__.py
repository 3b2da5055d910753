"""Checks before a run: memory, model shapes, reachable services, a trial run."""
