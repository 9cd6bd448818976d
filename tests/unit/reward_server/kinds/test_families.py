"""Values that a whole number runs through: shifted, turned round and split they are the same, elsewhere not."""

from fractions import Fraction

import hypothesis.strategies as st
from forge import inputs
from hypothesis import given
from kinds import FEW, accepts, latex

starts = st.builds(Fraction, st.integers(-12, 12), st.sampled_from([1, 2, 3, 4, 6]))
steps = st.builds(Fraction, st.integers(1, 6), st.sampled_from([1, 2, 3]))
letters = st.sampled_from("kn")
IN_Z = [
    r", %s \in \mathbb{Z}",
    r" \quad (%s\in\mathbb Z)",
    r", \text{ where } %s \text{ is an integer}",
    r"\ (%s \in \mathbf{Z})",
]


def times_pi(number):
    return f"{latex(number)}\\pi"


def formula(start, step, letter, unit):
    """One of the ways to write `start + step * letter`, in turns of pi or in plain numbers."""
    written = times_pi if unit else latex
    return f"{written(start)}+{written(step)}{letter}" if start else f"{written(step)}{letter}"


@st.composite
def families(draw):
    """A family with its condition, the same one otherwise written, and another one."""
    start, step, unit = draw(starts), draw(steps), draw(st.booleans())
    letter, other = draw(letters), draw(letters)
    gold = formula(start, step, letter, unit) + draw(st.sampled_from(IN_Z)) % letter
    shifted = start + draw(st.integers(-3, 3)) * step
    parts = draw(st.integers(1, 3))
    turned = draw(st.sampled_from([1, -1]))
    same = [formula(shifted + k * step, parts * step * turned, other, unit) for k in range(parts)]
    wrong = [formula(shifted + step / 5, step, other, unit), formula(shifted, step * 2, other, unit)]
    condition = draw(st.sampled_from(["", draw(st.sampled_from(IN_Z)) % other]))
    return ", ".join(draw(st.permutations(same))) + condition, gold, draw(st.sampled_from(wrong)) + condition


@inputs(3 * FEW)
@given(families())
def test_a_family_has_many_writings(drawn):
    same, gold, other = drawn
    assert accepts(same, gold)
    assert not accepts(other, gold)


@inputs(FEW)
@given(families())
def test_without_a_word_on_the_letter_it_is_a_formula(drawn):
    _, gold, _ = drawn
    bare = gold.partition(",")[0].partition(" \\quad")[0].partition("\\ (")[0]
    assert accepts(bare, gold)


@inputs(2 * FEW)
@given(st.integers(2, 12), st.data())
def test_residues_of_one_modulus_are_a_set(modulus, data):
    residues = data.draw(st.lists(st.integers(0, modulus - 1), min_size=1, max_size=3, unique=True))
    rest = [r for r in range(modulus) if r not in residues]
    gold = ", ".join(rf"x \equiv {r} \pmod{{{modulus}}}" for r in residues)
    moved = [r + modulus * data.draw(st.integers(-2, 2)) for r in data.draw(st.permutations(residues))]
    assert accepts(rf"x \equiv {', '.join(map(str, moved))} \pmod{{{modulus}}}", gold)
    assert accepts(", ".join(f"{modulus}k{r:+d}" for r in moved) + r", k \in \mathbb{Z}", gold)
    for r in rest[:1]:
        assert not accepts(rf"x \equiv {', '.join(map(str, [*moved[1:], r]))} \pmod{{{modulus}}}", gold)


def test_degrees_and_sets():
    gold = r"\frac{\pi}{3}+2k\pi, k\in\mathbb{Z}"
    assert accepts(r"60^\circ + 360^\circ n", gold)
    assert accepts(r"\{-\frac{5\pi}{3}+2\pi n \mid n \in \mathbb{Z}\}", gold)
    assert not accepts(r"60^\circ + 180^\circ n", gold)
    assert not accepts(r"2n+2, n \in \mathbb{N}", r"2n, n \in \mathbb{N}")
    assert not accepts(r"2n+2", r"2n")
    assert not accepts(r"y=2x+3, x \in \mathbb{Z}", r"y=2x+1, x \in \mathbb{Z}")


@inputs(2 * FEW)
@given(starts, starts, steps, st.sampled_from(["()", "[]", "[)", "(]"]), st.integers(-2, 2), st.integers(-2, 2))
def test_intervals_run_through_whole_numbers_too(low, length, step, kind, shift, other):
    length = abs(length) + 1

    def interval(start, letter, kind=kind, length=length):
        ends = ",".join(formula(end, step, letter, True) for end in (start, start + length))
        return f"{kind[0]}{ends}{kind[1]}"

    gold = interval(low, "k") + r", k \in \mathbb{Z}"
    assert accepts(interval(low + shift * step, "n"), gold)
    assert accepts(rf"x \in {interval(low + other * step, 'k')} \ (k \in \mathbb{{Z}})", gold)
    assert not accepts(interval(low + shift * step + step / 3, "n"), gold)
    assert not accepts(interval(low, "n", length=length + 1), gold)
    assert not accepts(interval(low + shift * step, "n", kind="()" if kind == "[]" else "[]"), gold)


def test_signs_that_turn_and_values_left_out():
    gold = r"x=\frac{\pi}{6}+2k\pi, \frac{5\pi}{6}+2k\pi, k\in\mathbb{Z}"
    assert accepts(r"x=k\pi+(-1)^k\frac{\pi}{6}, k\in\mathbb{Z}", gold)
    assert not accepts(r"x=k\pi+(-1)^{k+1}\frac{\pi}{6}, k\in\mathbb{Z}", gold)
    gold = r"x \neq \frac{\pi}{2}+k\pi, k \in \mathbb{Z}"
    assert accepts(r"\{x \mid x \neq k\pi-\frac{\pi}{2}, k \in \mathbb{Z}\}", gold)
    assert not accepts(r"x = \frac{\pi}{2}+k\pi, k \in \mathbb{Z}", gold)
    assert not accepts(r"x \neq k\pi, k \in \mathbb{Z}", gold)
    assert accepts(r"\{(s,2s) \mid s\in\mathbb{R}\}", r"(t,2t), t\in\mathbb{R}")
    assert not accepts(r"\{(2s,s) \mid s\in\mathbb{R}\}", r"(t,2t), t\in\mathbb{R}")
