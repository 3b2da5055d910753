"""The commands: a signature each, light enough for `--help`; their work is in `actions/`."""
