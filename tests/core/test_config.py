import pytest

from asi_evolve.config import Config, load_config
from asi_evolve.errors import ConfigError


def write(tmp_path, text):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    return path


def test_everything_has_a_default_and_survives_the_file(tmp_path):
    config = load_config({"cycles": 7, "cascade": {"full": {"seeds": 5}}})
    assert load_config(write(tmp_path, config.to_yaml())) == config
    assert config.cascade.full.budget == Config().cascade.full.budget
    assert config.cascade.full.time_limit == Config().cascade.full.time_limit
    assert config.cascade.isolated == Config().cascade.isolated


def test_overrides_reach_deep_and_leave_the_rest(tmp_path):
    path = write(tmp_path, "llm: {provider: none, timeout: 9}\n")
    config = load_config(path, llm__timeout=3.0, cascade__cross__seeds=4, seed=2)
    assert (config.llm.provider, config.llm.timeout, config.cascade.cross.seeds, config.seed) == ("none", 3.0, 4, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cycels: 3", "unknown key 'cycels'; allowed here: name, seed, cycles"),
        ("cascade: {full: {seed: 3}}", r"unknown key 'cascade\.full\.seed'; allowed here: budget, seeds"),
        ("llm: {temprature: 1}", r"unknown key 'llm\.temprature'"),
        ("cycles: 0", "cycles: .*greater than or equal to 1.*got 0"),
        ("cycles: many", "cycles: .*integer.*got 'many'"),
        ("cascade: {full: {budget: 2}}", r"cascade\.full\.budget: .*got 2"),
        ("llm: {provider: openia}", r"llm\.provider: .*'openai'.*got 'openia'"),
        ("llm: {provider: recorded}", "recording: needed"),
        ("- a list", "a mapping of keys to values is needed, not list"),
        ("a: [", "not valid YAML"),
    ],
)
def test_a_mistake_is_named_in_one_line(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(write(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read: No such file"):
        load_config(tmp_path / "none.yaml")


def test_seeds_are_shared_between_stages_and_fresh_for_the_confirmation():
    config = load_config({"seed": 3, "cascade": {"full": {"seeds": 3}, "confirm_seeds": 4}})
    assert config.seeds("isolated") == config.seeds("full")[:1]
    assert len(config.seeds("full")) == 3
    assert len(config.seeds("confirm")) == 4
    assert not set(config.seeds("confirm")) & set(config.seeds("full"))
