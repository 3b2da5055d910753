"""The CEO learns: to size a team and to stop it, on generated problems whose optimum is known."""
