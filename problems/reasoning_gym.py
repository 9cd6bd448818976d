"""Problems of reasoning-gym by the task's name: `reasoning-gym:TASK?seed=0&size=500&further options of the task`.

The text is the task's own question. Many tasks have several right answers, so the first gold is the name of the item
(protocol/reasoning_gym.py): the reward server makes it again and asks the task's own scorer. The second gold is the
answer that reasoning-gym holds, where it has one.
"""

import logging

from chorus.protocol.messages import Problem
from chorus.protocol.reasoning_gym import PREFIX, GymError, digest, items

log = logging.getLogger("chorus.problems")


def load_gym(spec: str) -> list[Problem]:
    """All different items of one task, in its order.

    Raises ValueError for a spec that can't be used, ImportError where reasoning-gym is not installed.
    """
    problems: dict[str, Problem] = {}
    try:
        found = items(spec)
        for index in range(found.size):
            entry = found.entry(index)
            question, oracle = entry["question"], "" if entry["answer"] is None else str(entry["answer"])
            problem = Problem(
                # By its text: overlapping seeds hold the same items, and the same item is the same problem.
                id=f"{PREFIX}{found.task}/{digest(question)}",
                problem=question,
                answers=[found.name(index, question), *([oracle] if oracle.strip() else [])],
                kind="reasoning_gym",
                domain=found.category,
                source=f"{PREFIX}{found.task}",
            )
            problems.setdefault(problem.id, problem)
    except GymError as error:
        raise ValueError(f"problems {spec!r}: {error}") from error
    if len(problems) < found.size:
        log.warning(
            "%s: %d of %d items repeat another one and are left out", spec, found.size - len(problems), found.size
        )
    return list(problems.values())
