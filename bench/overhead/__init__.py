"""What Fairlead costs per step and per turn, beside its peers and beside what cannot be had for less.

`__main__` says how a run goes. Arms (Fairlead, the floors, each peer) run as processes of their own, peers in environments of
their own; they take turns shape by shape, so that all of them meet the same machine.
"""
