"""The bench: what a recorded, signed webhook costs, measured so that a sceptic can repeat it.

`python -m bench drain`, `python -m bench all --quick`; README.md says what each figure means.
Invariant: a run in which an event is lost, misrouted or unrecorded is a failure and never a figure.
Leaves out: pass marks for tests (a target that is missed is shown as such, and fails nothing).
"""
