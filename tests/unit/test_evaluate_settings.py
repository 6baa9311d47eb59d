"""Settings of an evaluation: names stand for settings, and what is wrong is said."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.config_file import read_settings, validated
from tasks.evaluate.choices import method_list, own_task, task_list
from tasks.evaluate.registry import REGISTRY, choose_method, choose_methods
from tasks.evaluate.settings import EvaluateConfig, MethodChoice


def _config(**settings: Any) -> EvaluateConfig:
    return validated(
        EvaluateConfig, {"data": "d", "tasks": ["howdy-plain"], **settings}, origin="test"
    )


def test_names_stand_for_tasks_methods_and_sizes() -> None:
    config = _config(methods=["bm25", {"method": "rise", "settings": {"preset": "paper"}}])
    assert (config.tasks[0].kind, config.tasks[0].name) == ("built_in", "howdy-plain")
    assert [one.name for one in choose_methods(config.methods)] == ["BM25", "RISE paper"]
    assert not config.measures_training("howdy-plain", "predict")
    sized = _config(counterfactual="cpu", tasks=["finmed", "howdy-plain"])
    assert sized.counterfactual is not None
    assert sized.measures_training("finmed", "predict")
    one = _config(
        counterfactual="cpu", tasks=["finmed", "howdy-plain"], counterfactual_tasks=["finmed"]
    )
    assert not one.measures_training("howdy-plain", "predict")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data": None}, "howdy-plain are read from a data folder; set data"),
        ({"tasks": ["howdy-plain", "howdy-plain"]}, "howdy-plain comes twice"),
        ({"tasks": ["howdy"]}, "tasks.0.built_in.name"),
        ({"limits_of": {"finmed": {"rows": 9}}}, "limits_of names finmed"),
        ({"counterfactual_tasks": ["finmed"]}, "counterfactual_tasks names finmed"),
        ({"counterfactual": "huge"}, "expected cpu, gpu"),
        ({"measures": {"cuts": [5, 5]}}, "cuts must be different numbers"),
        ({"wrok": "w"}, "Did you mean 'work'"),
    ],
)
def test_what_is_wrong_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _config(**settings)


def test_limits_of_a_task_take_the_place_of_all() -> None:
    config = _config(
        tasks=["finmed", "howdy-plain"], limits={"rows": 9}, limits_of={"finmed": {"queries": 3}}
    )
    assert config.limits_for("howdy-plain").rows == 9
    assert config.limits_for("finmed").rows is None


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_every_method_can_be_made_and_says_its_settings(name: str) -> None:
    needed: dict[str, Any] = {"of": ["bm25", "length"]} if name == "sum" else {}
    choice = MethodChoice(method=name, settings=needed)
    chosen = choose_method(choice)
    assert chosen.name
    assert choose_method(choice).settings == chosen.settings
    named = choose_method(choice.model_copy(update={"name": "mine"}))
    assert (named.name, named.settings) == ("mine", chosen.settings)
    assert REGISTRY[name].about.endswith(".")


def test_all_methods_have_names_of_their_own() -> None:
    names = method_list("all")
    assert names is not None
    chosen = choose_methods(tuple(MethodChoice(method=name) for name in names))
    assert len({one.name for one in chosen}) == len(names)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"method": "bm52"}, "there is no 'bm52'. Did you mean 'bm25'"),
        ({"method": "bm25", "settings": {"k2": 1}}, "bm25 has no setting k2; it has k1, b"),
        ({"method": "random", "settings": {"name": "x"}}, "random has no setting name"),
        ({"method": "rapidin-lora", "settings": {"parameters": {}}}, "no setting parameters"),
        ({"method": "rapidin-lora", "settings": {"dim": 0}}, "methods: rapidin-lora"),
    ],
)
def test_wrong_methods_are_refused_with_what_there_is(choice: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        choose_method(MethodChoice(**choice))


def test_two_methods_of_one_name_are_refused() -> None:
    twice = (MethodChoice(method="bm25"), MethodChoice(method="bm25", settings={"k1": 1.2}))
    with pytest.raises(ValueError, match="BM25 comes twice"):
        choose_methods(twice)
    named = (twice[0], MethodChoice(method="bm25", name="BM25, 1.2", settings={"k1": 1.2}))
    assert len(choose_methods(named)) == 2


def test_the_command_line_says_tasks_in_short() -> None:
    assert task_list("finmed, howdy-plain") == ["finmed", "howdy-plain"]
    assert len(task_list("all")) == 7
    source = {"kind": "files", "paths": ["r"]}
    found = own_task(source, None, "origin")
    assert found[0]["rows"] == {"source": source, "label_field": "origin"}
    with pytest.raises(ValueError, match="--queries are asked about --rows"):
        own_task(None, source, "label")


@pytest.mark.parametrize("name", ["evaluate", "evaluate-all"])
def test_examples_can_be_run(name: str) -> None:
    config = validated(EvaluateConfig, read_settings(Path(f"examples/{name}.yaml")), origin=name)
    assert choose_methods(config.methods)


def test_the_example_of_all_leaves_nothing_out() -> None:
    settings = read_settings(Path("examples/evaluate-all.yaml"))
    assert set(settings["tasks"]) == set(task_list("all"))
    plain = {one for one in settings["methods"] if isinstance(one, str)}
    assert plain == set(method_list("all") or ())


def test_the_example_of_all_reads_rows_both_ways() -> None:
    settings = read_settings(Path("examples/evaluate-all.yaml"))
    config = validated(EvaluateConfig, settings, origin="example")
    found = [
        (one.key, one.method.settings.get("positions")) for one in choose_methods(config.methods)
    ]
    for key in ("rise-compact", "tracin", "rapidin-block"):
        assert {positions for name, positions in found if name == key} == {"all", "completion"}


def test_settings_in_the_docs_are_valid() -> None:
    text = Path("docs/evaluation.md").read_text(encoding="utf-8")
    block = text.split("```yaml\n")[1].split("```")[0]
    assert validated(EvaluateConfig, yaml.safe_load(block), origin="docs").paradigms[1] == "recall"
