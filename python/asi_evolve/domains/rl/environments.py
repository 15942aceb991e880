"""The judge's side: Gymnasium environments, stepped where no candidate's code runs, and what was earned there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from asi_evolve.errors import ConfigError, EvaluationFailure

EXTRA = "pip install 'asi-evolve-engine[rl]'"
EXTRA_MUJOCO = "pip install 'asi-evolve-engine[rl-mujoco]'"
EXTRA_ATARI = "pip install 'asi-evolve-engine[rl-atari]'"


@dataclass(frozen=True)
class Task:
    """What returns mean in an environment.

    Attributes:
        low: mean return of the uniform random policy.
        high: mean return that counts as solved.
    """

    low: float
    high: float


# low: mean of 100 episodes of uniform random actions (Gymnasium 1.4; 51 of Pong). high: Gymnasium's own threshold for
# CartPole, the mountain cars and InvertedPendulum; else a scale of our choice, about what a plain PPO reaches.
TASKS: Mapping[str, Task] = {
    "CartPole-v1": Task(23.7, 475.0),
    "Acrobot-v1": Task(-497.0, -90.0),
    "Pendulum-v1": Task(-1208.0, -200.0),
    "MountainCarContinuous-v0": Task(-33.3, 90.0),
    "MountainCar-v0": Task(-200.0, -110.0),
    "Hopper-v5": Task(16.7, 2500.0),
    "HalfCheetah-v5": Task(-282.0, 2000.0),
    "Walker2d-v5": Task(1.8, 3000.0),
    "Swimmer-v5": Task(0.8, 100.0),
    "InvertedPendulum-v5": Task(5.2, 950.0),
    "ALE/Pong-v5": Task(-20.3, 18.0),
    "ALE/Breakout-v5": Task(1.3, 100.0),
}


def check_environment(name: str) -> None:
    """Makes the environment once.

    Raises:
        ConfigError: it is not installed, not known, or has observations or actions that are not supported; one line.
    """
    environment = make(name)
    try:
        describe(name, environment)
    finally:
        environment.close()


def make(name: str) -> Any:
    """One environment. Atari games give the 128 bytes of the machine's memory, not pixels. Raises ConfigError."""
    try:
        import gymnasium
    except ImportError:
        raise ConfigError(f"environments: {name!r} needs Gymnasium, which is not installed: {EXTRA}") from None
    arguments: dict[str, Any] = {"disable_env_checker": True}  # it costs as much as a small environment
    try:
        if name.startswith("ALE/"):
            import ale_py

            gymnasium.register_envs(ale_py)
            arguments["obs_type"] = "ram"
        return gymnasium.make(name, **arguments)
    except Exception as error:
        # Gymnasium wraps a missing package in errors of its own, of several kinds.
        text = " ".join(str(error).split())
        if name.startswith("ALE/") and isinstance(error, ImportError):
            raise ConfigError(f"environments: {name!r} is not installed: {EXTRA_ATARI}") from None
        if "mujoco is not installed" in text.lower():
            raise ConfigError(f"environments: {name!r} is not installed: {EXTRA_MUJOCO}") from None
        raise ConfigError(f"environments: {name!r} cannot be made: {text[:300]}") from None


def describe(name: str, environment: Any) -> dict[str, Any]:
    """``observation`` (length), ``actions`` (count or length) and ``discrete``. Raises ConfigError."""
    from gymnasium import spaces

    seen, acts = environment.observation_space, environment.action_space
    if not isinstance(seen, spaces.Box) or len(seen.shape) != 1:
        raise ConfigError(f"environments: {name!r} has observations {seen}; vectors of numbers are supported")
    if isinstance(acts, spaces.Discrete):
        return {"observation": seen.shape[0], "actions": int(acts.n), "discrete": True}
    if isinstance(acts, spaces.Box) and len(acts.shape) == 1 and np.isfinite([acts.low, acts.high]).all():
        return {"observation": seen.shape[0], "actions": acts.shape[0], "discrete": False}
    raise ConfigError(f"environments: {name!r} has actions {acts}; discrete ones and bounded vectors are supported")


class Judge:
    """Answers a learner's actions with what they lead to, and keeps the books.

    Questions: ``"start"``, then actions (int64 [N], or float [N, A], of which [-1, 1] is the environment's range), as
    often as there are steps left; ``"test"`` begins the test episodes, one in each of M environments, and actions (now
    M) follow until all have ended.

    Answers: float32 [N, D + 3]: observation, reward, terminated, truncated of every environment. Where an episode has
    ended, the observation is the next one's first, and a second array holds the last observations in order of
    environments, float32 [ended, D]. In a test, an environment whose episode has ended repeats its last row.

    Args:
        name: of the environment. count: N. steps: at most, over all environments. tests: M. seed: of the environments.
    """

    def __init__(self, name: str, count: int, steps: int, tests: int, seed: int) -> None:
        self.count, self.steps, self.tests = count, steps, tests
        sequence = np.random.SeedSequence([seed, 7])
        self._seeds = [int(x) for x in sequence.generate_state(count + tests)]
        self._environments = [make(name) for _ in range(count)]
        self._test_environments = [make(name) for _ in range(tests)]
        self.facts = describe(name, self._environments[0])
        space = self._environments[0].action_space
        if not self.facts["discrete"]:
            self._middle, self._half = (space.high + space.low) / 2, (space.high - space.low) / 2
        self._scale = 1 / 255 if self._environments[0].observation_space.dtype == np.uint8 else 1.0
        self.taken = 0
        self.curve: list[tuple[int, float]] = []  # (steps taken, return) of every finished training episode
        self.test_returns = np.zeros(tests)
        self._returns = np.zeros(count)
        self._rows = np.zeros((count, self.facts["observation"] + 3), np.float32)
        self._alive = np.zeros(tests, bool)
        self._phase = "new"

    @property
    def finished(self) -> bool:
        """Whether all steps were taken and all test episodes have ended."""
        return self._phase == "done"

    def answer(self, question: Any) -> Any:
        """See the class. Raises EvaluationFailure for a question out of order or actions that are none."""
        if isinstance(question, np.ndarray):
            if self._phase == "training":
                return self._train(self._actions(question, self.count))
            if self._phase == "test":
                return self._test(self._actions(question, self.tests))
        elif question == "start" and self._phase == "new":
            self._phase = "training"
            self._start(self._environments, self._seeds[: self.count])
            return self._rows.copy()
        elif question == "test" and self._phase == "training" and self.taken >= self.steps:
            self._phase = "test"
            self._rows = np.zeros((self.tests, self.facts["observation"] + 3), np.float32)
            self._alive[:] = True
            self._start(self._test_environments, self._seeds[self.count :])
            return self._rows.copy()
        raise EvaluationFailure("protocol", f"a question out of order in phase {self._phase}")

    def close(self) -> None:
        """Closes the environments."""
        for environment in (*self._environments, *self._test_environments):
            environment.close()

    def _start(self, environments: list[Any], seeds: list[int]) -> None:
        for i, (environment, seed) in enumerate(zip(environments, seeds, strict=True)):
            observation, _ = environment.reset(seed=seed)
            self._rows[i, :-3] = observation * self._scale

    def _actions(self, given: np.ndarray, count: int) -> np.ndarray:
        discrete, size = self.facts["discrete"], self.facts["actions"]
        shape = (count,) if discrete else (count, size)
        kind = "i" if discrete else "f"
        if given.shape != shape or given.dtype.kind != kind:
            raise EvaluationFailure("protocol", f"actions: {given.dtype} {given.shape}; expected {kind} {shape}")
        if discrete:
            if ((given < 0) | (given >= size)).any():
                raise EvaluationFailure("protocol", f"actions: outside 0 to {size - 1}")
            return given
        if not np.isfinite(given).all():
            raise EvaluationFailure("non-finite", "actions: NaN or infinity")
        scaled: np.ndarray = (self._middle + self._half * np.clip(given, -1, 1)).astype(np.float32)
        return scaled

    def _train(self, actions: np.ndarray) -> Any:
        if self.taken >= self.steps:
            raise EvaluationFailure("protocol", f"more than {self.steps} steps")
        last = []
        for i, environment in enumerate(self._environments):
            observation, reward, terminated, truncated, _ = environment.step(actions[i])
            self._returns[i] += reward
            row = self._rows[i]
            row[-3:] = reward, terminated, truncated
            if terminated or truncated:
                last.append(np.asarray(observation * self._scale, np.float32))
                self.curve.append((self.taken + self.count, float(self._returns[i])))
                self._returns[i] = 0.0
                observation, _ = environment.reset()
            row[:-3] = observation * self._scale
        self.taken += self.count
        return [self._rows, np.stack(last)] if last else self._rows

    def _test(self, actions: np.ndarray) -> Any:
        for i in np.flatnonzero(self._alive):
            observation, reward, terminated, truncated, _ = self._test_environments[i].step(actions[i])
            self.test_returns[i] += reward
            self._rows[i, :-3] = observation * self._scale
            self._rows[i, -3:] = reward, terminated, truncated
            self._alive[i] = not (terminated or truncated)
        if not self._alive.any():
            self._phase = "done"
        return self._rows
