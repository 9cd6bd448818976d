"""Vectors: in unit vectors, as a multiple, as a program prints them, as a column. Their coordinates count."""

from fractions import Fraction

import hypothesis.strategies as st
from forge import inputs
from hypothesis import given
from kinds import FEW, accepts, latex

FORMS = [r"\hat{%s}", r"\mathbf{%s}", r"\vec{%s}", r"\hat %s", r"\boldsymbol{%s}"]
coordinates = st.lists(st.integers(-9, 9), min_size=2, max_size=3)


def in_unit_vectors(values, form):
    terms = [
        f"{v:+d}" * (abs(v) != 1) + ("-" if v == -1 else "+") * (abs(v) == 1) + form % u
        for v, u in zip(values, "ijk", strict=False)
        if v
    ]
    return "".join(terms).removeprefix("+")


def matrix(rows):
    body = r"\\".join("&".join(map(str, row)) for row in rows)
    return rf"\begin{{pmatrix}}{body}\end{{pmatrix}}"


def column(values):
    return matrix([value] for value in values)


@st.composite
def vectors(draw):
    """A vector with a part beside i, its writings, and another vector."""
    values = draw(coordinates.filter(lambda v: any(v[1:])))
    inner = ",".join(map(str, values))
    texts = [
        f"({inner})", rf"\langle {inner} \rangle", column(values), f"({inner})^T",
        in_unit_vectors(values, draw(st.sampled_from(FORMS))), *([f"[{inner}]"] if len(values) == 3 else []),
    ]  # fmt: skip
    at = draw(st.integers(0, len(values) - 1))
    other = [v + (k == at) for k, v in enumerate(values)]
    return (
        draw(st.permutations(texts))[:2],
        in_unit_vectors(other, draw(st.sampled_from(FORMS))),
        ",".join(map(str, other)),
    )


@inputs(4 * FEW)
@given(vectors())
def test_a_vector_has_its_coordinates_in_every_writing(drawn):
    (answer, gold), other, inner = drawn
    assert accepts(answer, gold)
    assert not accepts(f"({inner})", gold)
    if "j" in other or "k" in other:
        assert not accepts(other, gold)


@inputs(FEW)
@given(coordinates, st.integers(2, 9))
def test_a_multiple_is_multiplied_out(values, factor):
    out = ",".join(latex(Fraction(v, factor)) for v in values)
    inner = ",".join(map(str, values))
    assert accepts(rf"\frac{{1}}{{{factor}}}({inner})", f"({out})")
    assert accepts(f"({out})", rf"\frac{{1}}{{{factor}}}\langle {inner} \rangle")
    if any(values):
        assert not accepts(rf"\frac{{1}}{{{factor + 1}}}({inner})", f"({out})")


@inputs(FEW)
@given(st.lists(st.lists(st.integers(-9, 9), min_size=2, max_size=2), min_size=2, max_size=3))
def test_a_matrix_as_programs_print_it(rows):
    written = matrix(rows)
    assert accepts(str(rows), written)
    assert accepts(f"{matrix(zip(*rows, strict=True))}^T", written)
    rows[0][0] += 1
    assert not accepts(str(rows), written)


def test_what_is_no_vector():
    assert not accepts("3+4j", "(3,4)")
    assert not accepts("3i", "(3,0)")
    assert not accepts(r"\begin{pmatrix}1\\2\end{pmatrix}", "[1,2]")
    assert not accepts("[1,2]", "(1,2)")
    assert not accepts("[1,2,3]", r"\{1,2,3\}")
