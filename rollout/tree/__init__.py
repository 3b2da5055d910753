"""Trees: one thought, several continuations.

An attempt whose leaves are trajectories. `growth.py` holds the leaves while they grow, `rules.py`
says where they branch, `search.py` grows them by a score; `figures.py` counts what was shared.
"""
