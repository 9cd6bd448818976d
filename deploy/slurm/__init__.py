"""A run as jobs of Slurm. `run.py` submits, resizes and ends it; `head.py` runs inside of one of the jobs.

head       one job: Redis behind a password made for the run, the reward server behind a token
learner    one job over its nodes, under srun; queued again after a failure, a preemption or its time limit
generators job arrays: drained before they are taken away, one more array to grow, elements cancelled to shrink

They find each other by the run's folder, which lies on a file system that all nodes share:

<run>/slurm/jobs             role and number of each job, a line each
            job.sh           what the batch scripts share; head.sbatch, learner.sbatch, generator.sbatch
            redis-password, reward-token, redis.conf    for this user alone (mode 600), as is <run>/config.json
            head             where the head answers: host, port, which start of its job
            claim-head, claim-learner                   which start of the job counts; an older one ends itself
            stop, stop-<job>_<element>                  the run is over; this generator is not wanted any more
"""
