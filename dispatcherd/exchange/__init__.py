"""Requests out, answers back: the seam, the fast exchange behind it, and the reference.

Reads in this order: `seam` (what both promise), `fast` (connections taken, kept and given back),
`http11` (one connection), `answer` (bytes to a Response), `classify` (a failure's Reason),
`reference` (the same promise kept by aiohttp's ClientSession; the tests run against both).
"""

from dispatcherd.exchange.fast import FastExchange
from dispatcherd.exchange.reference import ClientSessionExchange
from dispatcherd.exchange.seam import Exchange, Flight, Target, exchanged, header_lines

__all__ = [
    "ClientSessionExchange",
    "Exchange",
    "FastExchange",
    "Flight",
    "Target",
    "exchanged",
    "header_lines",
]
