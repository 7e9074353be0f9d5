"""`dispatcherd demo`: the way of an event on one machine, with parts from PyPI alone.

Beside the command line, on no way of an event: it starts the real daemon as a process and looks
at it from outside. Reads in this order: main, stand (the parts), scenario, samples, tally, view.
"""
