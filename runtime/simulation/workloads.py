"""Synthetic workloads with the published parameters of other systems, and those that our promises are tested with.

Each takes a random generator and gives programs; the same seed gives the same programs. What a publication leaves open (how
steps are distributed, what happens when a context is full) is chosen here and said in the docstring.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from statistics import NormalDist

from .chains import Stretch
from .programs import Call, Program, Workload

_NORMAL = NormalDist()


def poisson(count: int, per_s: float, rng: random.Random) -> list[float]:
    """Arrival times of a Poisson process, from the first arrival on."""
    times, now = [], 0.0
    for _ in range(count):
        now += rng.expovariate(per_s)
        times.append(now)
    return times


@dataclass(frozen=True, slots=True)
class ToolTimes:
    """A log-normal body through the median and the 95th percentile, and a Pareto tail through that and the 99th.

    The log-normal alone misses the published tails by a factor of 1.7 to 5.
    """

    p50: float
    p95: float
    p99: float
    cap: float = 300.0

    def draw(self, rng: random.Random) -> float:
        return self.quantile(rng.random())

    def quantile(self, share: float) -> float:
        """Seconds; 0.5 -> p50, 0.95 -> p95, 0.99 -> p99."""
        if share <= 0.95:
            sigma = math.log(self.p95 / self.p50) / _NORMAL.inv_cdf(0.95)
            return self.p50 * math.exp(sigma * _NORMAL.inv_cdf(max(share, 1e-9)))
        slope = math.log(self.p99 / self.p95) / math.log(5)
        return min(self.cap, self.p95 * math.pow((1 - min(share, 1 - 1e-9)) / 0.05, -slope))


SAGA_TOOLS = {
    "code": ToolTimes(0.180, 2.4, 28.0),
    "file": ToolTimes(0.045, 0.320, 1.2),
    "web": ToolTimes(0.850, 4.5, 45.0),
    "db": ToolTimes(0.120, 0.890, 3.5),
}
"""Seconds, as SAGA (arXiv 2605.00528) gives them in milliseconds."""


@dataclass(frozen=True, slots=True)
class Agents:
    """One kind of agent: a loop of a model call and a tool, as SAGA describes its workloads."""

    name: str
    steps_mean: float
    steps_max: int
    prompt: tuple[int, int]
    """First prompt, tokens."""
    output: tuple[int, int]
    observation_mean: float
    """Tokens that a tool's answer adds."""
    tools: tuple[tuple[str, float], ...]
    """Share of each tool."""
    steps_spread: float = 0.5
    """Sigma of the log-normal that steps are drawn from."""
    context_max: int = 32_768
    deadline_s: float | None = None


SAGA_SWE = Agents(
    "swe-bench", 37, 150, (2_000, 4_000), (100, 500), 350, (("code", 0.45), ("file", 0.40), ("web", 0.10), ("db", 0.05)),
    deadline_s=1.5 * 200,
)  # fmt: skip
SAGA_WEB = Agents(
    "webarena", 18, 80, (4_000, 8_000), (50, 200), 800, (("web", 0.75), ("file", 0.15), ("code", 0.05), ("db", 0.05)),
    deadline_s=1.5 * 80,
)  # fmt: skip


def agents(kind: Agents, count: int, rng: random.Random, tenant: str = "default") -> list[Program]:
    """`count` programs of a kind.

    Steps: log-normal with the given mean, at least 3. Observations: gamma (shape 2). A context that would be full is compacted:
    the first prompt and a quarter of the context stay, as a new text.
    """
    mu = math.log(kind.steps_mean) - kind.steps_spread**2 / 2
    programs = []
    for number in range(count):
        steps = min(kind.steps_max, max(3, round(rng.lognormvariate(mu, kind.steps_spread))))
        programs.append(
            Program(
                f"{tenant}-{kind.name}-{number}",
                tuple(_loop(kind, steps, rng)),
                tenant=tenant,
                workflow=kind.name,
                deadline_s=kind.deadline_s,
            )
        )
    return programs


def _loop(kind: Agents, steps: int, rng: random.Random) -> Iterable[Call]:
    first = prompt = rng.randint(*kind.prompt)
    prefix: tuple[Stretch, ...] = (Stretch(0, 0),)
    gap_s, label = 0.0, 0
    names, shares = zip(*kind.tools, strict=True)
    for step in range(steps):
        output = rng.randint(*kind.output)
        tool = rng.choices(names, shares)[0]
        yield Call(prompt, output, (step - 1,) if step else (), gap_s, prefix, tool=tool)
        gap_s = SAGA_TOOLS[tool].draw(rng)
        prompt += output + max(1, round(rng.gammavariate(2.0, kind.observation_mean / 2)))
        if prompt + kind.output[1] > kind.context_max:
            label += 1
            prefix = (Stretch(first // 16, 0), Stretch(0, label))
            prompt = first + kind.context_max // 4


def ten_tenants(minutes: float, rng: random.Random, *, rate: float = 1.0, expected_s: Callable[[Program], float]) -> Workload:
    """SAGA's multi-tenant setting: 3 heavy, 4 medium and 3 light tenants, with deadlines of 1.5 times the expected time.

    Heavy: 100 steps, 16 tasks a minute, weight 3; medium: 30, 8, 2; light: 10, 4, 1. `rate` scales the arrivals (the paper
    gives the load as about 80 % of the cluster's peak); `expected_s` says how long a program should take.
    """
    classes = (("heavy", 3, 100, 16, 3.0), ("medium", 4, 30, 8, 2.0), ("light", 3, 10, 4, 1.0))
    programs: list[Program] = []
    weights: dict[str, float] = {}
    for name, tenants, steps, per_minute, weight in classes:
        kind = replace(SAGA_SWE, name=name, steps_mean=steps, steps_max=steps * 2, steps_spread=0.2)
        for number in range(tenants):
            tenant = f"{name}-{number}"
            weights[tenant] = weight
            count = max(1, round(minutes * per_minute * rate))
            times = sorted(rng.uniform(0, minutes * 60) for _ in range(count))
            for program, at in zip(agents(kind, count, rng, tenant), times, strict=True):
                programs.append(replace(program, arrival_s=at, deadline_s=1.5 * expected_s(program)))
    programs.sort(key=lambda program: program.arrival_s)
    return Workload(tuple(programs), tenants=weights, name="ten tenants")


@dataclass(frozen=True, slots=True)
class Statistics:
    """Published statistics of a trace, mean and standard deviation."""

    name: str
    turns: tuple[float, float]
    tool_s: tuple[float, float]
    tokens: tuple[float, float]
    """Of a program's last context."""


CONTINUUM_SWE = Statistics("mini-swe-agent", (10.9, 2.1), (0.925, 3.550), (70_126, 19_732))
CONTINUUM_BFCL = Statistics("bfcl-web-search", (6.3, 2.3), (1.923, 2.133), (93_256, 68_687))
"""Two traces of Continuum (arXiv 2511.02230)."""


def by_statistics(kind: Statistics, count: int, rng: random.Random, *, scale: float = 1.0) -> list[Program]:
    """Programs with these statistics: turns normal, tool times and tokens log-normal.

    The first prompt is a tenth of the last context and the rest comes in equal parts; answers have 100 to 300 tokens. `scale`
    is a factor on contexts.
    """
    programs = []
    for number in range(count):
        turns = max(2, round(rng.gauss(*kind.turns)))
        last = min(_lognormal(*kind.tokens, rng), 3 * kind.tokens[0]) * scale
        outputs = [rng.randint(100, 300) for _ in range(turns)]
        added = max(1.0, (0.9 * last - sum(outputs)) / turns)
        calls, prompt = [], max(1, round(0.1 * last))
        for turn, output in enumerate(outputs):
            gap_s = _lognormal(*kind.tool_s, rng) if turn else 0.0
            calls.append(Call(prompt, output, (turn - 1,) if turn else (), gap_s, tool="tool"))
            prompt += output + round(added)
        programs.append(Program(f"{kind.name}-{number}", tuple(calls), workflow=kind.name))
    return programs


def _lognormal(mean: float, deviation: float, rng: random.Random) -> float:
    variance = math.log(1 + (deviation / mean) ** 2)
    return rng.lognormvariate(math.log(mean) - variance / 2, math.sqrt(variance))


def known_graphs(
    workflows: int,
    programs_each: int,
    rng: random.Random,
    *,
    agents_each: int = 10,
    fixed_tokens: int = 4_096,
    rounds: int = 3,
    answer: tuple[int, int] = (32, 128),
) -> list[Program]:
    """KVFlow's setting: declared workflows whose agents take turns, each with a long fixed prompt of its own.

    An agent's prompt is its fixed part, the same in every program of the workflow, and up to 512 tokens from the agent before;
    `answer` bounds the tokens of answers; between agents lies a short pause of code.
    """
    programs = []
    for workflow in range(workflows):
        for number in range(programs_each):
            calls = []
            for position in range(agents_each * rounds):
                agent = position % agents_each
                fixed = Stretch(fixed_tokens // 16, -1 - workflow * agents_each - agent)
                calls.append(
                    Call(
                        fixed_tokens + rng.randint(128, 512),
                        rng.randint(*answer),
                        (position - 1,) if position else (),
                        rng.uniform(0.05, 0.5) if position else 0.0,
                        (fixed, Stretch(0, position)),
                        agent=f"agent-{agent}",
                        step=f"agent-{agent}",
                    )
                )
            name = f"workflow-{workflow}"
            programs.append(Program(f"{name}-{number}", tuple(calls), workflow=name, declared=True))
    rng.shuffle(programs)
    return programs


def adversary(rng: random.Random, *, honest: int = 3, programs_each: int = 40) -> Workload:
    """Equal tenants that all have more to do than the engines can; the last one splits its work into scraps.

    Honest programs are loops of about 15 calls. The adversary has ten times as many programs, each a fan-out of 8 sub-agents
    of 2 calls with short prompts, to gain from whatever counts requests, programs or agents. All arrive in the first seconds.
    """
    kind = replace(SAGA_SWE, name="honest", steps_mean=15, steps_max=40, deadline_s=None)
    programs = [
        replace(program, arrival_s=rng.uniform(0, 5))
        for number in range(honest)
        for program in agents(kind, programs_each, rng, f"honest-{number}")
    ]
    programs.extend(
        Program(f"scraps-{number}", tuple(_scraps(rng)), rng.uniform(0, 5), "adversary", workflow="scraps")
        for number in range(10 * programs_each)
    )
    programs.sort(key=lambda program: program.arrival_s)
    tenants = {program.tenant: 1.0 for program in programs}
    return Workload(tuple(programs), tenants=tenants, name="adversary")


def _scraps(rng: random.Random) -> Iterable[Call]:
    for agent in range(8):
        prompt, output = rng.randint(500, 1_500), rng.randint(50, 200)
        prefix, name = (Stretch(0, agent),), f"agent-{agent}"
        yield Call(prompt, output, (), 0.0, prefix, agent=name)
        yield Call(prompt + output + 200, rng.randint(50, 200), (2 * agent,), rng.expovariate(1.0), prefix, agent=name)


def replenished(programs: Iterable[Program], concurrency: int, horizon_s: float) -> Workload:
    """A load that never lets up until the horizon: whoever ends is replaced at once."""
    return Workload(tuple(programs), concurrency=concurrency, horizon_s=horizon_s, name="replenished")
