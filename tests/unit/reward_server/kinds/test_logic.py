"""Formulas of sets and of statements: what is true of the same is the same."""

import hypothesis.strategies as st
from forge import inputs
from hypothesis import assume, given
from kinds import FEW, accepts

SETS = {"not": ["%s^c", "%s'", r"\overline{%s}", r"%s^{\complement}"], "and": r"\cap", "or": r"\cup"}
STATEMENTS = {"not": [r"\neg %s", r"\lnot %s", r"\sim %s"], "and": r"\land", "or": r"\lor"}


@st.composite
def formulas(draw, depth=2):
    """A formula as nested tuples."""
    if not depth or draw(st.integers(0, 3)) == 0:
        return draw(st.sampled_from("ABC"))
    kind = draw(st.sampled_from(["not", "and", "or"]))
    return (kind, *(draw(formulas(depth=depth - 1)) for _ in range(1 if kind == "not" else 2)))


def written(formula, signs, draw):
    if isinstance(formula, str):
        return formula if signs is SETS else {"A": "p", "B": "q", "C": "r"}[formula]
    kind, *parts = formula
    parts = [written(part, signs, draw) for part in parts]
    if kind == "not":
        form = draw(st.sampled_from(signs["not"]))
        return form % (parts[0] if len(parts[0]) == 1 or "overline" in form else f"({parts[0]})")
    one, other = (part if len(part) == 1 else f"({part})" for part in parts)
    return f"{one} {signs[kind]} {other}"


def table(formula):
    def value(part, row):
        if isinstance(part, str):
            return row["ABC".index(part)]
        kind, *parts = part
        values = [value(p, row) for p in parts]
        return not values[0] if kind == "not" else all(values) if kind == "and" else any(values)

    return [value(formula, (a, b, c)) for a in (0, 1) for b in (0, 1) for c in (0, 1)]


@inputs(4 * FEW)
@given(formulas(), formulas(), st.sampled_from([SETS, STATEMENTS]), st.data())
def test_formulas_are_alike_where_their_tables_are(one, other, signs, data):
    assume(all("and" in str(formula) or "or" in str(formula) for formula in (one, other)))  # marks alone are primes
    texts = written(one, signs, data.draw), written(other, signs, data.draw)
    assert accepts(*texts) == (table(one) == table(other))
    assert accepts(written(("not", ("not", one)), signs, data.draw), texts[0])


def test_the_usual_laws():
    assert accepts(r"A \setminus B", r"A \cap B^c")
    assert accepts(r"A \cap \overline{B}", r"A \setminus B")
    assert accepts(r"\neg p \lor q", r"p \to q")
    assert accepts(r"p \Rightarrow q", r"p \to q")
    assert accepts(r"(p \land \neg q) \lor (\neg p \land q)", r"p \oplus q")
    assert not accepts(r"q \to p", r"p \to q")
    assert not accepts(r"p \to q \to r", r"(p \to q) \to r")
    assert not accepts(r"B \setminus A", r"A \setminus B")
    assert not accepts(r"A \setminus (B \setminus C)", r"(A \setminus B) \setminus C")
    assert accepts(r"A \cup B \cap C", r"A \cup (B \cap C)")
    assert not accepts(r"A \cup B \cap C", r"(A \cup B) \cap C")
