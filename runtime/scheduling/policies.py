"""Schedulers by name: the product's (`fairlead`) and the systems of the literature that it is compared with (`baselines`).

`policy("fairlead", age_limit_s=300)`; an option is a keyword of the function of the same name below.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping

from ...errors import ConfigurationError
from .admission import Admission, RunningSet, Shares, Unlimited, WorkingSet
from .ages import AgeLimits, Ages
from .baselines.continuum import PinnedFirst, PinnedSet, TimeToLive
from .baselines.deficit import Deficit
from .baselines.kvflow import StepsToExecution
from .baselines.lines import AttainedService, LongestPrefix
from .baselines.oracle import Facts, TrueGap, TrueRemaining
from .baselines.placements import Affinity, BestFit, RoundRobin
from .baselines.saga import AffinityWithStealing, FairShare, LeastSlack, SagaTTL
from .baselines.thunderagent import FORCED_RESUME_S, PauseResume, SmallestContext
from .core import ProgramScheduler
from .estimates import Estimates
from .fairness import Fairness, NoFairness, Rates, StartTimeFair
from .keepalive import FixedStay, KeepAlive, Priced
from .order import CallOrder, Order, ProgramOrder, RemainingWork
from .parts import Parts
from .placement import LeastFinish, Placement

_NO_LIMIT = AgeLimits(longest_s=math.inf, lead_s=0.0, first_s=math.inf, first_aged_s=math.inf)
_ABLATIONS = ("admission", "fairness", "order", "placement", "keepalive", "ages")
_EVERYTHING = Shares(regular=1.0, grown=1.0, hard=1.0, guests=0.0, busy=0.0)
_VTC = Rates(missing=1.0, cached=1.0, generated=2.0)


def fairlead(
    *,
    age_limit_s: float = 900.0,
    lead_s: float = 250.0,
    first_s: float = 60.0,
    first_aged_s: float = 400.0,
    effort: float = 0.3,
    first_effort: float = 0.25,
    regular: float = 0.92,
    grown: float = 0.98,
    hard: float = 0.98,
    guests: float = 0.08,
    busy: float = 0.25,
    stay_s: float = 60.0,
    price: float = 0.3,
    bubble_s: float = 1.0,
    longest_s: float = 60.0,
    memory: float = 1.0,
    quantum: float = 50_000.0,
    program_quantum: float = math.inf,
    look: int = 4,
    touches: bool = False,
    without: str = "",
) -> ProgramScheduler:
    """The product: working-set admission, start-time fair tenants, expected remaining work, priced keep-alive.

    `without` names one part to be replaced by the plainest of its kind, for ablations: `admission` (what an engine does
    itself), `fairness` (one line), `order` (program first come, first served), `placement` (affinity), `keepalive` (nothing is
    kept), `ages` (no limit, no reserved share).
    """
    if without and without not in _ABLATIONS:
        raise ConfigurationError(f"no part {without!r} to leave out", hint=f"choose one of: {', '.join(_ABLATIONS)}")
    estimates, rates = Estimates(), Rates()
    keepalive: KeepAlive = Priced(estimates, price=price, bubble_s=bubble_s, longest_s=longest_s)
    if without == "keepalive":
        keepalive = FixedStay(estimates, 0.0)
    parts = Parts(
        admission=WorkingSet(keepalive, Shares(regular, grown, hard, guests, busy), stay_s=stay_s),
        fairness=StartTimeFair(quantum=quantum, program_quantum=program_quantum),
        order=RemainingWork(estimates, rates, memory=memory),
        placement=LeastFinish(),
        keepalive=keepalive,
        estimates=estimates,
        ages=Ages(AgeLimits(age_limit_s, lead_s, first_s, first_aged_s, first_effort, effort)),
        rates=rates,
        look=look,
        touches=touches,
    )
    match without:
        case "admission":
            parts.admission = RunningSet()
        case "fairness":
            parts.fairness, parts.one_line = NoFairness(), True
        case "order":
            parts.order = ProgramOrder()
        case "placement":
            parts.placement = Affinity()
        case "ages":
            parts.ages = Ages(_NO_LIMIT)
    return ProgramScheduler(parts)


def vllm() -> ProgramScheduler:
    """Request first come, first served inside the engine, prefix cache, programs stay on their engine."""
    return _baseline(Unlimited(), CallOrder(), Affinity())


def round_robin() -> ProgramScheduler:
    """Requests to the engines in turn."""
    return _baseline(Unlimited(), CallOrder(), RoundRobin())


def longest_prefix() -> ProgramScheduler:
    """SGLang's longest prefix match."""
    return _baseline(RunningSet(), LongestPrefix(), Affinity())


def vtc() -> ProgramScheduler:
    """Virtual token counter (arXiv 2401.00588): input 1, output 2, smallest counter first, lifted on return."""
    parts = _parts(RunningSet(), CallOrder(), Affinity(), StartTimeFair(quantum=0.0, look=1))
    parts.rates, parts.charge_ahead, parts.one_line, parts.look = _VTC, False, False, 1
    return ProgramScheduler(parts)


def dlpm(*, quantum: float = 100_000.0) -> ProgramScheduler:
    """Deficit longest prefix match (arXiv 2501.14312)."""
    parts = _parts(RunningSet(), LongestPrefix(), Affinity(), Deficit(quantum))
    parts.rates, parts.one_line = Rates(missing=1.0, cached=0.0, generated=2.0), False
    return ProgramScheduler(parts)


def plas() -> ProgramScheduler:
    """Autellix, least attained service of the program."""
    return _baseline(RunningSet(), AttainedService(), Affinity(short=2048))


def atlas() -> ProgramScheduler:
    """Autellix, longest critical path so far."""
    return _baseline(RunningSet(), AttainedService(critical=True), Affinity(short=2048))


def program_fcfs() -> ProgramScheduler:
    """Programs first come, first served."""
    return _baseline(RunningSet(), ProgramOrder(), Affinity())


def continuum() -> ProgramScheduler:
    """Continuum as its paper describes it."""
    keepalive = TimeToLive(Estimates())
    return _baseline(PinnedSet(keepalive, _EVERYTHING, stay_s=0.0), PinnedFirst(), Affinity(), keepalive)


def continuum_2s() -> ProgramScheduler:
    """Continuum's public code: every prefix is kept for two seconds."""
    keepalive = FixedStay(Estimates(), 2.0)
    return _baseline(PinnedSet(keepalive, _EVERYTHING, stay_s=0.0), PinnedFirst(), Affinity(), keepalive)


def thunderagent(*, decay: bool = False) -> ProgramScheduler:
    """ThunderAgent."""
    parts = _parts(PauseResume(decay=decay), SmallestContext(), BestFit())
    parts.ages = Ages(AgeLimits(FORCED_RESUME_S, 0.0, math.inf, math.inf, effort=1e9))
    return ProgramScheduler(parts)


def saga() -> ProgramScheduler:
    """SAGA: needs engines that pin and choose victims by value to be itself; elsewhere its pins are places at the gate."""
    share = FairShare()
    keepalive = SagaTTL(Estimates(), share=share)
    admission = PinnedSet(keepalive, _EVERYTHING, stay_s=0.0)
    parts = _parts(admission, LeastSlack(share), AffinityWithStealing(), share, keepalive)
    parts.one_line = False
    return ProgramScheduler(parts)


def kvflow() -> ProgramScheduler:
    """KVFlow: needs engines that choose victims by value."""
    return _baseline(RunningSet(), CallOrder(), Affinity(), StepsToExecution(Estimates()))


def oracle(*, facts: Facts, price: float = 0.3) -> ProgramScheduler:
    """Clairvoyant: knows remaining work and gaps. Mark every figure of it as such."""
    keepalive = TrueGap(Estimates(), facts, price=price)
    admission = WorkingSet(keepalive, Shares())
    return _baseline(admission, TrueRemaining(facts), LeastFinish(), keepalive)


def _parts(
    admission: Admission,
    order: Order,
    placement: Placement,
    fairness: Fairness | None = None,
    keepalive: KeepAlive | None = None,
) -> Parts:
    """Parts without a limit on age, all tenants in one line."""
    estimates = Estimates()
    return Parts(
        admission=admission,
        fairness=fairness or NoFairness(),
        order=order,
        placement=placement,
        keepalive=keepalive or FixedStay(estimates, 0.0),
        estimates=estimates,
        ages=Ages(_NO_LIMIT),
        one_line=True,
    )


def _baseline(admission: Admission, order: Order, placement: Placement, keepalive: KeepAlive | None = None) -> ProgramScheduler:
    return ProgramScheduler(_parts(admission, order, placement, keepalive=keepalive))


_MAKERS: Mapping[str, Callable[..., ProgramScheduler]] = {
    "fairlead": fairlead,
    "vllm": vllm,
    "round-robin": round_robin,
    "longest-prefix": longest_prefix,
    "vtc": vtc,
    "dlpm": dlpm,
    "plas": plas,
    "atlas": atlas,
    "program-fcfs": program_fcfs,
    "continuum": continuum,
    "continuum-2s": continuum_2s,
    "thunderagent": thunderagent,
    "saga": saga,
    "kvflow": kvflow,
    "oracle": oracle,
}

NAMES = tuple(_MAKERS)
"""Policies that `policy` knows. `oracle` needs `facts` and is for simulations only."""


def policy(name: str, **options: object) -> ProgramScheduler:
    """A new scheduler. Raises `ConfigurationError` for an unknown name or option, listing the known ones."""
    maker = _MAKERS.get(name)
    if maker is None:
        raise ConfigurationError(f"no scheduling policy {name!r}", hint=f"choose one of: {', '.join(NAMES)}")
    known = inspect.signature(maker).parameters
    if unknown := sorted(set(options) - set(known)):
        listed = ", ".join(known) or "none"
        raise ConfigurationError(f"policy {name!r} has no option {unknown[0]!r}", hint=f"its options: {listed}")
    missing = [each for each, parameter in known.items() if parameter.default is parameter.empty and each not in options]
    if missing:
        raise ConfigurationError(f"policy {name!r} needs the option {missing[0]!r}")
    return maker(**options)
