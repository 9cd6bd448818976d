"""`python -m chorus.benchmarks.experiments.adapters`: SmolLM2 through adapters of rank 16, and whole, at equal steps.

Arms: `whole` is recipes/smollm2.toml, `adapters` is recipes/smollm2_lora.toml. A run took a quarter of an hour on two
cores. What is told of each is what lean.py tells.
"""

import sys

from chorus.benchmarks.experiments.arms import main
from chorus.benchmarks.experiments.lean import FIGURES

if __name__ == "__main__":
    sys.exit(main("adapters", __doc__, FIGURES))
