"""Groups of Ray actors: rollout, reward, policy, and the fleet of all three.

A module has an actor and the group of them as the driver sees it; `supervision.py` replaces actors
that are lost, `dealing.py` says which engine samples what, and `weights.py` moves weights from
the policy ranks to the rollout engines. Begin with `fleet.py`.

Imports: `cluster` and `engines`; `reward`, `rl`, `conf`.
"""
