"""What is wrong with a run, from the rollouts of its first steps.

`examine` is a pure function over groups (examine.py); the learner calls it as its first steps end (visit.py), and
`chorus doctor` over a run's folder. tokens.py knows what a prompt looks like to the tokenizer.
"""
