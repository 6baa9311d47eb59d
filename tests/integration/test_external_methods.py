"""Methods of other packages, where these are installed: the sign, and the order of rows."""

import importlib.util
import os
import shutil

import numpy as np
import pytest
from evaluate_samples import labelled_texts, prepared_task
from tiny import tiny_model

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


@needs_kronfluence
def test_damping_is_a_tenth_of_the_mean_eigenvalue_unless_it_is_given(tiny_llama, tmp_path):
    task = prepared_task(tiny_llama, tmp_path)
    layer = r"layers\.1\.mlp\.down_proj"
    own, heavy, plain = (
        EkFac(EkFacConfig(blocks=1, pattern=layer, damping=damping)).scores(task).scores
        for damping in (None, 1e6, 1e-8)
    )
    inner = EkFac(EkFacConfig(blocks=1, pattern=layer, strategy="identity")).scores(task).scores
    np.testing.assert_allclose(heavy * 1e6, inner, rtol=1e-3, atol=1e-4 * abs(inner).max())
    mean_eigenvalue = _mean_eigenvalue(task, layer)
    config = EkFacConfig(blocks=1, pattern=layer, damping=0.1 * mean_eigenvalue)
    given = EkFac(config).scores(task).scores
    np.testing.assert_allclose(given, own, rtol=1e-3, atol=1e-4 * abs(own).max())
    assert abs(plain - own).max() > 0.5 * abs(own).max()  # what the package does unasked


@needs_bergson
def test_track_star_keeps_rows_in_order_and_finds_the_row_that_is_the_query(tmp_path):
    model = tiny_model(tmp_path / "model", bos=True)
    (model / "chat_template.jinja").unlink()  # it reads the plain text, as a base model's
    texts = labelled_texts(12)
    asked = [*texts[3:6], LabelledText("bare", texts[8].text, 0, "a")]
    config = TrackStarConfig(program=BERGSON, projection_dim=8, batch_tokens=64)
    found = TrackStar(config).scores(prepared_task(model, tmp_path, rows=texts, queries=asked))
    assert found.scores[:, :3].argmax(axis=0).tolist() == [3, 4, 5]
    assert np.isfinite(found.scores).all()
    assert "bergson" in found.notes[0]


def _mean_eigenvalue(task, layer):
    """Of the layer's corrected eigenvalues, as the package keeps them."""
    found = []

    class Looking(EkFac):
        def _pairwise(self, analyzer, rows, queries, **more):
            kept = analyzer.load_all_factors("factors")
            for name, eigenvalues in kept["lambda_matrix"].items():
                found.append(float((eigenvalues / kept["num_lambda_processed"][name]).mean()))
            return super()._pairwise(analyzer, rows, queries, **more)

    Looking(EkFacConfig(blocks=1, pattern=layer)).scores(task)
    (mean,) = found
    return mean


def _n_predicted(task, text):
    from tasks.evaluate.reading import read_texts

    row = read_texts(task.model, [text], most=512, masked=True).rows[0]
    return len(row.ids) - row.first_target
