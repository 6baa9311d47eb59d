"""The walk against all subsets of small problems."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rise_ops.quotas import NO_LIMIT, Bounds, Infeasible, QuotaField, Room
from rise_ops.walk import TAKEN, Judges, Walk

N_MOST = 8


@st.composite
def fields(draw, n_rows, n_fields):
    found = []
    for _ in range(n_fields):
        n_quotas = draw(st.integers(1, 3))
        codes = draw(st.lists(st.integers(-1, n_quotas - 1), min_size=n_rows, max_size=n_rows))
        least = draw(st.lists(st.integers(0, 3), min_size=n_quotas, max_size=n_quotas))
        more = draw(
            st.lists(st.one_of(st.none(), st.integers(0, 3)), min_size=n_quotas, max_size=n_quotas)
        )
        most = [NO_LIMIT if m is None else low + m for low, m in zip(least, more, strict=True)]
        found.append(
            QuotaField(np.array(codes, np.int32), np.array(least), np.array(most, np.int64))
        )
    return tuple(found)


@st.composite
def bounds(draw, n_fields=None, *, by_tokens=None):
    n_rows = draw(st.integers(1, N_MOST))
    tokens = np.array(draw(st.lists(st.integers(1, 9), min_size=n_rows, max_size=n_rows)))
    quotas = draw(fields(n_rows, draw(st.integers(0, 2)) if n_fields is None else n_fields))
    if draw(st.booleans()) if by_tokens is None else by_tokens:
        return Bounds(tokens, quotas, max_tokens=draw(st.integers(1, 30)))
    return Bounds(tokens, quotas, max_rows=draw(st.integers(1, n_rows)))


def holds(case, rows):
    rows = list(rows)
    if case.max_rows is not None and len(rows) > case.max_rows:
        return False
    if case.max_tokens is not None and case.tokens[rows].sum() > case.max_tokens:
        return False
    return all(
        np.count_nonzero(field.codes[rows] == quota) >= field.least[quota]
        and np.count_nonzero(field.codes[rows] == quota) <= field.most[quota]
        for field in case.fields
        for quota in range(len(field.least))
    )


def all_that_hold(case):
    n_rows = len(case.tokens)
    return [
        rows
        for size in range(n_rows + 1)
        for rows in itertools.combinations(range(n_rows), size)
        if holds(case, rows)
    ]


def walked(case, judges=None):
    outcome = Walk(Room(case), judges or Judges(), block_tokens=12).run()
    taken = np.flatnonzero(outcome.reasons == TAKEN).tolist()
    assert sorted(outcome.taken) == taken  # no row twice
    return taken


@settings(max_examples=80, deadline=None)
@given(bounds())
def test_quotas_and_budgets_hold_or_nothing_could(case):
    possible = all_that_hold(case)
    try:
        taken = walked(case)
    except Infeasible:
        assert not possible
    else:
        assert possible
        assert holds(case, taken)
        # nothing is left that could still be taken
        if case.max_rows is not None or case.max_tokens is not None:
            more = [row for row in range(len(case.tokens)) if row not in taken]
            assert not any(holds(case, [*taken, row]) for row in more)


@settings(max_examples=80, deadline=None)
@given(bounds(1, by_tokens=False), st.integers(0, 2**32 - 1))
def test_with_quotas_of_one_field_no_selection_of_rows_is_worth_more(case, seed):
    worth = np.sort(np.random.default_rng(seed).normal(size=len(case.tokens)))[::-1]
    sizes = [rows for rows in all_that_hold(case)]
    if not sizes:
        with pytest.raises(Infeasible):
            walked(case)
        return
    taken = walked(case)
    as_many = [rows for rows in sizes if len(rows) == len(taken)]
    assert len(taken) == max(len(rows) for rows in sizes)
    assert worth[taken].sum() == pytest.approx(max(worth[list(rows)].sum() for rows in as_many))


@settings(max_examples=80, deadline=None)
@given(bounds(2, by_tokens=False))
def test_rows_of_two_fields_reach_the_number_asked_for_whenever_that_can_be(case):
    possible = [rows for rows in all_that_hold(case) if len(rows) == case.max_rows]
    exact = Bounds(case.tokens, case.fields, max_rows=case.max_rows, exact=True)
    try:
        taken = walked(exact)
    except Infeasible:
        assert not possible
    else:
        assert tuple(taken) in possible


class Picky(Judges):
    def __init__(self, bad):
        self.bad, self.looked, self.was_read = bad, set(), set()

    def read(self, places):
        self.was_read.update(places.tolist())

    def look(self, places):
        self.looked.update(places.tolist())

    def fault(self, place):
        from rise_ops.walk import JUDGES, Fault

        assert place in self.was_read
        assert place in self.looked
        return Fault(JUDGES) if place in self.bad else None


@settings(max_examples=80, deadline=None)
@given(bounds(), st.sets(st.integers(0, N_MOST - 1)))
def test_rows_that_a_judge_drops_make_room_and_rows_below_the_cut_are_not_looked_at(case, bad):
    judges = Picky(bad)
    possible = [rows for rows in all_that_hold(case) if not bad & set(rows)]
    try:
        taken = walked(case, judges)
    except Infeasible:
        # what was taken before may be in the way, but never where quotas are on one field only
        assert len(case.fields) == 2 or case.max_tokens is not None or not possible
        return
    assert holds(case, taken)
    assert not bad & set(taken)
    if case.max_tokens is None and len(taken) == case.max_rows and not case.fields:
        assert judges.looked == set(range(taken[-1] + 1))
