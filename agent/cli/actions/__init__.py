"""The work of the commands: loaded when a command runs, so modules here import at their top."""
