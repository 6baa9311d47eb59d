"""Tokens behind a score: their contributions add up to it, whatever the sketch and the windows."""

import json
from pathlib import Path

import numpy as np
import pytest
from tiny_rows import tiny_texts, write_texts
from typer.testing import CliRunner

from flows.cli import app
from storage.errors import NotFoundError
from storage.refs import CorpusRef, IndexRef
from tasks.attribution import attribute_text, token_contributions
from tasks.config import IndexConfig, ModelConfig, RuntimeConfig
from tasks.queries import query_signatures
from tasks.signature_config import (
    PrincipalProjection,
    ResidualConfig,
    SeparableSketch,
    SignatureConfig,
    TensorSketch,
    WindowConfig,
)
from tasks.signatures import build_index

CPU = RuntimeConfig(device="cpu", batch_tokens=100)
PROMPT, COMPLETION = "row 3: the quick", " brown fox jumps over a dog"
SKETCHES = {
    "separable": {"sketch": SeparableSketch(residual_dim=8, hidden_dim=8, projected_dim=4)},
    "principal": {
        "sketch": PrincipalProjection(hidden_dim=8, projected_dim=4, calibration_tokens=400),
        "code": "sign",
    },
}
TEXTS = tiny_texts(20)


def _index(
    root: Path, model: Path, settings: dict[str, object], *, positions: str = "all"
) -> IndexRef:
    ref = IndexRef(str(root), "main")
    write_texts(CorpusRef(str(root), "main"), "b1", TEXTS, prompt_chars=7)
    config = IndexConfig(
        model=ModelConfig(name=str(model), dtype="float32"),
        signature=SignatureConfig(
            residual=ResidualConfig(temperature=1.0, top_k=64),
            window=WindowConfig(tokens=24, overlap=6),
            **settings,
        ),
        positions=positions,
    )
    build_index(ref, CorpusRef(str(root), "main"), config, CPU)
    return ref


@pytest.mark.parametrize("kind", SKETCHES)
@pytest.mark.parametrize("positions", ["all", "completion"])
def test_tokens_add_up_to_the_score(tiny_llama: Path, tmp_path: Path, kind: str, positions: str):
    ref = _index(tmp_path, tiny_llama, SKETCHES[kind], positions=positions)
    found = token_contributions(ref, "r12", PROMPT, COMPLETION, runtime=CPU)
    masked = 7 if positions == "completion" else 0
    texts, prompts = [TEXTS[12], PROMPT + COMPLETION], [masked, len(PROMPT)]
    row, query = query_signatures(ref, texts, prompts, CPU)
    assert found.score == pytest.approx(float(row @ query), abs=1e-5)
    for shares in (found.row, found.query):
        assert sum(one.contribution for one in shares) == pytest.approx(found.score, abs=1e-5)
        assert sum(one.share for one in shares) == pytest.approx(1.0, abs=1e-3)
        places = [one.place for one in shares]
        assert places == sorted(set(places))
    # several windows, each of whose overlaps counts once; and the tokens spell the text
    assert len(found.row) > 40
    assert TEXTS[12].endswith("".join(one.token for one in found.row))
    assert "".join(one.token for one in found.query) == COMPLETION
    assert np.abs([one.contribution for one in found.query]).max() > 0.0


def test_the_command_prints_rows_and_tokens_as_json(tiny_llama: Path, tmp_path: Path):
    floats = {**SKETCHES["principal"], "keep_floats": True}
    ref = _index(tmp_path, tiny_llama, floats)
    asked = ["attribute", COMPLETION, "--prompt", PROMPT, "--store", ref.root, "--device", "cpu"]
    asked += ["--top", "2", "--shortlist", "20", "--json"]
    alone = CliRunner().invoke(app, asked)
    assert alone.exit_code == 0, alone.output
    both = CliRunner().invoke(app, [*asked, "--tokens"])
    found = json.loads(both.stdout)
    assert found["rows"] == json.loads(alone.stdout)
    rows, tokens = found["rows"], found["tokens"]
    assert [row["rank"] for row in rows] == [1, 2]
    assert (tokens["row_id"], set(tokens)) == (
        rows[0]["row_id"],
        {"row_id", "score", "row", "query"},
    )
    # float rows decided: the score is that of the two signatures, not of sign bits
    assert tokens["score"] == pytest.approx(rows[0]["score"], abs=2e-3)
    assert "".join(one["token"] for one in tokens["query"]) == COMPLETION
    total = sum(one["contribution"] for one in tokens["row"])
    assert total == pytest.approx(tokens["score"], abs=1e-4)


def test_top_row_can_be_taken_apart(tiny_llama: Path, tmp_path: Path):
    ref = _index(tmp_path, tiny_llama, SKETCHES["separable"])
    hit = attribute_text(ref, prompt=PROMPT, completion=COMPLETION, top_k=1, runtime=CPU)[0]
    found = token_contributions(ref, hit.row_id, PROMPT, COMPLETION, runtime=CPU)
    assert found.score == pytest.approx(hit.score, abs=2e-3)  # rows are float16


def test_what_cannot_be_taken_apart_is_refused(tiny_llama: Path, tmp_path: Path):
    ref = _index(tmp_path, tiny_llama, {"sketch": TensorSketch(residual_weight=0.0)})
    with pytest.raises(ValueError, match="tensor sketch, which does not keep the tokens"):
        token_contributions(ref, "r3", PROMPT, COMPLETION, runtime=CPU)
    other = _index(tmp_path / "other", tiny_llama, SKETCHES["separable"])
    with pytest.raises(NotFoundError, match="r99"):
        token_contributions(other, "r99", PROMPT, COMPLETION, runtime=CPU)
    with pytest.raises(ValueError, match="completion is empty"):
        token_contributions(other, "r3", PROMPT, " ", runtime=CPU)
