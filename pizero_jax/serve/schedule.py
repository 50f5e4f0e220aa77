"""How many requests go into the next call, and how long they wait for others: so that all are answered soonest.

Where a call of eight takes as long as a call of one, as on an accelerator, it is worth to wait for those about to ask;
where it takes eight times as long, it never is, and calls are small. Which of the two holds is measured.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

SHARE = 0.2  # of what is thought of a size that the latest call of it makes up


class Times:
    """Seconds of a call by its size, as calls have shown; one not tried yet is thought as fast as the next smaller."""

    def __init__(self):
        self._seen: dict[int, float] = {}

    def note(self, size: int, seconds: float) -> None:
        before = self._seen.get(size, seconds)
        self._seen[size] = before + SHARE * (seconds - before)

    def __call__(self, size: int) -> float:
        return self._seen.get(max((seen for seen in self._seen if seen <= size), default=0), 0.0)


class Plan(NamedTuple):
    """Calls, one after the other, that answer some requests."""

    cost: float  # seconds waited, by those who are there and by those who come after
    lasts: float  # seconds until all are answered
    first: int  # size of the first call


def plans(count: int, sizes: Sequence[int], seconds: Callable[[int], float]) -> list[Plan]:
    """The best plan for each number of requests from 0 to `count`.

    A second of a call is waited by whoever is not yet answered, and by `count` who ask when they have been: robots come
    again, and what is fast for one at the cost of the rest is paid for later.

    Args:
      sizes: of calls, ascending; they are filled up.
      seconds: of a call of a size.
    """
    found, times = [Plan(0.0, 0.0, 0)], [(size, seconds(size)) for size in sizes]
    for n in range(1, count + 1):
        enough = next((size for size in sizes if size >= n), sizes[-1])
        tried = []
        for size, time in times:
            if size <= enough:
                rest = found[max(0, n - size)]
                tried.append(Plan(time * (n + count) + rest.cost, time + rest.lasts, size))
        found.append(min(tried, key=lambda plan: (plan.cost, -plan.first)))
    return found


def patience(count: int, arrivals: Sequence[float], plans: Sequence[Plan]) -> float:
    """Seconds for which `count` requests wait for others; 0 if they are to be answered at once.

    Args:
      arrivals: seconds until each of the others comes, ascending.
      plans: for up to as many as all of them.
    """
    now, everybody = plans[count], len(plans) - 1
    for more, last in enumerate(arrivals, 1):
        if last >= now.lasts:  # by then they could all have been answered
            break
        others = sum(last - arrival for arrival in arrivals[:more])
        together = (count + everybody) * last + others + plans[count + more].cost
        apart = now.cost + sum(now.lasts - arrival for arrival in arrivals[:more]) + plans[more].cost
        if together < apart:
            return last
    return 0.0
