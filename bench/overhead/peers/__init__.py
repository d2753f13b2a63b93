"""One module per peer: the shapes as its own documentation would write them, run in the peer's environment.

Beside each module stand the versions it was written for (`NAME.txt`).
"""
