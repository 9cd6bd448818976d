"""What a fleet of generators would do for a run, simulated event by event: no engine, no Redis, no clock.

    pace.py       how fast everybody is: engine, grader, learner, weight sync, and how long completions are
    calibrate.py  a pace from a recorded run, or lengths from a file
    engine.py     one generator: leases, sequences that share the engine, pauses for new weights
    fleet.py      the run: credits, queue, generators, training window, learner, weights
    forecast.py   what a fleet size comes to, and which one to take

The rules are the system's own: `Window` of learner/rollouts chooses the groups of a step here as it does there.
"""
