r"""Chemical formulas and equations, whatever sets their letters upright: `\text{H}_2\text{O}`, `\ce{H2O}`, `H_2O`.

>>> flat("\\mathrm{SO_4^{2-}}"), flat("\\ce{2H2 + O2 -> 2H2O}")
('SO4^2-', '2H2+O2->2H2O')
"""

from __future__ import annotations

import re

from chorus.reward_server.graders.math.comparison import Ask, Comparison

MAX_CHARS = 200
_ELEMENTS = (
    "Ac Ag Al Am Ar As At Au B Ba Be Bh Bi Bk Br C Ca Cd Ce Cf Cl Cm Cn Co Cr Cs Cu Db Ds Dy Er Es Eu F Fe Fl Fm Fr Ga "
    "Gd Ge H He Hf Hg Ho Hs I In Ir K Kr La Li Lr Lu Lv Mc Md Mg Mn Mo Mt N Na Nb Nd Ne Nh Ni No Np O Og Os P Pa Pb Pd "
    "Pm Po Pr Pt Pu Ra Rb Re Rf Rg Rh Rn Ru S Sb Sc Se Sg Si Sm Sn Sr Ta Tb Tc Te Th Ti Tl Tm Ts U V W Xe Y Yb Zn Zr"
)
_ELEMENT = "(?:" + "|".join(sorted(_ELEMENTS.split(), key=len, reverse=True)) + ")"
_ARROW = re.compile(r"\\(?:long)?(?:right)?(?:left)?(?:arrow|harpoons)s?(?![a-z])|\\to(?![a-z])|-->|→|⟶|<=>")
_UPRIGHT = re.compile(r"\\(?:text|mathrm|rm|ce|pu)(?![a-z])")
_SPECIES = re.compile(
    rf"\d*(?:{_ELEMENT}\d*|[(\[](?:{_ELEMENT}\d*)+[)\]]\d*)+(?:\^(?:\d*[+-]|[+-]\d*))?(?:\((?:s|l|g|aq)\))?"
)


def by_chemistry(answer: str, gold: str, _: Ask) -> Comparison | None:
    """The same species on both sides, in any order of a sum; no other verdict than that they are."""
    if max(len(answer), len(gold)) > MAX_CHARS:
        return None
    ours, theirs = _sides(answer), _sides(gold)
    return Comparison(True, "chemistry", "the same substances") if ours is not None and ours == theirs else None


def flat(text: str) -> str:
    """The formula as one types it: no braces, no marks of an index, a `^` before a charge."""
    text = _ARROW.sub("->", _UPRIGHT.sub("", text))
    return re.sub(r"[\s{}_$]|\\[,;! ]", "", text)


def _sides(text: str) -> list[list[str]] | None:
    sides = [
        [_charged(term) for term in re.split(r"(?<!\^)(?<!\^\d)\+(?=\d*[A-Z(\[])", side)]
        for side in flat(text).split("->")
    ]
    if not all(_SPECIES.fullmatch(term) for side in sides for term in side):
        return None
    return [sorted(side) for side in sides]


def _charged(term: str) -> str:
    """`Na^1+` and `Na^+`, `SO4^-2` and `SO4^2-`."""
    term = re.sub(r"\^([+-])(\d)", r"^\2\1", term)
    return re.sub(r"\^1([+-])", r"^\1", term)
