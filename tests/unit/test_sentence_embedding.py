"""Embeddings by an encoder of its own: means over tokens, padding left out."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluate_samples import labelled_texts, prepared_task
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel

from tasks.evaluate.method import MethodRefused
from tasks.evaluate.sentence_embedding import SentenceEmbeddingMethod


@pytest.fixture
def encoder(tiny_llama: Path, tmp_path: Path) -> Path:
    """A tiny encoder that reads to both sides, with the tiny model's tokenizer."""
    folder = tmp_path / "encoder"
    folder.mkdir()
    for file in tiny_llama.glob("*token*"):
        shutil.copy(file, folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(AutoTokenizer.from_pretrained(tiny_llama)),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=12,
    )
    BertModel(config).save_pretrained(folder)
    return folder


def _by_hand(folder: Path, text: str) -> np.ndarray:
    ids = AutoTokenizer.from_pretrained(folder)(text)["input_ids"][:12]
    with torch.inference_mode():
        hidden = AutoModel.from_pretrained(folder).eval()(torch.tensor([ids])).last_hidden_state
    mean = hidden[0].double().numpy().mean(axis=0)
    return mean / np.linalg.norm(mean)


def test_scores_are_cosines_of_each_text_embedded_alone(
    encoder: Path, tiny_llama: Path, tmp_path: Path
) -> None:
    rows = [*labelled_texts(5), replace(labelled_texts(1)[0], text="", text_id="empty")]
    rows[1] = replace(rows[1], text=" ".join([rows[1].text] * 5))  # longer than the encoder reads
    task = prepared_task(tiny_llama, tmp_path / "work", rows=rows)
    found = SentenceEmbeddingMethod(model=str(encoder)).scores(task)
    expected = np.array(
        [
            [_by_hand(encoder, row.text) @ _by_hand(encoder, query.text) for query in task.queries]
            for row in rows[:-1]
        ]
    )
    np.testing.assert_allclose(found.scores[:-1], expected, atol=1e-5)
    assert np.isfinite(found.scores).all()
    assert found.cost.bytes_per_row == 4 * 16
    assert found.cost.n_tokens > 0
    assert "12 tokens at most" in found.notes[0]


@pytest.mark.parametrize("model", [None, "no/such-encoder"])
def test_without_an_encoder_it_is_refused_with_what_to_do(
    model: str | None, tiny_llama: Path, tmp_path: Path
) -> None:
    method = SentenceEmbeddingMethod(model=model)
    assert method.settings["weights"] is None
    with pytest.raises(MethodRefused, match="needs an encoder" if model is None else model):
        method.scores(prepared_task(tiny_llama, tmp_path))


def test_other_weights_in_the_folder_are_another_method(encoder: Path) -> None:
    method = SentenceEmbeddingMethod(model=str(encoder))
    before = method.settings
    assert method.settings == before
    model = BertModel.from_pretrained(encoder)
    model.embeddings.word_embeddings.weight.data += 1.0
    model.save_pretrained(encoder)
    assert method.settings != before
