"""ReTool's claim in small: reinforcement learning with an interpreter against text.

`python -m studies.retool`, or `make reproduce-retool`. What is expected was written down
before the run: `settings.EXPECTATION`. What came out: docs/reproduce_retool.md.
"""
