"""Helpers that several tests share: fakes, tiny models, servers, terminals, warm processes."""
