"""For a team's rollouts: the grammar of its replies, and budget forcing."""
