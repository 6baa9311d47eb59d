"""Methods that read the model's states: RISE itself, and the mean hidden state in its codes."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluate_samples import labelled_texts, prepared_task

from rise_ops.baselines.mean_hidden_state import kept_states, mean_state_scores, mean_states
from tasks import backbone
from tasks.evaluate import mean_states as mean_states_module
from tasks.evaluate.mean_states import MeanStateMethod
from tasks.evaluate.readout_method import ReadoutGradientMethod
from tasks.evaluate.registry import choose_method
from tasks.evaluate.rise_method import RiseMethod
from tasks.evaluate.settings import MethodChoice

SMALL = {"sketch": {"kind": "principal", "hidden_dim": 8, "projected_dim": 8}, "code": "sign"}


# ---------------------------------------------------------------------------------- RISE itself


def test_rise_scores_follow_the_rows_and_an_index_serves_every_task_of_its_pool(
    tiny_llama: Path, tmp_path: Path
) -> None:
    rows = [replace(one, text=f"{one.text} {n}") for n, one in enumerate(labelled_texts(12))]
    pool, method = tmp_path / "pool", RiseMethod(signature=SMALL)
    task = prepared_task(tiny_llama, tmp_path / "a", rows=rows, pool_work=pool)
    first = method.scores(task)
    assert first.scores.dtype == np.float32
    assert first.cost.n_tokens > 0
    assert first.cost.bytes_per_row == 8 * 8 / 8 + 4  # signs of 8 x 8 numbers, and a scale

    # another order of the rows, and other queries, in another task of the pool
    asked = [*labelled_texts(1, start=70), *task.queries]
    other = replace(task, rows=rows[::-1], queries=asked, work=tmp_path / "b")
    second = method.scores(other)
    np.testing.assert_array_equal(second.scores[::-1, 1:], first.scores)
    assert second.cost.index_seconds == first.cost.index_seconds  # what it took, once
    assert second.cost.n_tokens == first.cost.n_tokens
    assert any("same pool" in note for note in second.notes)


def test_an_index_that_is_built_anew_does_not_cost_twice(tiny_llama: Path, tmp_path: Path) -> None:
    pool, method = tmp_path / "pool", RiseMethod(signature=SMALL)
    task = prepared_task(tiny_llama, tmp_path / "a", pool_work=pool)
    first = method.scores(task)
    assert not first.cost.reused
    shutil.rmtree(pool / "store")
    again = method.scores(task)
    assert again.cost.n_tokens == first.cost.n_tokens
    assert not any("stopped" in note for note in again.notes)
    assert method.scores(task).cost.reused


def test_a_query_without_a_completion_scores_nothing_and_is_counted(
    tiny_llama: Path, tmp_path: Path
) -> None:
    asked = labelled_texts(3, start=20)
    silent = replace(asked[1], prompt_chars=len(asked[1].text))
    for number, method in enumerate((RiseMethod(signature=SMALL), MeanStateMethod())):
        whole = method.scores(prepared_task(tiny_llama, tmp_path / f"{number}" / "a"))
        task = prepared_task(
            tiny_llama, tmp_path / f"{number}" / "b", queries=[asked[0], silent, asked[2]]
        )
        found = method.scores(task)
        np.testing.assert_array_equal(found.scores[:, [0, 2]], whole.scores[:, [0, 2]])
        assert not found.scores[:, 1].any()
        assert any("1 of 3 queries have no predicted token" in note for note in found.notes)
        none = method.scores(replace(task, queries=[silent], work=tmp_path / f"{number}" / "c"))
        assert none.scores.shape == (6, 1)
        assert not none.scores.any()


def test_loading_the_model_is_told_by_who_loaded_it(tiny_llama: Path, tmp_path: Path) -> None:
    backbone._load_backbone.cache_clear()
    for number, method in enumerate((RiseMethod(signature=SMALL), MeanStateMethod())):
        found = method.scores(prepared_task(tiny_llama, tmp_path / f"{number}" / "a"))
        assert (found.cost.load_seconds is None) == (number > 0)
        assert found.cost.index_seconds > 0.0


# -------------------------------------------------------------------------------- mean states


def test_mean_states_find_a_text_itself(tiny_llama: Path, tmp_path: Path) -> None:
    rows = labelled_texts(8, prompt=0)
    found = MeanStateMethod().scores(
        prepared_task(tiny_llama, tmp_path, rows=rows, queries=rows[2:4])
    )
    np.testing.assert_allclose(found.scores[[2, 3], [0, 1]], 1.0, rtol=1e-5)
    assert found.scores.max() <= 1.0 + 1e-5
    assert found.cost.bytes_per_row == 4 * 32


def _some_states() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    common = rng.standard_normal(16)  # what all texts share, as real states do
    found = []
    for n_texts in (7, 3):
        hidden = rng.standard_normal((4 * n_texts, 16)) + 2.0 * common
        found.append(mean_states(hidden, np.arange(4 * n_texts) // 4, n_texts=n_texts))
    return found[0], found[1]


def _cosines_of(rows: np.ndarray, queries: np.ndarray) -> np.ndarray:
    return np.array(
        [[r @ q / np.linalg.norm(r) / np.linalg.norm(q) for q in queries] for r in rows]
    )


def test_states_in_float_give_cosines_and_centred_ones_those_from_the_mean() -> None:
    rows, queries = (states.astype(np.float64) for states in _some_states())
    plain = mean_state_scores(kept_states(rows.astype(np.float32)), queries.astype(np.float32))
    np.testing.assert_allclose(plain, _cosines_of(rows, queries), rtol=1e-5)
    middle = rows.sum(axis=0) / len(rows)
    kept = kept_states(rows.astype(np.float32), centre=True)
    centred = mean_state_scores(kept, queries.astype(np.float32))
    np.testing.assert_allclose(centred, _cosines_of(rows - middle, queries - middle), atol=1e-5)
    assert np.abs(centred - plain).max() > 0.1


def test_states_in_codes_score_by_the_formula_of_each_code() -> None:
    rows, queries = _some_states()
    largest = np.abs(rows).max(axis=1, keepdims=True)
    steps = np.array([[round(float(x)) for x in row] for row in rows / largest * 127])
    expected = (steps * largest / 127) @ queries.T
    kept = kept_states(rows, code="int8")
    np.testing.assert_allclose(mean_state_scores(kept, queries), expected, rtol=1e-4)
    assert kept.row_bytes == 16 + 4

    middle = rows.mean(axis=0)
    from_middle = queries - middle
    from_middle /= np.linalg.norm(from_middle, axis=1, keepdims=True)
    bits = np.where(rows - middle >= 0.0, 1.0, -1.0)
    expected = np.sqrt(np.pi / 2 / 16) * bits @ from_middle.T
    kept = kept_states(rows, code="sign", centre=True)
    np.testing.assert_allclose(mean_state_scores(kept, queries), expected, atol=1e-5)
    assert kept.row_bytes == 16 / 8


@pytest.mark.parametrize("code", ["float32", "int8", "sign"])
@pytest.mark.parametrize("centre", [False, True])
def test_a_text_without_positions_scores_zero_in_every_code(code: Any, centre: bool) -> None:
    rows, queries = _some_states()
    rows[2], queries[1] = 0.0, 0.0
    found = mean_state_scores(kept_states(rows, code=code, centre=centre), queries)
    assert not found[2].any()
    assert not found[:, 1].any()
    assert np.isfinite(found).all()
    assert found[[0, 1, 3]][:, [0, 2]].all()


def test_a_further_code_or_task_costs_no_forward_pass_but_tells_what_it_took(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = prepared_task(tiny_llama, tmp_path / "t" / "a", pool_work=tmp_path / "pool" / "a")
    first = MeanStateMethod().scores(task)
    assert not first.cost.reused

    def fails(*_: Any) -> None:
        raise AssertionError("the model was run again")

    monkeypatch.setattr(mean_states_module, "read_positions", fails)
    other = replace(task, work=tmp_path / "t" / "b", pool_work=tmp_path / "pool" / "b")
    again = MeanStateMethod(code="sign", centre=True).scores(other)
    assert again.cost.bytes_per_row == 32 / 8
    assert again.cost.n_tokens == first.cost.n_tokens > 0
    assert again.cost.reused
    assert again.cost.load_seconds is None
    kept = [np.load(one)["cost"].tolist() for one in (tmp_path / "pool").glob("*.npz")]
    assert len(kept) == 2  # of the rows, and of the queries
    (reading,) = [seconds for seconds, n_tokens in kept if n_tokens == first.cost.n_tokens]
    assert min(first.cost.index_seconds, again.cost.index_seconds) > reading > 0.0
    assert MeanStateMethod().scores(other).scores.tolist() == first.scores.tolist()
    with pytest.raises(AssertionError, match="run again"):
        MeanStateMethod(positions="completion").scores(other)


def test_codes_of_mean_states_are_methods_with_names_of_their_own() -> None:
    names = {
        key: choose_method(MethodChoice(method=f"mean-hidden-state{key}")).name
        for key in ("", "-int8", "-sign", "-centred-sign")
    }
    assert names == {
        "": "mean hidden state",
        "-int8": "mean hidden state, int8",
        "-sign": "mean hidden state, sign",
        "-centred-sign": "mean hidden state, centred sign",
    }


def test_a_code_that_is_not_known_is_refused_with_those_that_are() -> None:
    choice = MethodChoice(method="mean-hidden-state", settings={"code": "float8"})
    with pytest.raises(ValueError, match=r"code .* float32, int8, sign, got 'float8'"):
        choose_method(choice)


# ------------------------------------------------------------------------- read-out gradient


def test_both_forms_of_the_readout_gradient_come_from_one_pass(
    tiny_llama: Path, tmp_path: Path
) -> None:
    task = prepared_task(tiny_llama, tmp_path / "dot")
    dot = ReadoutGradientMethod(form="dot").scores(task)
    cosine = ReadoutGradientMethod(form="cosine").scores(replace(task, work=tmp_path / "cosine"))
    assert not dot.cost.reused
    assert cosine.cost.reused
    assert cosine.cost.index_seconds == dot.cost.index_seconds > 0.0
    ratio = dot.scores / cosine.scores  # lengths of rows times lengths of queries: of rank one
    np.testing.assert_allclose(ratio * ratio[0, 0], np.outer(ratio[:, 0], ratio[0]), rtol=1e-3)
    assert np.abs(cosine.scores).max() <= 1.0 + 1e-5
