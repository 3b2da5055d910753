"""The commands, one file each: options in, printing and an exit code out."""
