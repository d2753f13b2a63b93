"""Schedulers by name: the product's, and the systems of the literature it is compared with (`baselines`)."""

from __future__ import annotations

from .admission import Shares, WorkingSet
from .ages import AgeLimits, Ages
from .core import Parts, ProgramScheduler
from .estimates import Estimates
from .fairness import Rates, StartTimeFair
from .keepalive import Priced
from .order import RemainingWork
from .placement import LeastFinish


def fairlead(
    *,
    age_limit_s: float = 900.0,
    lead_s: float = 120.0,
    first_s: float = 30.0,
    elder_s: float = 450.0,
    first_aged_s: float = 300.0,
    effort: float = 0.25,
    regular: float = 0.92,
    grown: float = 0.98,
    hard: float = 0.98,
    guests: float = 0.15,
    stay_s: float = 60.0,
    price: float = 0.3,
    bubble_s: float = 1.0,
    longest_s: float = 120.0,
    memory: float = 1.0,
    quantum: float = 200_000.0,
    program_quantum: float = float("inf"),
    look: int = 4,
    touches: bool = False,
) -> ProgramScheduler:
    estimates, rates = Estimates(), Rates()
    keepalive = Priced(estimates, price=price, bubble_s=bubble_s, longest_s=longest_s)
    return ProgramScheduler(
        Parts(
            admission=WorkingSet(keepalive, Shares(regular, grown, hard, guests), stay_s=stay_s),
            fairness=StartTimeFair(quantum=quantum, program_quantum=program_quantum),
            order=RemainingWork(estimates, rates, memory=memory),
            placement=LeastFinish(),
            keepalive=keepalive,
            estimates=estimates,
            ages=Ages(AgeLimits(age_limit_s, lead_s, first_s, elder_s, first_aged_s, effort)),
            rates=rates,
            look=look,
            touches=touches,
        )
    )


def thunderagent() -> ProgramScheduler:
    from .baselines.placements import BestFit
    from .baselines.thunderagent import FORCED_RESUME_S, PauseResume, SmallestContext
    from .fairness import NoFairness
    estimates = Estimates()
    return ProgramScheduler(Parts(admission=PauseResume(), fairness=NoFairness(), order=SmallestContext(), placement=BestFit(), keepalive=Priced(estimates), estimates=estimates, ages=Ages(AgeLimits(FORCED_RESUME_S, 0.0, float("inf"), float("inf"), float("inf"), 1e9)), one_line=True, touches=False))


def vllm() -> ProgramScheduler:
    from .baselines.placements import Affinity
    from .admission import Unlimited
    from .order import CallOrder
    from .fairness import NoFairness
    estimates = Estimates()
    return ProgramScheduler(Parts(admission=Unlimited(), fairness=NoFairness(), order=CallOrder(), placement=Affinity(), keepalive=Priced(estimates), estimates=estimates, ages=Ages(AgeLimits(float("inf"), 0.0, float("inf"), float("inf"), float("inf"), 1e9)), one_line=True, touches=False))
