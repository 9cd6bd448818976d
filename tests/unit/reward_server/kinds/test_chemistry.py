"""Chemical formulas and equations: which atoms, how many and what charge count, not what sets them upright."""

import hypothesis.strategies as st
from forge import inputs
from hypothesis import given
from kinds import FEW, accepts

elements = st.sampled_from(["H", "O", "C", "N", "Na", "Cl", "Fe", "S", "Ca", "K", "Mg"])
atoms = st.lists(st.tuples(elements, st.integers(1, 6)), min_size=2, max_size=4, unique_by=lambda atom: atom[0])
charges = st.sampled_from(["", "", "+", "-", "2+", "2-", "3+"])
FORMS = [
    lambda body: body("{0}", "_{1}", "^{{{0}}}"),
    lambda body: body(r"\text{{{0}}}", "_{{{1}}}", "^{{{0}}}"),
    lambda body: r"\mathrm{%s}" % body("{0}", "_{{{1}}}", "^{{{0}}}"),  # noqa: UP031 - braces
    lambda body: r"\ce{%s}" % body("{0}", "{1}", "^{0}"),  # noqa: UP031
    lambda body: r"\text{%s}" % body("{0}", "{1}", "^{0}"),  # noqa: UP031
]


def species(atoms, charge, form):
    def body(element, index, power):
        text = "".join(element.format(e) + (index.format("", n) if n > 1 else "") for e, n in atoms)
        return text + (power.format(charge) if charge else "")

    return form(body)


@inputs(4 * FEW)
@given(atoms, charges, st.sampled_from(FORMS), st.sampled_from(FORMS), st.data())
def test_a_substance_in_any_setting(atoms, charge, one, other, data):
    gold = species(atoms, charge, one)
    assert accepts(species(atoms, charge, other), gold)
    at = data.draw(st.integers(0, len(atoms) - 1))
    more = [(e, n + (k == at)) for k, (e, n) in enumerate(atoms)]
    assert not accepts(species(more, charge, other), gold)
    if charge:
        assert not accepts(species(atoms, charge[:-1] + ("-" if charge[-1] == "+" else "+"), other), gold)


def test_an_equation_has_its_sides():
    gold = r"2\text{H}_2 + \text{O}_2 \rightarrow 2\text{H}_2\text{O}"
    assert accepts(r"O_2 + 2H_2 \to 2H_2O", gold)
    assert accepts(r"\ce{2H2 + O2 -> 2H2O}", gold)
    assert not accepts(r"\ce{H2 + O2 -> 2H2O}", gold)
    assert not accepts(r"\ce{2H2O -> 2H2 + O2}", gold)
