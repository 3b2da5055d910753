"""Task, ledger, formats, engines, the loop, the runner and the store."""
