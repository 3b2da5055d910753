"""An answer as a value of your own type: checked, and asked for again where it does not fit."""

from pydantic import PositiveInt, RootModel

from interlace import Agent


class Bolts(RootModel[PositiveInt]):
    """How many there are; a model that writes JSON can fill any pydantic model."""


with Agent(output=Bolts) as agent:
    result = agent.run_sync("A crate holds 4387 bolts. How many bolts are in 296 crates?")
    if result.output is None:
        print("no such answer:", result.output_problem)
    else:
        print(result.output.root + 1, "is one more")
