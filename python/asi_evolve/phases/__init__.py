"""The phases of a cycle: the four, and the test of an explanation.

Each reads the knowledge base and writes to it, and touches neither SQL nor processes.
"""

from asi_evolve.phases.analyze import analyze
from asi_evolve.phases.design import design
from asi_evolve.phases.experiment import confirm, experiment
from asi_evolve.phases.explain import explain
from asi_evolve.phases.learn import learn

__all__ = ["analyze", "confirm", "design", "experiment", "explain", "learn"]
