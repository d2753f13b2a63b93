"""Programs, engines and a scheduler on a virtual clock: what would have happened, without waiting for it.

The scheduler is the object that production uses, the engines are the embedded engine's own model; only the source of events
differs. Pure and deterministic: the same workload, engines and policy give the same run.
"""
