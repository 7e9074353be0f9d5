"""The scenarios, a module each: `run(session, result)` fills the result or raises Loss.

They meet only in `session`; none knows another one's figures.
"""
