"""Methods of other packages, where these are installed: the sign, and the order of rows."""

import importlib.util
import os
import shutil

import numpy as np
import pytest
from evaluate_samples import labelled_texts, prepared_task

from tasks.evaluate.ekfac import EkFac
from tasks.evaluate.gradient_settings import (
    BlockParameters,
    EkFacConfig,
    TracInConfig,
    TrackStarConfig,
)
from tasks.evaluate.method import LabelledText
from tasks.evaluate.tracin import TracIn
from tasks.evaluate.trackstar import TrackStar

needs_kronfluence = pytest.mark.skipif(
    importlib.util.find_spec("kronfluence") is None, reason="kronfluence is not installed"
)
BERGSON = os.environ.get("RISE_TEST_BERGSON", "bergson")
needs_bergson = pytest.mark.skipif(shutil.which(BERGSON) is None, reason="bergson is not installed")
pytestmark = pytest.mark.filterwarnings("ignore")  # they are not ours


@needs_kronfluence
@pytest.mark.parametrize("loss", ["mean", "sum"])
def test_without_curvature_kronfluence_gives_inner_products_of_gradients(
    tiny_llama, tmp_path, loss
):
    task = prepared_task(tiny_llama, tmp_path)
    config = EkFacConfig(strategy="identity", loss=loss, blocks=1)
    found = EkFac(config).scores(task)
    parameters = BlockParameters(blocks=1, pattern=r"mlp\..*weight")
    expected = TracIn(TracInConfig(parameters=parameters)).scores(task).scores
    if loss == "sum":
        rows, queries = (
            np.array([_n_predicted(task, text) for text in texts])
            for texts in (task.rows, task.queries)
        )
        expected = expected * np.outer(rows, queries)
    np.testing.assert_allclose(found.scores, expected, rtol=1e-3, atol=1e-5 * abs(expected).max())


@needs_kronfluence
def test_ek_fac_finds_the_row_that_is_the_query(tiny_llama, tmp_path):
    texts = labelled_texts(12)
    task = prepared_task(tiny_llama, tmp_path, rows=texts, queries=texts[3:6])
    found = EkFac(EkFacConfig(blocks=2)).scores(task)
    assert np.isfinite(found.scores).all()
    assert (found.scores.diagonal(-3) > 0).all()
    assert found.scores.argmax(axis=0).tolist() == [3, 4, 5]
    assert "kronfluence" in found.notes[0]


@needs_bergson
def test_track_star_keeps_rows_in_order_and_finds_the_row_that_is_the_query(tiny_llama, tmp_path):
    texts = labelled_texts(12)
    asked = [*texts[3:6], LabelledText("bare", texts[8].text, 0, "a")]
    config = TrackStarConfig(program=BERGSON, projection_dim=8, batch_tokens=64)
    found = TrackStar(config).scores(prepared_task(tiny_llama, tmp_path, rows=texts, queries=asked))
    assert found.scores[:, :3].argmax(axis=0).tolist() == [3, 4, 5]
    assert np.isfinite(found.scores).all()
    assert "bergson" in found.notes[0]


def _n_predicted(task, text):
    from tasks.evaluate.reading import read_texts

    row = read_texts(task.model, [text], most=512, masked=True).rows[0]
    return len(row.ids) - row.first_target
