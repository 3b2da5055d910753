"""Any OpenAI-compatible server: the engine, its client and what a server is capable of."""
