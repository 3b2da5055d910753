"""Ask before a call is run, and spend no more than a budget, over several questions."""

from interlace import Agent, Approval, Budget
from interlace.agent import ApprovalAsked, Done

rules = Approval(r"deny python \bsubprocess\b", "ask")
budget = Budget(tokens=5000, calls=10, seconds=600)

with Agent(approve=rules, budget=budget) as agent:
    for event in agent.stream_sync("A shelf holds 318 books. How many are on 47 shelves?"):
        match event:
            case ApprovalAsked(tool, arguments):
                print(f"{tool} wants to run {arguments['code'].strip()!r}: allowed")
                event.allow()
            case Done(result):
                print(f"{result.answer}; {budget.left.calls} calls left")
