"""Layout of a run on machines: model shapes, memory, placement, and the dry run that shows them.

May import `actors.groups`, `actors.cluster` and what lies below `actors`. Begin with `plan`.
"""
