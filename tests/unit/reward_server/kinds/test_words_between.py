"""Words that join values, and labels before them: what they join or name keeps its place."""

import hypothesis.strategies as st
from forge import inputs
from hypothesis import given
from kinds import FEW, accepts

small = st.integers(2, 60)
pairs = st.tuples(small, small).filter(lambda pair: pair[0] != pair[1])
nouns = st.sampled_from([("boys", "girls"), ("red marbles", "blue coins"), ("apples", "oranges"), ("cats", "dogs")])
joints = st.sampled_from(["remainder", "out of", "mod", "choose", "minus", "divided by", "is to", "less than"])


@inputs(FEW)
@given(pairs, nouns)
def test_what_was_counted_twice_keeps_its_nouns_in_any_order(pair, nouns):
    (n, m), (noun, other) = pair, nouns

    def counted(first, thing, second, another):
        return rf"{first} \text{{ {thing} and }} {second} \text{{ {another}}}"

    gold = counted(n, noun, m, other)
    assert accepts(counted(m, other, n, noun), gold)
    assert accepts(counted(rf"\frac{{{2 * n}}}{{2}}", noun, m, other), gold)
    assert not accepts(counted(m, noun, n, other), gold)
    assert not accepts(counted(1, noun, n * m, other), gold)
    assert not accepts(str(n * m), gold)


@inputs(FEW)
@given(pairs, joints)
def test_words_between_values_keep_their_order_and_are_no_product(pair, joint):
    n, m = pair
    gold = rf"{n} \text{{ {joint} }} {m}"
    assert accepts(rf"\frac{{{3 * n}}}{{3}} \text{{ {joint} }} {m}", gold)
    assert not accepts(rf"{m} \text{{ {joint} }} {n}", gold)
    assert not accepts(str(n * m), gold)
    assert accepts(rf"a+b \text{{ {joint} }} c", rf"b+a \text{{ {joint} }} c")
    assert not accepts(rf"c \text{{ {joint} }} a+b", rf"a+b \text{{ {joint} }} c")


@inputs(FEW)
@given(pairs)
def test_a_size_is_its_sides_in_order_and_units_may_be_missing(pair):
    n, m = pair
    gold = rf"{n} \text{{ feet by }} {m} \text{{ feet}}"
    assert accepts(rf"{n} \text{{ ft by }} {m} \text{{ ft}}", gold)
    assert accepts(rf"{n} \text{{ by }} {m}", gold)
    assert accepts(rf"{n} \times {m}", gold)
    assert not accepts(rf"1 \text{{ by }} {n * m}", gold)
    assert not accepts(rf"{n} \text{{ m by }} {m} \text{{ m}}", gold)


labelled = st.sampled_from(
    [
        (r"\text{Alice: } %s", r"\text{Bob: } %s"),
        (r"\text{Tom is } %s", r"\text{ Ann is } %s"),
        (r"\text{Length: } %s \text{ cm}", r"\text{Width: } %s \text{ cm}"),
        ("f(1)=%s", "f(2)=%s"),
        ("f(x)=%sx", "g(x)=%sx"),
        (r"\angle A = %s^\circ", r"\angle B = %s^\circ"),
        ("AB=%s", "BC=%s"),
    ]
)


@inputs(FEW)
@given(pairs, labelled)
def test_labels_and_names_keep_their_values_in_any_order(pair, labelled):
    (n, m), (one, other) = pair, labelled
    gold = f"{one % n}, {other % m}"
    assert accepts(f"{other % m}, {one % n}", gold)
    assert not accepts(f"{one % m}, {other % n}", gold)
    assert not accepts(f"{other % n}, {one % m}", gold)
    if "x" not in gold:
        assert accepts(f"{n}, {m}", gold)
        assert not accepts(f"{n}, {m + 1}", gold)


@inputs(FEW)
@given(pairs)
def test_a_label_may_be_missing_on_one_side_and_must_otherwise_agree(pair):
    n, m = pair
    labels = [r"\text{max: } %s", r"\text{The area is } %s", r"\text{Area of the triangle: } %s", r"\text{Area} = %s"]
    for label in labels:
        assert accepts(label % n, str(n))
        assert accepts(str(n), label % n)
        assert not accepts(label % m, str(n))
    assert accepts(labels[1] % n, labels[2] % n)
    assert accepts(labels[3] % n, labels[1] % n)
    assert not accepts(rf"\text{{min: }} {n}", labels[0] % n)
    assert accepts(rf"\text{{The solutions are }} {n}, {m}", f"{m}, {n}")
    for turned in ("The opposite is", "My guess is", "A lower bound is", "minus:", "The reciprocal is"):
        assert not accepts(rf"\text{{{turned} }} {n}", str(n))
