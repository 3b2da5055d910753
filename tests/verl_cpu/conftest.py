"""These modules are loaded by verl's processes, never by pytest."""

collect_ignore_glob = ["verl_cpu_*.py"]
