"""The engine on top of train.py: what may change, and how a candidate is measured. That is all."""

from train import Settings, train

from asi_evolve import BenchmarkBase, Choice, Engine, Integer, ParametricDomain, Real
from asi_evolve.view import LineView, describe_result


class Spirals(BenchmarkBase):
    metric, maximize, costs = "error", False, ("train_seconds", "parameters")

    def domains(self):
        s = Settings()
        model = [Integer("width", 8, 128, log=True), Integer("depth", 1, 5)]
        model += [Choice("activation", ("relu", "tanh", "gelu", "silu"))]
        training = [Choice("optimizer", ("sgd", "adamw")), Real("learning_rate", 1e-3, 0.3, log=True)]
        training += [Real("weight_decay", 0.0, 0.1), Real("label_smoothing", 0.0, 0.3)]
        data = [Integer("batch_size", 16, 256, log=True), Real("jitter", 0.0, 0.2), Choice("mirror", (False, True))]
        spaces = {"architecture": model, "algorithm": training, "data": data}
        return [ParametricDomain(n, ps, {p.name: getattr(s, p.name) for p in ps}) for n, ps in spaces.items()]

    def evaluate(self, candidate, stage, seed):
        chosen = {name: value for component in candidate.values() for name, value in component.params.items()}
        return train(Settings(**chosen, steps=int(600 * stage.budget)), seed)


if __name__ == "__main__":
    engine = Engine({"name": "spirals", "llm": {"provider": "none"}}, benchmark=Spirals(), observers=[LineView()])
    print(describe_result(engine.run(), "error", "candidate"))
