"""Cards: front matter for machines, text for people, hostile values, and what people wrote."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from hub_server import HubServer
from huggingface_hub import ModelCard

from u2net_hub import U2Net, U2NetConfig, cli
from u2net_hub.atomic import content_hash
from u2net_hub.checkpoints.topology import count_parameters
from u2net_hub.evaluation.results import DatasetScores, Results, Speed, Training
from u2net_hub.hub.card.markdown import last_parts, shell
from u2net_hub.hub.card.render import PICTURE_NAME, render_card, results_of, validate_card
from u2net_hub.hub.card.sections import Weights

ROOT = Path(__file__).resolve().parents[2]
BUNDLED = ROOT / "u2net_hub" / "weights" / "u2netp"
SHA = "0123456789abcdef" * 4
WEIGHTS = Weights(SHA, 4_700_000, "float32")
MEASURED = DatasetScores(100, {"max_f": 0.934, "mae": 0.0517, "hce": 120.0})
PAPER = DatasetScores(1000, {"max_f": 0.943}, measured=False)
RESULTS = Results(
    {"ecssd-100": MEASURED, "ECSSD": PAPER},
    weights_sha256=SHA,
    command="u2net eval --data ecssd-100",
    versions={"torch": "2.9"},
    date="2026-01-02",
    training=Training(("DUTS-TR",), None, "fast", "9 h", "2 cores", "u2net train --data DUTS-TR"),
    speed=(Speed("torch float32", "a laptop", 3.21),),
)


def card(results: Results | None = RESULTS, config: U2NetConfig | None = None, **options: object) -> str:
    options = {"name": "org/a", "weights": WEIGHTS, **options}
    return render_card(config or U2NetConfig(), results, **options)  # type: ignore[arg-type]


def front_matter(text: str) -> dict[str, object]:
    return yaml.safe_load(text.split("---\n")[1])  # type: ignore[no-any-return]


def section(text: str, name: str) -> str:
    found = re.findall(
        rf"<!-- u2net-hub: begin {name} .*?-->(.*?)<!-- u2net-hub: end {name} -->", text, re.DOTALL
    )
    assert len(found) == 1
    return str(found[0])


# For machines


def test_front_matter_names_library_task_licence_and_data() -> None:
    fields = front_matter(card())
    assert fields["library_name"] == "u2net-hub"
    assert fields["pipeline_tag"] == "image-segmentation"
    assert fields["license"] == "apache-2.0"
    assert fields["datasets"] == ["duts-tr"]
    assert "salient-object-detection" in fields["tags"]  # type: ignore[operator]
    assert "base_model" not in fields


def test_every_measured_score_is_in_the_model_index_and_no_other() -> None:
    evals = ModelCard(card()).data.eval_results or []
    assert [(e.dataset_name, e.metric_type, e.metric_value) for e in evals] == [
        ("ecssd-100", "max_f", 0.934),
        ("ecssd-100", "mae", 0.0517),
        ("ecssd-100", "hce", 120.0),
    ]
    assert evals[0].dataset_args == {"pictures": 100}


def test_data_sets_of_like_names_stay_apart() -> None:
    results = replace(RESULTS, datasets={"A b": MEASURED, "a-b": replace(MEASURED, scores={"max_f": 0.5})})
    evals = ModelCard(card(results)).data.eval_results or []
    assert {(e.dataset_name, e.metric_value) for e in evals if e.metric_type == "max_f"} == {
        ("A b", 0.934),
        ("a-b", 0.5),
    }
    assert len({e.dataset_type for e in evals}) == 2


def test_iou_of_each_class_is_in_the_model_index_and_in_the_text() -> None:
    config = U2NetConfig(out_channels=3, activation="softmax", labels=("none", "cat", "dog"))
    scores = DatasetScores(9, {"mean_iou": 0.6}, iou={"cat": 0.75, "dog": None})
    text = card(replace(RESULTS, datasets={"pets": scores}), config)
    evals = ModelCard(text).data.eval_results or []
    assert [(e.metric_name, e.metric_value) for e in evals] == [("mIoU", 0.6), ("IoU of cat", 0.75)]
    assert "cat 0.7500, dog –" in section(text, "scores")
    assert "none, cat, dog" in section(text, "architecture")


def test_without_results_there_is_no_model_index() -> None:
    text = card(None)
    assert "model-index" not in front_matter(text)
    assert "Not measured" in section(text, "scores")
    assert "not recorded" in section(text, "training")
    validate_card(text)


def test_fine_tuned_weights_name_their_base() -> None:
    training = replace(RESULTS.training, start="org/base")  # type: ignore[type-var]
    text = card(replace(RESULTS, training=training))
    assert front_matter(text)["base_model"] == "org/base"
    assert "fine-tuned from org/base" in section(text, "training")


def test_the_hub_accepts_every_kind_of_card(hub: HubServer) -> None:
    for text in (card(), card(None), card(name="u2netp"), card(None, weights=None), card(picture=True)):
        ModelCard(text).validate()
        validate_card(text)
    assert [entry.status for entry in hub.served("yaml")] == [200] * 5


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (("library_name: u2net-hub", "library_name: timm"), "library_name"),
        (("license: apache-2.0", "license: [mit]"), "license"),
        (("tags:\n", "tags: x\nmore:\n"), "tags"),
        (("- name: a\n", "- title: a\n"), "model"),
        (("---\nlibrary", "library"), "front matter"),
        (("library_name:", "library_name: [\n"), "not YAML"),
    ],
)
def test_a_card_that_the_hub_would_refuse_is_found(change: tuple[str, str], problem: str) -> None:
    text = card()
    assert change[0] in text
    with pytest.raises(ValueError, match=problem):
        validate_card(text.replace(*change, 1))


# For people


def test_the_text_holds_what_a_user_needs() -> None:
    text = card(picture=True)
    assert "![" in section(text, "picture")
    assert PICTURE_NAME in section(text, "picture")
    assert 'SaliencyPipeline.from_pretrained("org/a")' in section(text, "use")
    assert "u2net cutout photo.jpg --model org/a" in section(text, "use")
    assert "timm" in section(text, "use")
    assert "1,131,181" in section(text, "architecture")
    assert SHA in section(text, "architecture")
    assert "4.7 MB, float32" in section(text, "architecture")
    assert "research" in section(text, "training")
    assert "u2net train --data DUTS-TR" in section(text, "training")
    assert "3.2" in section(text, "speed")
    assert "fails" in section(text, "limits")
    assert "@article{qin2020u2net" in section(text, "citation")


def test_commands_quote_a_name_with_spaces() -> None:
    assert shell("laid out") == "'laid out'"
    assert shell("org/name") == "org/name"


def test_scores_without_a_hash_are_labelled_as_given() -> None:
    text = card(replace(RESULTS, weights_sha256=None))
    assert "these weights (given, not measured here)" in section(text, "scores")
    assert "Measured" not in section(text, "scores")
    evals = ModelCard(text).data.eval_results or []
    assert {str(e.dataset_args) for e in evals} == {"{'pictures': 100, 'given': 'not measured by u2net-hub'}"}


def test_scores_with_a_hash_are_not_labelled_as_given() -> None:
    assert "given" not in section(card(), "scores")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("u2net eval --model /home/me/x.pth --data ecssd", "u2net eval --model x.pth --data ecssd"),
        ("u2net eval --model=/home/me/x/ --data=../d/e", "u2net eval --model=x --data=e"),
        ("u2net eval --model '/home/my own/x y' --out ~me/o", "u2net eval --model 'x y' --out o"),
        ("u2net eval --model /home/my\\ own/x\\ y", "u2net eval --model x\\ y"),
        (r"u2net eval --model C:\Users\me\x.pth", "u2net eval --model x.pth"),
        ("evaluate('/home/me/x', [\"/data/e\"])", "evaluate('x', [\"e\"])"),
        ("u2net eval --model org/name --data data/e", "u2net eval --model org/name --data data/e"),
        ("see https://example.org/a/b, 3 img/s, and / or", "see https://example.org/a/b, 3 img/s, and / or"),
    ],
)
def test_folders_of_the_machine_are_left_out_of_text(text: str, shown: str) -> None:
    assert last_parts(text) == shown


@pytest.mark.parametrize(
    ("start", "shown"),
    [
        ("/home/me/base", "base"),
        ("runs/a/last.pth", "last.pth"),
        ("org/base", "org/base"),
        ("u2netp", "u2netp"),
    ],
)
def test_a_card_names_no_folders_of_the_machine(start: str, shown: str) -> None:
    command = "u2net train --data /home/me/DUTS-TR"
    training = replace(RESULTS.training, start=start, command=command)  # type: ignore[type-var]
    text = card(replace(RESULTS, training=training, command="u2net eval --model /home/me/x"))
    assert "/home" not in text
    assert f"fine-tuned from {shown}\n" in text
    assert "u2net train --data DUTS-TR" in text


def test_measured_scores_stand_beside_the_papers() -> None:
    rows = [line for line in section(card(), "scores").splitlines() if line.startswith("| ")]
    assert [row.split("|")[1:5] for row in rows[1:]] == [
        [" ecssd-100 ", " 100 ", " these weights ", " 0.9340 "],
        ["  ", " 1,000 ", " paper, U²-Net (ECSSD, 1,000) ", " 0.951 "],
        ["  ", " 1,000 ", " paper, U²-Net† (ECSSD, 1,000) ", " 0.943 "],
        [" ECSSD ", " 1,000 ", " the paper (not measured here) ", " 0.943 "],
    ]


def test_the_terms_of_unknown_data_are_not_made_up() -> None:
    training = replace(RESULTS.training, data=("my-photos",))  # type: ignore[type-var]
    text = section(card(replace(RESULTS, training=training)), "training")
    assert "my-photos" in text
    assert "not known" in text


def test_a_card_without_weights_says_where_they_are() -> None:
    text = card(None, U2NetConfig(variant="u2net"), weights=None, name="u2net")
    assert "u2net push --model u2net.pth" in section(text, "use")
    assert "from_pretrained" not in text


@pytest.mark.parametrize(("variant", "expected"), [("u2net", 44_009_869), ("u2netp", 1_131_181)])
def test_parameters_are_the_papers(variant: str, expected: int) -> None:
    assert count_parameters(U2NetConfig(variant=variant)) == expected


def test_parameters_of_a_table_of_ones_own_are_those_of_the_network(tiny: Callable[[int], U2Net]) -> None:
    network = tiny(0)
    assert count_parameters(network.config) == sum(p.numel() for p in network.parameters())


def test_weights_tell_size_and_precision(tiny: Callable[[int], U2Net], tmp_path: Path) -> None:
    path = tiny(0).save_pretrained(tmp_path, dtype="float16") / "model.safetensors"
    assert Weights.of(path, SHA) == Weights(SHA, path.stat().st_size, "float16 and float32")


def test_results_of_other_weights_are_refused() -> None:
    with pytest.raises(ValueError, match="u2net eval"):
        card(weights=replace(WEIGHTS, sha256="f" * 64))


def test_published_results_need_no_weights() -> None:
    published = replace(RESULTS, datasets={"ECSSD": PAPER}, weights_sha256=None)
    assert results_of(published, SHA).weights_sha256 is None


def test_scores_over_time_are_a_table_with_the_last_one_in_it() -> None:
    history = tuple({"hours": i / 10, "mae": 0.3 - i / 1000} for i in range(101))
    text = card(replace(RESULTS, training=Training(("DUTS-TR",), history=history)))
    rows = [line for line in section(text, "training").splitlines() if line.startswith("|")]
    assert rows[0] == "| hours | MAE |"
    assert len(rows) == 2 + 12
    assert rows[2] == "| 0.00 | 0.3000 |"
    assert rows[-1] == "| 10.00 | 0.2000 |"


# Hostile text

NASTY = (
    "<script>alert(1)</script> | a | b |\n\n# title\n<!-- u2net-hub: end scores --> [x](javascript:1) "
    "![i](http://e) `code` ``` {{ 7 * 7 }} {% raw %} \u202e --- ' \" : - * _ ~ $ & \\ \0"
)


def test_hostile_text_stays_text() -> None:
    results = Results(
        {NASTY: MEASURED, "other": MEASURED},
        command=NASTY,
        versions={NASTY: NASTY},
        date=NASTY,
        training=Training((NASTY,), NASTY, NASTY, NASTY, NASTY, NASTY),
        speed=(Speed(NASTY, NASTY, 1.0),),
    )
    config = U2NetConfig(out_channels=2, activation="softmax", labels=(NASTY, "b"))
    plain = card(
        replace(RESULTS, datasets={"x": MEASURED, "other": MEASURED}), replace(config, labels=("a", "b"))
    )
    text = card(results, config, weights=None, name="org/a")
    assert card(results, config, weights=None, name="org/a", existing=text) == text
    validate_card(text)
    names = re.findall(r"<!-- u2net-hub: \w+ \w+", text)
    assert names == [name for name in re.findall(r"<!-- u2net-hub: \w+ \w+", plain)]
    body = text.split("\n---\n", 1)[1]
    outside_code = re.sub(r"```.*?```|`[^`\n]*`", "", body, flags=re.DOTALL)
    assert "<script" not in outside_code
    assert not re.search(r"(?<!\\)\]\((javascript|http://e)", outside_code)
    assert "\u202e" not in text
    assert "\0" not in text
    assert "{{ 7 * 7 }}" in text.replace("\\", "")
    for name in ("scores", "speed", "architecture"):
        tables = [line for line in section(text, name).splitlines() if line.startswith("|")]
        columns = {len(re.findall(r"(?<!\\)\|", line)) for line in tables}
        assert len(columns) == 1, tables
    assert len(front_matter(text)["model-index"][0]["results"]) == 2  # type: ignore[index]


def test_hostile_names_of_repos_stay_text() -> None:
    text = card(name="org/<b>`x`\n```\n# y")
    assert section(text, "use").count("```") == 4
    assert "\n# y" not in text


# What people wrote

HAND = """---
# my comment
license: mit  # my choice
language: en
tags: [mine]
# about the data
datasets:
- old

- older
other: {a: 1}
model-index: []
---
# My title

My words. <b>My HTML.</b>

## My section
- 1 & 2
"""


def test_a_readme_by_people_keeps_every_word() -> None:
    text = card(existing=HAND)
    body = HAND.split("---\n", 2)[2]
    assert text.split("---\n", 2)[2].startswith(body)
    for line in (
        "# my comment",
        "license: mit  # my choice",
        "language: en",
        "# about the data",
        "other: {a: 1}",
    ):
        assert f"\n{line}\n" in text
    fields = front_matter(text)
    assert fields["datasets"] == ["duts-tr"]
    assert fields["tags"][:2] == ["mine", "u2net"]  # type: ignore[index]
    assert "begin intro" not in text  # it has a title
    assert card(existing=text) == text
    validate_card(text)


def test_a_licence_that_is_given_replaces_the_one_there() -> None:
    assert front_matter(card(existing=HAND, license="cc-by-4.0"))["license"] == "cc-by-4.0"


def test_only_the_marked_sections_are_made_anew() -> None:
    old = card()
    at = old.index("<!-- u2net-hub: begin limits")
    edited = old[:at] + "## Mine\n\nBetween the sections.\n\n" + old[at:] + "\nAt the end.\n"
    edited = edited.replace("org/a", "org/old").replace("0.9340", "0.1111")
    new = card(existing=edited)
    assert "Between the sections.\n\n<!-- u2net-hub: begin limits" in new
    assert new.endswith("\nAt the end.\n")
    assert "org/old" not in new
    assert "0.1111" not in new


def test_sections_come_and_go_with_what_they_are_about() -> None:
    without, with_picture = card(), card(picture=True)
    assert card(existing=with_picture) == without
    assert card(existing=without, picture=True) == with_picture


def test_a_section_that_people_took_out_comes_back_in_its_place() -> None:
    text = card()
    speed = text[text.index("<!-- u2net-hub: begin speed") : text.index("<!-- u2net-hub: begin limits")]
    assert card(existing=text.replace(speed, "")) == text


def test_a_broken_mark_costs_no_text() -> None:
    text = card().replace("<!-- u2net-hub: end speed -->", "") + "\nMine.\n"
    new = card(existing=text)
    assert new.endswith("Mine.\n")
    assert "a laptop" in new
    assert new.count("<!-- u2net-hub: end limits -->") == 1


def test_line_ends_and_byte_order_mark_are_no_obstacle() -> None:
    text = card(existing="\ufeff" + HAND.replace("\n", "\r\n"))
    assert "\n" not in text.replace("\r\n", "")
    assert text.replace("\r\n", "\n") == card(existing=HAND)


def test_front_matter_in_any_style_is_brought_up_to_date() -> None:
    text = card(existing='---\n{"license": "mit", "language": "en"}\n---\nHello.\n')
    fields = front_matter(text)
    assert (fields["license"], fields["language"], fields["library_name"]) == ("mit", "en", "u2net-hub")
    assert "Hello." in text


@pytest.mark.parametrize("block", ["a: [", "- a\n- b", "a: b: c"])
def test_front_matter_that_cannot_be_read_is_refused(block: str) -> None:
    with pytest.raises(ValueError, match="front matter"):
        card(existing=f"---\n{block}\n---\nHello.\n")


@pytest.mark.parametrize("tags", ["5", "{a: 1}", "[[a, b]]", "[{a: b}]", "[1, 2.5]"])
def test_tags_that_are_no_words_are_refused_and_not_changed(tags: str) -> None:
    with pytest.raises(ValueError, match="tags that are not a list of words; correct them there"):
        card(existing=f"---\ntags: {tags}\n---\nHello.\n")


@pytest.mark.parametrize("results", ["5", "{a: b}"])
def test_a_model_index_without_lists_of_results_is_refused(results: str) -> None:
    with pytest.raises(ValueError, match="model-index that is not a list of entries with lists of results"):
        card(existing=f"---\nmodel-index:\n- name: a\n  results: {results}\n---\nHello.\n")


_DOUBLED = "a: &a [x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in pairwise("abcdefghijklmnopqrst"))


@pytest.mark.parametrize("block", [_DOUBLED, "a: &a [*a]", f"a: {'[' * 2000}{']' * 2000}"])
def test_front_matter_that_unfolds_without_end_is_refused(block: str) -> None:
    with pytest.raises(ValueError, match="front matter"):
        card(existing=f"---\n{block}\n---\nHello.\n")


def test_many_opening_marks_are_read_in_one_pass() -> None:
    text = "<!-- u2net-hub: begin use -->\n" * 20_000  # a search for the end from each one takes minutes
    assert text in card(existing=text)


@pytest.mark.parametrize("existing", ["", "\n", "---\nlicense: mit\n---\n"])
def test_an_empty_readme_gets_the_whole_card(existing: str) -> None:
    assert "begin intro" in card(existing=existing)


# The cards of the project


@pytest.mark.parametrize("name", ["u2net", "u2netp", "u2netp-168"])
def test_the_projects_cards_are_made_from_their_results(name: str) -> None:
    folder = ROOT / "model_cards" / name
    weights = None
    config = U2NetConfig(variant="u2net")
    bundled = ROOT / "u2net_hub" / "weights" / name
    if bundled.is_dir():
        config = U2NetConfig.load(bundled / "config.json")
        path = bundled / "model.safetensors"
        weights = Weights.of(path, content_hash(path))
    written = (folder / "README.md").read_text(encoding="utf-8")
    text = render_card(
        config,
        Results.load(folder / "results.json"),
        name=name,
        weights=weights,
        picture=(folder / PICTURE_NAME).is_file(),
        existing=written,  # what people wrote beside the marked sections stays
    )
    assert text == written, "make it anew with model_cards/render.sh"
    validate_card(written)


def test_the_bundled_card_is_of_the_bundled_weights() -> None:
    if not (BUNDLED / "results.json").is_file():
        pytest.skip(f"there are no bundled weights in {BUNDLED}")
    sha256 = content_hash(BUNDLED / "model.safetensors")
    assert sha256 in section((BUNDLED / "README.md").read_text(encoding="utf-8"), "architecture")
    assert json.loads((BUNDLED / "results.json").read_text())["weights_sha256"] == sha256
    for name in ("README.md", "results.json"):
        assert (BUNDLED / name).read_bytes() == (ROOT / "model_cards" / "u2netp" / name).read_bytes()


def test_the_large_models_card_has_the_papers_numbers_and_says_so() -> None:
    text = (ROOT / "model_cards" / "u2net" / "README.md").read_text(encoding="utf-8")
    rows = [
        re.split(r" *\| *", line)[1:-1]
        for line in section(text, "scores").splitlines()
        if line.startswith("| ")
    ]
    head = ["data set", "pictures", "scores of", "maxF", "MAE", "wF", "S", "bF"]
    assert rows[0] == head
    assert {row[0]: row[3:] for row in rows[1:]} == {  # table 3 and 4 of arXiv 2005.09007
        "DUT-OMRON": ["0.823", "0.054", "0.757", "0.847", "0.702"],
        "DUTS-TE": ["0.873", "0.044", "0.804", "0.861", "0.765"],
        "HKU-IS": ["0.935", "0.031", "0.890", "0.916", "0.812"],
        "ECSSD": ["0.951", "0.033", "0.910", "0.928", "0.836"],
        "PASCAL-S": ["0.859", "0.074", "0.797", "0.844", "0.657"],
        "SOD": ["0.861", "0.108", "0.748", "0.786", "0.613"],
    }
    assert "None of these numbers was measured here" in text
    assert "model-index" not in text
    assert "u2net push --model u2net.pth" in text


# The verb


def u2net(monkeypatch: pytest.MonkeyPatch, *args: object) -> None:
    monkeypatch.setattr(sys, "argv", ["u2net", *map(str, args)])
    cli.app(standalone_mode=False)


def test_the_verb_makes_and_checks_a_card(
    monkeypatch: pytest.MonkeyPatch, tiny: Callable[[int], U2Net], tmp_path: Path
) -> None:
    folder = tiny(0).save_pretrained(tmp_path / "model")
    replace(RESULTS, weights_sha256=content_hash(folder / "model.safetensors")).save(folder)
    out = tmp_path / "out" / "README.md"
    args = ("card", "--model", folder, "--name", "org/a", "--out", out)
    u2net(monkeypatch, *args)
    text = out.read_text(encoding="utf-8")
    assert "0.9340" in section(text, "scores")
    u2net(monkeypatch, *args, "--check")
    out.write_text(text.replace("0.9340", "0.9999"), encoding="utf-8")
    with pytest.raises(ValueError, match="not up to date"):
        u2net(monkeypatch, *args, "--check")
    assert "0.9999" in out.read_text(encoding="utf-8")


def test_the_verb_makes_the_picture(
    monkeypatch: pytest.MonkeyPatch, tiny: Callable[[int], U2Net], tmp_path: Path
) -> None:
    from PIL import Image

    folder = tiny(0).save_pretrained(tmp_path / "model")
    photo = ROOT / "examples" / "astronaut.jpg"
    u2net(monkeypatch, "card", "--model", folder, "--picture", photo, "--out", folder / "README.md")
    with Image.open(folder / PICTURE_NAME) as picture:
        assert picture.width > 3 * picture.height - 50
    assert PICTURE_NAME in (folder / "README.md").read_text(encoding="utf-8")


def test_a_dry_run_shows_card_and_files_and_asks_nobody(
    hub: HubServer,
    monkeypatch: pytest.MonkeyPatch,
    tiny: Callable[[int], U2Net],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tiny(0).save_pretrained(tmp_path / "model")
    replace(RESULTS, weights_sha256=None).save(folder)
    u2net(monkeypatch, "push", "--model", folder, "org/a", "--dry-run")
    shown = capsys.readouterr().out
    for name in ("config.json", "model.safetensors", "results.json", "README.md"):
        assert re.search(rf"^{re.escape(name)} +[\d,]+ bytes$", shown, re.MULTILINE)
    assert "library_name: u2net-hub" in shown
    assert "0.9340" in shown
    assert not hub.log
