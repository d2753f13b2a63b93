"""The set of parts that a scheduler is composed of."""

from __future__ import annotations

from dataclasses import dataclass, field

from .admission import Admission
from .ages import Ages
from .capacity import Capacity
from .estimates import Estimates
from .fairness import Fairness, Rates
from .keepalive import KeepAlive
from .order import Order
from .placement import Placement


@dataclass(slots=True)
class Parts:
    """What a scheduler is composed of. One set per scheduler: parts keep state."""

    admission: Admission
    fairness: Fairness
    order: Order
    placement: Placement
    keepalive: KeepAlive
    estimates: Estimates
    ages: Ages = field(default_factory=Ages)
    capacity: Capacity = field(default_factory=Capacity)
    rates: Rates = field(default_factory=Rates)
    one_line: bool = False
    """All tenants wait in one line: nothing is shared out between them."""
    charge_ahead: bool = True
    """Charge the expected output as a call is sent; otherwise when it has ended (VTC)."""
    look: int = 4
    """Calls at the head of a line that are tried, where the first does not fit."""
    touches: bool = False
    """Refresh prefixes of agents with a place when they are next to be forgotten."""
