"""Units, money, multipliers and times of day; and the words behind a value that are none of these."""

from fractions import Fraction

import hypothesis.strategies as st
from forge import inputs
from hypothesis import given
from kinds import FEW, accepts, latex, naturals

TEXT = st.sampled_from(
    [r"%s \text{ %s}", r"%s\text{%s}", r"%s\ \mathrm{%s}", r"%s \text{%s.}", "%s %s", r"%s~\text{%s}"]
)
# (names of one unit, what another dimension or size is called)
UNITS = [
    (("cm", "centimeters", "centimetre"), ("m", "kg", "mm", "inches")),
    (("kg", "kilograms", "kilogram"), ("g", "lb", "km")),
    (("minutes", "min", "minute"), ("hours", "seconds", "meters")),
    (("ft", "feet", "foot"), ("inches", "yards", "hours")),
    (("dollars", "dollar"), ("euros", "cents", "yen", "pesos")),
    (("liters", "litres", "liter"), ("ml", "gallons", "cm")),
    (("km/h", "kilometers per hour", "km per hour"), ("m/s", "mph", "km")),
]
# (large, small, how many small ones are a large one)
CONVERSIONS = [
    ("km", "m", 1000), ("m", "cm", 100), ("ft", "inches", 12), ("yards", "feet", 3), ("hours", "minutes", 60),
    ("minutes", "seconds", 60), ("days", "hours", 24), ("weeks", "days", 7), ("kg", "g", 1000),
    ("dollars", "cents", 100),
    ("liters", "ml", 1000), ("years", "months", 12), ("pounds", "ounces", 16),
]  # fmt: skip
CHANGING = [
    "or more", "or less", "or so", "or something", "or anything else", "or forty-three", "at least", "at most",
    "is wrong",
    "is not the answer", "squared", "cubed", "factorial", "doubled", "halved", "maybe", "perhaps", "if anything",
    "not sure",
    "but not really", "and more", "plus one", "minus one", "divided by two", "times two hundred", "mod seven",
    "in base seven",
    "percent of nothing", "or not", "otherwise", "approximately", "is too small", "was my guess", "and counting",
    "i", "e", "x",
]  # fmt: skip
NOUNS = [
    "apples",
    "students",
    "coins",
    "ways",
    "red marbles",
    "people",
    "different arrangements",
    "sheep",
    "pages",
    "children",
    "points",
]


@inputs(FEW)
@given(naturals, st.sampled_from(UNITS), TEXT, TEXT, st.data())
def test_a_unit_may_be_missing_and_must_otherwise_agree(number, names, form, other_form, data):
    same, different = names
    unit = data.draw(st.sampled_from(same))
    answer = form % (number, unit)
    assert accepts(answer, str(number))
    assert accepts(str(number), answer)
    assert accepts(answer, other_form % (number, data.draw(st.sampled_from(same))))
    assert not accepts(answer, form % (number, data.draw(st.sampled_from(different))))
    assert not accepts(form % (number + 1, unit), answer)


@inputs(FEW)
@given(naturals, st.sampled_from(CONVERSIONS), TEXT)
def test_units_of_one_dimension_convert(number, conversion, form):
    large, small, factor = conversion
    assert accepts(form % (number * factor, small), form % (number, large))
    assert accepts(form % (number, large), form % (number * factor, small))
    assert not accepts(form % (number * factor + 1, small), form % (number, large))
    assert not accepts(form % (number, small), form % (number, large))


@inputs(FEW)
@given(st.integers(1, 40), st.sampled_from(CONVERSIONS), st.sampled_from([" ", r"\text{ and }", ", "]), st.data())
def test_a_compound_measure_is_its_sum(number, conversion, between, data):
    large, small, factor = conversion
    rest = data.draw(st.integers(1, factor - 1))
    answer = rf"{number} \text{{ {large} }}{between}{rest} \text{{ {small} }}"
    if between != ", ":  # a list of two otherwise
        assert accepts(answer, rf"{number * factor + rest} \text{{ {small}}}")
        assert accepts(answer, latex(number + Fraction(rest, factor)) + rf"\text{{ {large}}}")
    assert not accepts(answer, rf"{number * factor + rest + 1} \text{{ {small}}}")


@inputs(FEW)
@given(naturals, st.sampled_from(["cm", "m", "ft", "in", "km"]), st.sampled_from([2, 3]))
def test_squares_and_cubes_of_units(number, unit, power):
    word, behind = {2: ("square", "squared"), 3: ("cubic", "cubed")}[power]
    written = [
        rf"{number} \text{{ {unit}}}^{power}", rf"{number} \text{{ {unit}}}^{{{power}}}",
    rf"{number} \text{{ {word} {unit}}}",
        rf"{number} \text{{ {unit} {behind}}}", f"{number} {unit}{'²³'[power - 2]}",
    rf"{number}\,\mathrm{{{unit}^{power}}}",
        f"{number} {word} {unit}",
    ]  # fmt: skip
    for answer in written:
        assert accepts(answer, written[0])
        assert unit == "m" or accepts(answer, str(number))  # a letter alone may be a variable
        assert not accepts(answer, rf"{number} \text{{ {unit}}}")
        assert not accepts(answer, rf"{number} \text{{ {unit}}}^{5 - power}")


@inputs(FEW)
@given(naturals)
def test_quotients_of_units_in_all_writings(number):
    written = [
        r"\text{ m/s}^2", r"\ \mathrm{m/s^2}", r"\ \mathrm{m\,s^{-2}}", r" \frac{\text{m}}{\text{s}^2}",
    r"\text{ m}\cdot\text{s}^{-2}",
        r"\text{ meters per second squared}",
    ]  # fmt: skip
    for unit in written:
        assert accepts(f"{number}{unit}", f"{number}{written[0]}")
        assert not accepts(f"{number}{unit}", rf"{number}\text{{ m/s}}")


@inputs(FEW)
@given(
    naturals,
    st.sampled_from(CHANGING),
    st.sampled_from(
        [r"%s \text{ %s}", r"%s\text{%s}", r"%s, \text{ %s}", r"x = %s \text{ %s}", r"\frac{1}{%s} \text{ %s}"]
    ),
)
def test_words_that_change_or_deny_a_value_are_no_unit(number, words, form):
    assert not accepts(form % (number, words), form.split("\\text")[0].strip(" ,") % number)


@inputs(FEW)
@given(naturals, st.sampled_from(NOUNS), st.sampled_from(NOUNS), TEXT)
def test_what_was_counted_may_be_said(number, noun, other, form):
    assert accepts(form % (number, noun), str(number))
    assert accepts(form % (number, noun), rf"{number} \text{{ {noun}}}")
    assert not accepts(form % (number + 1, noun), str(number))
    if noun.split()[-1] != other.split()[-1]:
        assert not accepts(form % (number, noun), rf"{number} \text{{ {other}}}")


@inputs(FEW)
@given(
    st.integers(1, 999),
    st.sampled_from([("hundred", 10**2), ("thousand", 10**3), ("million", 10**6), ("billion", 10**9), ("dozen", 12)]),
    TEXT,
)
def test_a_multiplier_multiplies(number, multiplier, form):
    word, factor = multiplier
    assert accepts(form % (number, word), str(number * factor))
    assert not accepts(form % (number, word), str(number))
    assert not accepts(str(number), form % (number, word))
    assert accepts(form % (f"{number}.5", word), str(number * factor + factor // 2))
    assert accepts(rf"\${number} \text{{ {word}}}", str(number * factor))


@inputs(FEW)
@given(
    naturals,
    st.permutations(
        [
            (r"\$%d", "%d dollars"),
            ("€%d", r"%d \text{ euros}"),
            ("£%d", r"%d \text{ GBP}"),
            ("¥%d", "%d 円"),
            ("₹%d", "%d rupees"),
        ]
    ),
)
def test_one_currency_is_not_another(number, currencies):
    (sign, words), (other_sign, other_words) = currencies[:2]
    assert accepts(sign % number, words % number)
    assert accepts(words % number, sign % number)
    assert accepts(sign % number, str(number))
    assert accepts("-" + sign % number, str(-number))
    for other in (other_sign, other_words):
        assert not accepts(sign % number, other % number)
    assert not accepts(sign % number, str(number + 1))


@inputs(FEW)
@given(
    st.integers(1, 11),
    st.integers(0, 59),
    st.sampled_from(["%d:%02d AM", r"%d:%02d \text{ a.m.}", r"%d:%02d\ \mathrm{am}", "%d:%02d a.m."]),
)
def test_times_of_day(hour, minute, form):
    answer = form % (hour, minute)
    afternoon = answer.replace("AM", "PM").replace("a.m.", "p.m.").replace("am", "pm")
    assert accepts(answer, rf"{hour}:{minute:02d} \text{{ AM}}")
    assert accepts(afternoon, f"{hour}:{minute:02d} PM")
    assert accepts(f"{hour + 12}:{minute:02d}", f"{hour}:{minute:02d} PM")
    assert not accepts(answer, f"{hour}:{minute:02d} PM")
    assert not accepts(answer, f"{hour}:{(minute + 1) % 60:02d} AM")


@inputs(FEW)
@given(st.integers(1, 30), st.integers(1, 30), st.integers(2, 9))
def test_ratios_in_all_writings(a, b, k):
    for answer in (f"{a}:{b}", f"{a} : {b}", rf"{a} \text{{ to }} {b}", f"{a} to {b}", rf"{a}\colon {b}"):
        assert accepts(answer, f"{a}:{b}")
        assert a == b or not accepts(answer, f"{b}:{a}")
        assert not accepts(answer, f"{a}:{b}:{k}")
    assert not accepts(f"{a}:{b}", f"{a}:{b + 1}")


@inputs(FEW)
@given(st.integers(1, 179), st.integers(1, 59))
def test_minutes_of_arc(degrees, minutes):
    value = latex(degrees + Fraction(minutes, 60))
    for answer in (rf"{degrees}^\circ {minutes}'", rf"{degrees}^{{\circ}}{minutes}^\prime", f"{degrees}°{minutes}′"):
        assert accepts(answer, rf"{value}^\circ")
        assert not accepts(answer, rf"{degrees}^\circ")


@inputs(FEW)
@given(
    naturals,
    st.sampled_from(
        [("厘米", "cm"), ("米", "m"), ("千克", "kg"), ("小时", "hours"), ("分钟", "minutes"), ("元", "yuan")]
    ),
)
def test_units_in_chinese(number, names):
    word, unit = names
    for answer in (f"{number}{word}", rf"{number}\text{{{word}}}", rf"{number} \text{{ {word}}}"):
        assert accepts(answer, str(number))
        assert accepts(answer, rf"{number} \text{{ {unit}}}")
        assert not accepts(answer, str(number + 1))
        assert not accepts(answer, rf"{number} \text{{ dollars}}")
    assert accepts(f"{number}个", str(number))
    assert accepts(f"{number}円", str(number))


@inputs(FEW)
@given(
    naturals,
    st.sampled_from([("H", "h"), ("T", "t"), ("M", "m"), ("Mm", "mm"), ("Mg", "mg"), ("S", "s"), ("G", "g")]),
    st.sampled_from(["CM", "Km", "KG", "ML", "Lbs", "Hours", "METERS", "Min"]),
)
def test_capitals_tell_units_apart_that_differ_in_them(number, pair, capitals):
    for one, other in (pair, pair[::-1]):
        assert accepts(rf"{number} \text{{ {one} }}", rf"{number} \text{{ {one}}}")
        assert not accepts(rf"{number} \text{{ {other} }}", rf"{number} \text{{ {one} }}")
        assert accepts(str(number), rf"{number} \text{{ {one} }}")
    assert accepts(rf"{number} \text{{ {capitals} }}", rf"{number} \text{{ {capitals.lower()} }}")
    assert accepts(rf"{number} \text{{ {capitals.lower()} }}", rf"{number} \text{{ {capitals} }}")
    assert not accepts(rf"{100 * number} \text{{ cm }}", rf"{number} \text{{ M }}")
