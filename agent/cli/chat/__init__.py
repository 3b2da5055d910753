"""The chat: its session, its slash commands and the line that a person edits."""
