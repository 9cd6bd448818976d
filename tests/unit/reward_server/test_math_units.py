"""Units of physics with their prefixes, temperatures, angles, and money in front of its amount."""

from fractions import Fraction

import pytest
from kinds import accepts


def check(gold: str, answer: str, is_right: bool) -> None:
    assert accepts(answer, gold) is is_right


SYMBOLS_TEXT = """
kN GHz mH F nF µF kΩ kWh mT pm fm ns µs rpm hp psi mmHg Torr Bq Wb lm MeV nC pF mmol dL
"""
SYMBOLS = SYMBOLS_TEXT.split()
BASES_TEXT = "m s g N J W Pa Hz V A C F H T eV L mol"


@pytest.mark.parametrize("unit", SYMBOLS)
def test_units_of_physics_may_be_missing_and_are_no_other_unit(unit):
    check("5", rf"5 \text{{ {unit}}}", True)
    check(rf"5\,\mathrm{{{unit}}}", "5", True)
    check("5", rf"6 \text{{ {unit}}}", False)
    for other in ("cm", r"N"):
        check(rf"5 \text{{ {unit}}}", rf"5 \text{{ {other}}}", False)


PREFIXES = {"p": 12, "n": 9, "u": 6, "m": 3}


@pytest.mark.parametrize("base", BASES_TEXT.split())
def test_a_prefix_is_a_power_of_ten(base):
    for prefix, places in PREFIXES.items():
        small = rf"3 \text{{ {prefix}{base}}}"
        check(rf"3 \times 10^{{-{places}}} \text{{ {base}}}", small, True)
        check(rf"3 \times 10^{{-{places - 1}}} \text{{ {base}}}", small, False)
    check(rf"3000 \text{{ {base}}}", rf"3 \text{{ k{base}}}", True)


@pytest.mark.parametrize(
    ("gold", "answer", "is_right"),
    [
        (r"5 \text{ C/s}", r"5 \text{ A}", True),
        (r"5 \text{ N/C}", r"5 \text{ V/m}", True),
        (r"5 \text{ V/A}", r"5\ \Omega", True),
        (r"5 \text{ Wb/s}", r"5 \text{ V}", True),
        (r"5 \text{ J/C}", r"5 \text{ V}", True),
        (r"2 \text{ C/V}", r"2 \text{ F}", True),
        (r"5 \text{ N/C}", r"5 \text{ V}", False),
        (r"3 \text{ k}\Omega", r"3000 \Omega", True),
        (r"3 \text{ kN}", "3 kN", True),
        (r"\frac{3}{2} kT", r"\frac{3}{2}", False),
        ("2mH", "2", False),
        (r"4 \text{ μF}", r"4\,\mu\mathrm{F}", True),
        (r"4 \text{ µs}", "4 μs", True),
        ("4", "4μF", True),
        ("4", "4μN", False),
        (r"25^\circ\text{C}", r"25 \text{ °C}", True),
        (r"25^\circ\text{C}", r"25 \text{ degrees Celsius}", True),
        (r"25^\circ\text{C}", "25 degrees Celsius", True),
        (r"25^\circ\text{C}", r"25 \text{ degrees Fahrenheit}", False),
        (r"25^\circ\text{C}", r"25 \text{ °F}", False),
        (r"25^\circ", r"25\text{°}", True),
        (r"25^\circ", r"26\text{°}", False),
    ],
)
def test_units_of_electricity_and_heat_convert_as_they_do(gold, answer, is_right):
    check(gold, answer, is_right)


@pytest.mark.parametrize("degrees", [15, 30, 45, 90, 120, 225, 360, -60])
def test_degrees_are_radians_where_both_say_so(degrees):
    turn = Fraction(degrees, 180)
    sign, top = "-" * (turn < 0), abs(turn.numerator)
    radians = rf"{sign}\frac{{{top}\pi}}{{{turn.denominator}}}"
    check(rf"{degrees}^\circ", radians, True)
    check(radians, rf"{degrees} \text{{ degrees}}", True)
    check(rf"{degrees}^\circ", rf"{radians} \text{{ rad}}", True)
    check(radians, f"{degrees}", False)
    check(f"{degrees}", radians, False)
    check(rf"{degrees + 1}^\circ", radians, False)


@pytest.mark.parametrize(
    ("gold", "answer", "is_right"),
    [
        (r"30^\circ, 150^\circ", r"\frac{\pi}{6}, \frac{5\pi}{6}", True),
        (r"\frac{\pi}{6}, \frac{5\pi}{6}", r"30^\circ \text{ and } 150^\circ", True),
        (r"30^\circ, 150^\circ", r"\frac{\pi}{6}, \frac{\pi}{3}", False),
        (r"\frac{\pi}{6}, \frac{5\pi}{6}", "30, 150", False),
        (r"90^\circ", r"\frac{\pi}{2} \text{ cm}", False),
        (r"90^\circ\text{C}", r"\frac{\pi}{2}", False),
    ],
)
def test_angles_in_a_list_are_in_degrees_or_radians(gold, answer, is_right):
    check(gold, answer, is_right)


MONEY = [r"\text{INR } %s", r"\text{Rs. } %s", r"\text{USD } %s", r"\text{US\$}%s", r"\text{€}%s", r"\text{US}\$%s"]


@pytest.mark.parametrize("money", MONEY)
def test_money_in_front_is_a_unit(money):
    check("500", money % "500", True)
    check(money % "500", "500", True)
    check("500", money % "50", False)
    check(r"\text{GBP } 500", money % "500", False)
