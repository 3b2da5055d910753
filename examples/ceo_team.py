"""A CEO and its experts. The bundled model can solve this and play no other role: where a role
can't be read, the team's defaults hold. With a larger model each line is what it decided.
"""

from interlace import Agent, Budget, Team
from interlace.agent import Decided, Judged, Recruited, Voted

agent = Agent(budget=Budget(tokens=4000))
with Team.ceo(agent, max_experts=3, rounds=1, tokens=(128, 512)) as team:
    for event in team.stream_sync("A crate holds 4387 bolts. How many bolts are in 296 crates?"):
        if isinstance(event, Decided | Recruited | Voted | Judged):
            print(event)
    assert team.last is not None
    print(f"{team.last.answer}, by {len(team.last.episode.trajectories)} calls of the model")
