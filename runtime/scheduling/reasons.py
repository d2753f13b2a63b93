"""Why a call waits, for a person and for a test. Reads the scheduler and changes nothing; walks the line: not for hot paths."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .admission import Lane
from .port import Why

if TYPE_CHECKING:
    from .core import ProgramScheduler
    from .state import Call


def explain(scheduler: ProgramScheduler, call_id: int, now: float) -> Why:
    call = scheduler.calls.get(call_id)
    if call is None:
        return Why("unknown call", f"there is no call {call_id}")
    if not call.waiting:
        assert call.engine is not None
        return Why(
            "in flight",
            f"in flight on engine {call.engine.name!r} since {now - call.sent_at:.1f} s",
            facts=_facts(scheduler, call, now),
        )
    return _waiting(scheduler, call, now)


def _waiting(scheduler: ProgramScheduler, call: Call, now: float) -> Why:
    facts = _facts(scheduler, call, now)
    tenant = call.program.tenant
    place = next((key for key, _, other in tenant.heap if other is call), ())
    ahead = sum(1 for key, _, other in tenant.heap if other.waiting and key < place)
    if not scheduler.engines:
        return Why("place", "there is no engine", ahead, facts)
    if all(engine.in_flight >= engine.in_flight_max for engine in scheduler.engines.values()):
        return Why("place", f"all engines are full; {ahead} calls of this tenant go before it", ahead, facts)
    if not scheduler.parts.fairness.eligible(tenant):
        text = f"tenant {tenant.name!r} has had more than its share; tenants with a smaller tag go first"
        return Why("fairness", text, ahead, facts)
    if call.reserved_on is not None:
        return Why(
            "memory", f"room is being made for it on engine {call.reserved_on.name!r}: it reached the age limit", ahead, facts
        )
    for engine in scheduler.engines.values():
        reserved = engine.reserved_for
        if reserved is not None and not ahead:
            return Why(
                "memory", f"engine {engine.name!r} makes room for call {reserved.call_id}, which waits longer", ahead, facts
            )
    if not any(scheduler.parts.admission.fits(engine, call, Lane.REGULAR, now) for engine in scheduler.engines.values()):
        text = f"its {call.need} tokens do not fit beside the programs that have a place; {ahead} calls go before it"
        return Why("memory", text, ahead, facts)
    return Why("order", f"{ahead} calls of this tenant go before it", ahead, facts)


def _facts(scheduler: ProgramScheduler, call: Call, now: float) -> dict[str, float | str]:
    program, limits = call.program, scheduler.parts.ages.limits
    facts: dict[str, float | str] = {
        "waited_s": now - call.ready_at if call.waiting else call.sent_at - call.ready_at,
        "age_limit_s": limits.longest_s,
        "needs_tokens": float(call.need),
        "tenant_tag": program.tenant.tag,
        "program_tag": program.tag,
        "calls_made": float(program.made),
        "calls_left": scheduler.parts.estimates.completion.calls_left(program.workflow, program.made),
    }
    for engine in scheduler.engines.values():
        facts[f"free_tokens:{engine.name}"] = engine.capacity - engine.booked
    return facts
