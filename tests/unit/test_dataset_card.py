import json
import re

import pytest
import yaml

from tasks.dataset_card import code_block, dataset_card, markdown_text, size_category

LINEAGE = {
    "release": {"name": "main", "id": "0123", "config": {"license": "x"}},
    "scores": {"id": "4567", "identity": {}},
    "query_set": {"name": "what | why", "version": "v1", "manifest": {}},
    "index": {"name": "main", "id": "89ab", "identity": {}},
    "model": {"model": "abc", "note": "```\n# not a heading"},
    "corpus": "main",
    "batches": [{"id": "b1", "n_released": 3, "manifest": {}}],
}


def language(value, after):
    return {"value": value, "before": after, "after": after}


STATISTICS = {
    "rows": {"before": 10, "after": 3},
    "language": {
        "sampled": {"before": 1000, "after": 1000},
        "values": [language("en", 900), language("fr", 10), language("la", 9), language("und", 81)],
    },
}


def card(*, license_name="mit", sources=(("a.jsonl", 3),), name="main", dropped=None):
    lineage = {**LINEAGE, "sources": [{"source": s, "n_released": n} for s, n in sources]}
    manifest = {
        "n_tokens": 12,
        "bytes": 4096,
        "target_tokens": None,
        "n_dropped": dropped or {},
        "lineage": lineage,
    }
    return dataset_card(
        name=name, license_name=license_name, manifest=manifest, statistics=STATISTICS
    )


def front_matter(text):
    """Return the fields as `datasets` finds them: up to the next line that is only dashes."""
    first, *lines = text.splitlines()
    assert first == "---"
    return yaml.safe_load("\n".join(lines[: lines.index("---")]))


def test_the_front_matter_names_data_files_licence_languages_and_size():
    fields = front_matter(card())
    assert fields["license"] == "mit"
    assert "license_name" not in fields
    assert fields["size_categories"] == ["n<1K"]
    assert fields["language"] == ["en", "fr"]
    assert {config["config_name"]: config["data_files"] for config in fields["configs"]} == {
        "default": [{"split": "train", "path": "data/train-*.parquet"}],
        "attributes": [{"split": "train", "path": "attributes/train-*.parquet"}],
    }
    assert [config["config_name"] for config in fields["configs"] if config.get("default")] == [
        "default"
    ]


@pytest.mark.parametrize("text", ["a: b\n---\n# x", "- no", "yes", 'quote " and \\', "null"])
def test_whatever_the_licence_is_called_it_comes_back(text):
    fields = front_matter(card(license_name=text))
    assert (fields["license"], fields["license_name"]) == ("other", text)


def test_what_was_left_out_is_counted():
    assert "| privacy | 1,234 |" in card(dropped={"privacy": 1234})
    assert "Nothing kept a row out" in card()


@pytest.mark.parametrize(
    "source", ["a|b.jsonl", "<script>alert(1)</script>", "[x](http://y)", "`c`", "line\nbreak"]
)
def test_a_source_cannot_change_the_page(source):
    text = card(sources=[(source, 3)])
    (line,) = [line for line in text.splitlines() if line.endswith("| 3 |")]
    assert len(re.findall(r"(?<!\\)\|", line)) == 3
    assert "<script>" not in line
    assert "](http" not in line
    assert not re.search(r"(?<!\\)`", line)


def test_a_code_block_cannot_be_closed_from_inside():
    text = code_block("```\nout", "json")
    assert text.startswith("````json\n")
    assert text.endswith("\n````\n")
    block = re.search(r"^(`{3,})json\n(.*?)\n\1$", card(), re.MULTILINE | re.DOTALL)
    shown = json.loads(block.group(2))
    assert shown["model"]["note"] == LINEAGE["model"]["note"]
    assert shown["batches"] == {"b1": 3}


def test_many_sources_are_summed_up():
    text = card(sources=[(f"file-{number:03d}", 200 - number) for number in range(50)])
    assert "and 30 more sources" in text
    assert text.index(markdown_text("file-000")) < text.index(markdown_text("file-001"))


@pytest.mark.parametrize(
    ("n_rows", "word"), [(1, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (2 * 10**9, "n>1B")]
)
def test_sizes_are_the_words_of_the_hub(n_rows, word):
    assert size_category(n_rows) == word


def test_the_same_release_has_the_same_card():
    assert card() == card()


def test_the_library_of_the_hub_reads_the_header():
    from huggingface_hub import DatasetCard

    fields = DatasetCard(card(license_name="my licence: 1.0")).data.to_dict()
    assert (fields["license"], fields["license_name"]) == ("other", "my licence: 1.0")
    assert fields["language"] == ["en", "fr"]
    assert fields["pretty_name"] == "main"
