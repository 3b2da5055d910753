"""vLLM in this process: the engine, kept contexts, its start and its weights."""
