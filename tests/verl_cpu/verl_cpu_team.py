"""A team for verl's agent-loop workers, as a user would write it."""

from interlace import Agent, Limits, Team

team = Team.ceo(
    Agent(format="retool", limits=Limits(max_tokens=96, max_turns=2)),
    max_experts=2,
    rounds=1,
    critiques=1,
)
attempt = team.attempt
