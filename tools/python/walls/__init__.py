"""The walls around code: namespaces, Landlock, a system-call filter, user ids, limits."""
