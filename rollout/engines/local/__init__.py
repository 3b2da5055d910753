"""A model in this process: batches of packed attention with kept caches, in exact arithmetic."""
