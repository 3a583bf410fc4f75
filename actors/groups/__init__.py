"""Groups of Ray actors: rollout, reward, policy, and the fleet of all three.

A module has an actor and the group of them as the driver sees it; `weights.py` moves weights from
the policy ranks to the rollout engines. Begin with `fleet.py`.

Imports: `cluster` and `engines`; `reward`, `rl`, `conf`.
"""
