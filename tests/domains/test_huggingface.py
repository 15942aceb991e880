"""The Hugging Face form of an export: decoding with a state gives what reading everything gives."""

import importlib
import json
import sys

import pytest

torch = pytest.importorskip("torch")

from asi_evolve.candidate import Candidate, Edit  # noqa: E402
from asi_evolve.domains.architecture.domain import REFERENCES, reference_source  # noqa: E402
from asi_evolve.domains.lm import LanguageModelBenchmark  # noqa: E402
from asi_evolve.domains.lm_export import export_files  # noqa: E402

LENGTH = 40
RECURRENT = ("linear_attention", "linear_attention_elu", "performer", "gated_linear_attention", "deltanet")
PAIRS = [(m, "learned") for m in REFERENCES["token_mixing"]]
PAIRS += [(m, p) for m in ("softmax_attention", "sliding_window", "hybrid") for p in ("rope", "alibi", "none")]
PAIRS += [("gated_linear_attention", "rope"), ("deltanet", "rope"), ("performer", "rope")]
SIZES = {"layers": 2, "width": 32, "window": 8}


@pytest.fixture
def export(tmp_path, monkeypatch):
    """The modules of an exported model, from a folder of their own."""
    domains = LanguageModelBenchmark().domains()
    start = Candidate([d.baseline() for d in domains])

    def make(files=None, **params):
        edit = Edit(params={**SIZES, **params}, files=files or {})
        architecture = domains[0].apply(start.architecture, edit)
        domains[0].validate(architecture)
        settings = {"sequence_length": LENGTH, "windows": 32, "data_seed": 0, "threads": 1}
        name = f"case{len(list(tmp_path.iterdir()))}"
        for path, text in export_files(start.replace(architecture), settings).items():
            (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / path).write_text(text)
        monkeypatch.syspath_prepend(str(tmp_path / name))
        for module in [m for m in sys.modules if m.split(".")[0] in EXPORTED]:
            del sys.modules[module]
        importlib.invalidate_caches()
        torch.manual_seed(0)
        return tmp_path / name

    yield make
    for module in [m for m in sys.modules if m.split(".")[0] in EXPORTED]:
        del sys.modules[module]


EXPORTED = ("huggingface", "model", "training", "curation", "data", "train")


def plain(folder):
    """The plain module of the Hugging Face folder, with decoding."""
    decoding = importlib.import_module("huggingface.decoding")
    params = json.loads((folder / "model" / "params.json").read_text())
    build = importlib.import_module("huggingface.language_model").build
    return decoding, shaken(build(params, LENGTH, decoding.Decoding).eval())


def shaken(model):
    """Weights of a size at which nothing is nearly linear or nearly uniform."""
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.15)
    return model


def tokens(batch=2, n=LENGTH):
    return torch.randint(0, 256, (batch, n), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("mixing", "position"), PAIRS)
@torch.no_grad()
def test_prefill_and_steps_give_the_logits_of_the_whole(export, mixing, position):
    decoding, model = plain(export(token_mixing=mixing, position=position))
    assert decoding.resumes(model)
    text = tokens()
    whole = model(text)
    for cut in (1, 7, 33):
        first, state = decoding.advance(model, text[:, :cut], None, True)
        rest, state = decoding.advance(model, text[:, cut:], state, True)
        difference = (torch.cat([first, rest], dim=1) - whole).abs().max()
        assert not difference > 1e-4
    assert whole.std() > 0.1
    assert state.tokens.equal(text)


@pytest.mark.parametrize("mixing", REFERENCES["token_mixing"])
@torch.no_grad()
def test_the_state_is_of_constant_size_but_for_full_attention(export, mixing):
    decoding, model = plain(export(token_mixing=mixing))

    def size(n):
        _, state = decoding.advance(model, tokens(1, n), None, True)
        return sum(x.numel() for x in torch.utils._pytree.tree_leaves(state.blocks))

    if mixing == "softmax_attention":
        assert size(32) == 2 * size(16)
    else:
        assert size(32) == size(16)
    if mixing in RECURRENT:
        assert size(1) == size(32)


NORMS = [(s, n) for s in ("normalization", "mlp", "connectivity") for n in REFERENCES[s]]


@pytest.mark.parametrize(("slot", "name"), NORMS)
def test_the_other_mechanisms_leave_decoding_alone(export, slot, name):
    decoding, model = plain(export(token_mixing="linear_attention", **{slot: name}))
    assert decoding.agrees(model, tokens())


NO_STEP = reference_source("token_mixing", "linear_attention_elu").replace("def step", "def other")
NO_STEP = NO_STEP.replace("self.step(", "self.other(")
# An edit of the whole that forgot the step.
STALE = reference_source("token_mixing", "softmax_attention").replace(
    "return self.step(x, position, None, 0)[0]", "return self.step(x, position, None, 0)[0] * torch.ones(1).cos()"
)
# A block that looks at the token before: not per token.
SHIFT = reference_source("connectivity", "pre_norm").replace(
    "x = x + self.mixing(", "x = x + nn.functional.pad(x, (0, 0, 1, 0))[:, :-1] + self.mixing("
)
OWN_STEP = reference_source("token_mixing", "deltanet").replace("F.silu(k)", "F.gelu(k)")
PLAIN_POSITION = reference_source("position", "rope").replace("k, offset=0):", "k):\n        offset = 0")
CUSTOM = {
    "no step": ({"token_mixing.py": NO_STEP}, False),
    "stale step": ({"token_mixing.py": STALE}, False),
    "shift": ({"connectivity.py": SHIFT}, False),
    "no offset": ({"position.py": PLAIN_POSITION}, False),
    "own step": ({"token_mixing.py": OWN_STEP}, True),
}


@pytest.mark.parametrize("case", CUSTOM)
def test_evolved_code_goes_on_from_a_state_only_if_that_is_right(export, case):
    files, right = CUSTOM[case]
    decoding, model = plain(export(files))
    assert decoding.agrees(model, tokens()) == right
    with torch.no_grad():
        _, state = decoding.advance(model, tokens()[:, :9], None, False)
        logits, _ = decoding.advance(model, tokens()[:, 9:], state, False)
        assert not (logits - model(tokens())[:, 9:]).abs().max() > 1e-5


@torch.no_grad()
def test_states_are_found_by_their_tokens(export):
    decoding, model = plain(export(token_mixing="linear_attention"))
    text = tokens(3)
    _, state = decoding.advance(model, text[:, :20], None, True)
    assert state.matching(text) is state
    assert state.matching(text[:, :20]) is None
    assert state.matching((text + 1) % 256) is None
    mixed = text[[2, 0, 0]]
    logits, _ = decoding.advance(model, mixed[:, 20:], state.matching(mixed), True)
    assert not (logits - model(mixed)[:, 20:]).abs().max() > 1e-4


# -- with Transformers ------------------------------------------------------------------------------------------------


@pytest.fixture
def transformers(tmp_path_factory, monkeypatch):
    home = tmp_path_factory.mktemp("hf")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    package = pytest.importorskip("transformers", minversion="5.0")
    package.utils.logging.set_verbosity_error()
    package.utils.logging.disable_progress_bar()
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(home))
    yield package
    for module in [m for m in sys.modules if m.startswith("transformers_modules")]:
        del sys.modules[module]


def trained(folder):
    """The plain model of train.py, and whether the folder's goes on from a state."""
    train = importlib.import_module("train")
    model = shaken(train.build(dict(train.PARAMS), LENGTH)).eval()
    return model, train.save_pretrained(model, tokens())


def load(transformers, folder):
    return transformers.AutoModelForCausalLM.from_pretrained(str(folder), trust_remote_code=True)


GENERATE = [("softmax_attention", "alibi"), ("convolution", "rope"), ("hybrid", "learned")]


@pytest.mark.parametrize(("mixing", "position"), [*((m, "learned") for m in RECURRENT), *GENERATE])
def test_generate_with_state_is_generate_without(export, transformers, mixing, position):
    folder = export(token_mixing=mixing, position=position)
    _, goes_on = trained(folder)
    assert goes_on
    model = load(transformers, folder / "huggingface")
    assert model.resumes
    prompt = tokens(2, 6)
    for how in ({}, {"do_sample": True, "temperature": 0.9}, {"num_beams": 3}, {"do_sample": True, "num_beams": 2}):
        answers = []
        for use_cache in (True, False):
            torch.manual_seed(5)
            answers.append(model.generate(prompt, max_new_tokens=20, use_cache=use_cache, **how))
        assert answers[0].shape == (2, 26)
        assert answers[0].equal(answers[1]), how


def test_the_state_is_used_and_read_token_by_token(export, transformers, monkeypatch):
    folder = export(token_mixing="linear_attention")
    trained(folder)
    model = load(transformers, folder / "huggingface")
    lengths = []
    model.model.embedding.register_forward_hook(lambda _, inputs, __: lengths.append(inputs[0].shape[1]))
    model.generate(tokens(1, 6), max_new_tokens=5, do_sample=False)
    assert lengths == [6, 1, 1, 1, 1]
    lengths.clear()
    model.generate(tokens(1, 6), max_new_tokens=5, do_sample=False, use_cache=False)
    assert lengths == [6, 7, 8, 9, 10]


@pytest.mark.parametrize(
    "params",
    [
        {"token_mixing": "performer", "position": "rope"},
        {"token_mixing": "sliding_window", "position": "alibi", "tie_embeddings": True},
    ],
)
def test_round_trip(export, transformers, tmp_path, params):
    """What train.py saves, Transformers loads, saves with the code, and loads again."""
    folder = export(**params)
    model, _ = trained(folder)
    expected = model(tokens())
    first = load(transformers, folder / "huggingface")
    assert isinstance(first, transformers.PreTrainedModel)
    assert not (first(tokens()).logits - expected).abs().max() > 1e-6
    assert (first.get_output_embeddings().weight is first.get_input_embeddings().weight) == ("tie_embeddings" in params)
    first.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "token_mixing.py").is_file()
    second = load(transformers, tmp_path / "again")
    assert not (second(tokens()).logits - expected).abs().max() > 1e-6
    # Without Auto classes, from the folder as a package.
    plain_class = importlib.import_module("huggingface.modeling_evolved").EvolvedForCausalLM
    third = plain_class.from_pretrained(str(folder / "huggingface"))
    output = third(tokens(), labels=tokens())
    assert not (output.logits - expected).abs().max() > 1e-6
    nll = torch.nn.functional.cross_entropy(expected[:, :-1].flatten(0, 1), tokens()[:, 1:].flatten())
    assert output.loss.item() == pytest.approx(nll.item(), rel=1e-5)


def test_the_program_writes_a_model_that_loads(export, transformers, corpus_file, tmp_path, monkeypatch, capsys):
    folder = export(token_mixing="gated_linear_attention", layers=1)
    arguments = ["--data", str(corpus_file), "--steps", "3", "--out", str(tmp_path / "w.pt"), "--huggingface"]
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    importlib.import_module("train").main()
    assert "decoding with a state" in capsys.readouterr().out
    weights = torch.load(tmp_path / "w.pt")
    loaded = load(transformers, folder / "huggingface").model.state_dict()
    assert all(loaded[name].equal(w) for name, w in weights.items())


@pytest.mark.parametrize("case", ["no step", "stale step"])
def test_generate_of_code_that_cannot_go_on(export, transformers, case):
    folder = export(CUSTOM[case][0])
    assert json.loads((folder / "huggingface" / "config.json").read_text())["resume"] is False
    model, goes_on = trained(folder)
    assert not goes_on
    loaded = load(transformers, folder / "huggingface")
    answer = loaded.generate(tokens(2, 6), max_new_tokens=12, do_sample=False)
    assert answer.equal(loaded.generate(tokens(2, 6), max_new_tokens=12, do_sample=False, use_cache=False))
    with torch.no_grad():
        assert answer[:, 6:].equal(model(answer[:, :-1])[:, 5:].argmax(-1))


def test_limits_are_said(export, transformers):
    folder = export(position="learned")
    trained(folder)
    model = load(transformers, folder / "huggingface")
    with pytest.raises(ValueError, match=f"max_position_embeddings = {LENGTH}"):
        model(tokens(1, LENGTH + 1))
    with pytest.raises(ValueError, match="41 tokens; the positions end"):
        model.generate(tokens(1, 6), max_new_tokens=LENGTH, do_sample=False)
    with pytest.raises(ValueError, match="padding"):
        model(tokens(1, 3), attention_mask=torch.tensor([[0, 1, 1]]))


def test_no_positions_no_limit(export, transformers):
    free = export(position="none", token_mixing="gated_linear_attention")
    trained(free)
    assert load(transformers, free / "huggingface").generate(tokens(1, 6), max_new_tokens=LENGTH).shape == (1, 46)
