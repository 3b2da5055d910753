"""Many attempts at once: the runner, rounds, the call cache, strategies and votes."""
