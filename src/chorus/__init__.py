"""Chorus: reinforcement-learning post-training of reasoning models, as a service of separate processes.

    load_config, RunConfig      a recipe, read and checked
    grade, explain              the reward server's verdict on a completion, without a server
    compose, RewardSpec         a reward from its parts
    load_templates              the templates by name
    Result                      what a grader of one's own may return instead of a number
    start                       a whole run, as `chorus run` starts it; iterate over its steps

Nothing is imported before one of these is asked for: agents and all of vLLM's processes pass through this module and
need none of it. docs/python.md shows each of them at work.
"""

TYPE_CHECKING = False  # type checkers take it for true; typing itself need not be imported

if __name__ != "chorus":
    raise ImportError(f"{__name__}: import chorus instead, or modules would exist twice; leave `src` out")

if TYPE_CHECKING:
    from chorus.deploy.api import start
    from chorus.protocol.config.load import load_config
    from chorus.protocol.config.run import RunConfig
    from chorus.protocol.graders import Result
    from chorus.protocol.rewards import RewardSpec, compose
    from chorus.protocol.templates.load import load_templates
    from chorus.reward_server.local import explain, grade

__all__ = ["Result", "RewardSpec", "RunConfig", "compose", "explain", "grade", "load_config", "load_templates", "start"]

_HOMES = {
    "Result": "chorus.protocol.graders",
    "RewardSpec": "chorus.protocol.rewards",
    "RunConfig": "chorus.protocol.config.run",
    "compose": "chorus.protocol.rewards",
    "explain": "chorus.reward_server.local",
    "grade": "chorus.reward_server.local",
    "load_config": "chorus.protocol.config.load",
    "load_templates": "chorus.protocol.templates.load",
    "start": "chorus.deploy.api",
}


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'chorus' has no attribute {name!r}; it offers {', '.join(__all__)}")
    from importlib import import_module

    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value  # the next time it is found at once
    return value


def __dir__():
    return sorted({*globals(), *__all__})
