"""The closed list of units: names, what they measure, and what of a language surrounds them. Data, no rules."""

from __future__ import annotations

from fractions import Fraction

# canonical name | factor to the base unit | dimension | other names
_TABLE = """
m      | 1            | L    | meter meters metre metres 米
cm     | 1/100        | L    | centimeter centimeters centimetre centimetres cms 厘米 公分
mm     | 1/1000       | L    | millimeter millimeters millimetre millimetres 毫米
dm     | 1/10         | L    | decimeter decimeters decimetre decimetres 分米
km     | 1000         | L    | kilometer kilometers kilometre kilometres kms 千米 公里
um     | 1/1000000    | L    | µm micrometer micrometers micron microns
Mm     | 1000000      | L    | megameter megameters megametre megametres
nm     | 1/1000000000 | L    | nanometer nanometers
in     | 127/5000     | L    | inch inches ins
ft     | 381/1250     | L    | foot feet
yd     | 1143/1250    | L    | yard yards yds
mi     | 201168/125   | L    | mile miles
s      | 1            | T    | second seconds sec secs 秒 秒間
ms     | 1/1000       | T    | millisecond milliseconds
min    | 60           | T    | minute minutes mins 分钟 分間
h      | 3600         | T    | hour hours hr hrs 小时 時間
day    | 86400        | T    | days 天 日間
week   | 604800       | T    | weeks wk wks 周 星期
month  | 1            | mon  | months 个月 ヶ月
year   | 12           | mon  | years yr yrs 年
decade | 120          | mon  | decades
century | 1200        | mon  | centuries
g      | 1            | M    | gram grams gm 克
mg     | 1/1000       | M    | milligram milligrams
kg     | 1000         | M    | kilogram kilograms kgs 千克 公斤
Mg     | 1000000      | M    | megagram megagrams
t      | 1000000      | M    | tonne tonnes 吨
lb     | 45359237/100000 | M | lbs pound pounds
oz     | 45359237/1600000 | M | ounce ounces
ton    | 45359237/50  | M    | tons
L      | 1/1000       | LLL  | l liter liters litre litres 升
ml     | 1/1000000    | LLL  | mL milliliter milliliters millilitre millilitres cc 毫升
gal    | 473176473/125000000000 | LLL | gallon gallons gals
quart  | 473176473/500000000000 | LLL | quarts qt qts
pint   | 473176473/1000000000000 | LLL | pints
cup    | 473176473/2000000000000 | LLL | cups
tbsp   | 473176473/32000000000000 | LLL | tablespoon tablespoons
tsp    | 473176473/96000000000000 | LLL | teaspoon teaspoons
ha     | 10000        | LL   | hectare hectares 公顷
acre   | 316160658/78125 | LL | acres
N      | 1000         | M L t t | newton newtons
J      | 1000         | M L L t t | joule joules
kJ     | 1000000      | M L L t t | kilojoule kilojoules
erg    | 1/10000      | M L L t t | ergs
dyn    | 1/100        | M L t t | dyne dynes
W      | 1000         | M L L t t t | watt watts
kW     | 1000000      | M L L t t t | kilowatt kilowatts
Pa     | 1000         | M l t t | pascal pascals
kPa    | 1000000      | M l t t | kilopascal kilopascals
atm    | 101325000    | M l t t | atmosphere atmospheres
Hz     | 1            | t    | hertz
kHz    | 1000         | t    | kilohertz
MHz    | 1000000      | t    | megahertz
A      | 1            | I    | ampere amperes amp amps
mA     | 1/1000       | I    | milliampere milliamperes
C      | 1            | I T  | coulomb coulombs
V      | 1000         | M L L t t t i | volt volts
mV     | 1            | M L L t t t i | millivolt millivolts
kV     | 1000000      | M L L t t t i | kilovolt kilovolts
ohm    | 1000         | M L L t t t i i | ohms Ω
F      | 1/1000       | m l l T T T T I I | farad farads
H      | 1000         | M L L t t i i | henry henries henrys
T      | 1000         | M t t i | tesla teslas
Wb     | 1000         | M L L t t i | weber webers
Wh     | 3600000      | M L L t t |
kWh    | 3600000000   | M L L t t |
Torr   | 101325000/760 | M l t t | torr mmHg
Å      | 1/10000000000 | L   | angstrom angstroms
hp     | 1            | hp   | horsepower
psi    | 1            | psi  |
rpm    | 1            | rpm  | RPM
Bq     | 1            | Bq   | becquerel becquerels
lm     | 1            | lm   | lumen lumens
lx     | 1            | lx   | lux
K      | 1            | temp | kelvin kelvins
mol    | 1            | mol  | mole moles
eV     | 1            | eV   | electronvolt electronvolts
keV    | 1000         | eV   |
MeV    | 1000000      | eV   |
GeV    | 1000000000   | eV   |
dB     | 1            | dB   | decibel decibels db
molar  | 1000         | mol l l l | M
bar    | 100000000    | M l t t | bars
MPa    | 1000000000   | M l t t |
MW     | 1000000000   | M L L t t t | megawatt megawatts
AU     | 149597870700 | L    |
pc     | 1            | pc   | parsec parsecs
kpc    | 1000         | pc   | kiloparsec kiloparsecs
Mpc    | 1000000      | pc   | megaparsec megaparsecs
cal    | 1            | cal  | calorie calories
kcal   | 1000         | cal  | kilocalorie kilocalories
bit    | 1            | bit  | bits
byte   | 8            | bit  | bytes
KB     | 8000         | bit  | kb kilobyte kilobytes
MB     | 8000000      | bit  | megabyte megabytes
GB     | 8000000000   | bit  | gigabyte gigabytes
degree | 1            | arc  | degrees deg ° 度
rad    | 1            | rad  | radian radians
dollar | 1            | usd  | dollars usd USD 美元
cent   | 1/100        | usd  | cents ¢ 美分
euro   | 1            | eur  | euros eur EUR 欧元
pence  | 1/100        | gbp  | penny pennies
GBP    | 1            | gbp  | gbp sterling 英镑
yuan   | 1            | cny  | rmb RMB CNY 元 块 块钱 人民币
jiao   | 1/10         | cny  | 角
yen    | 1            | jpy  | JPY 円 日元
rupee  | 1            | inr  | rupees rs INR
peso   | 1            | peso | pesos
won    | 1            | krw  | 韩元
ruble  | 1            | rub  | rubles roubles
franc  | 1            | chf  | francs
unit   | 1            | unit | units
mph    | 201168/450000 | L t |
kph    | 5/18         | L t  | kmh kmph
°C     | 1            | degC | Celsius celsius
°F     | 1            | degF | Fahrenheit fahrenheit
个     | 1            | piece | 個 人 名 本 只 条 件 页 次 种 棵 台 辆 支 张 位 枚 冊 回 頭 羽 つ
个     | 1            | piece | 颗 朵 头 双 对 瓶 杯 盒 袋 家 间 座 道 题 岁 歳
"""
Unit = tuple[Fraction, tuple[tuple[str, int], ...]]  # factor to the base unit, dimension
_INVERSE = {letter.lower(): (letter, -1) for letter in "TLMI"}
# Each prefix before each of the bases is a unit, in this writing only: mW is not MW.
_PREFIXES = {
    "f": -15, "p": -12, "n": -9, "u": -6, "µ": -6, "m": -3, "c": -2, "d": -1, "k": 3, "M": 6, "G": 9, "T": 12,
}  # fmt: skip
_BASES = "m s g N J W Pa Hz V A C F H T ohm eV L mol bar Wh cal Bq Wb"
_IN_TENTHS = ("m", "g", "L")  # the others have no centi- and deci-
_NO_SYMBOLS = ("Tm", "TV", "Mm", "Gs", "Ms")  # tesla times metre, and what people count


def _dimension(text: str) -> tuple[tuple[str, int], ...]:
    counts: dict[str, int] = {}
    letters = text.split() if " " in text or not set(text) <= set("LTM") else list(text)
    for letter in letters:
        name, sign = _INVERSE.get(letter, (letter, 1))
        counts[name] = counts.get(name, 0) + sign
    return tuple(sorted(counts.items()))


def _table() -> tuple[dict[str, Unit], dict[str, str]]:
    units: dict[str, Unit] = {}
    aliases: dict[str, str] = {}
    for line in _TABLE.strip().splitlines():
        name, factor, dimension, others = (cell.strip() for cell in line.split("|"))
        units[name] = (Fraction(factor), _dimension(dimension))
        for alias in (name, *others.split()):
            aliases.setdefault(alias, name)
    for name, unit in _prefixed(units).items():
        units.setdefault(name, unit)
        aliases.setdefault(name, name)
    return units, aliases


def _prefixed(units: dict[str, Unit]) -> dict[str, Unit]:
    return {
        prefix + base: (units[base][0] * Fraction(10) ** power, units[base][1])
        for base in _BASES.split()
        for prefix, power in _PREFIXES.items()
        if prefix + base not in _NO_SYMBOLS and (prefix not in "cd" or base in _IN_TENTHS)
    }


UNITS, ALIASES = _table()
# Short names that stay what they are in capitals: no other unit has the name. Of others the case tells (`Mm`, `mm`).
_ANY_CASE_TEXT = """
cm cms dm km kms kg kgs ft in ins yd yds mi sec secs min mins hr hrs day week wk wks yr yrs lb lbs oz ton cc gal cup
qt qts mph kph kmh deg rad bar cal mol atm usd eur gbp rmb cny won yen
"""
_ANY_CASE = frozenset(_ANY_CASE_TEXT.split())
_CAPITALS = frozenset({"ML", "MM"})  # no one means megalitres


def unit_named(word: str) -> str | None:
    """The canonical name of the unit that a word is; capitals do not count in words of four letters and more."""
    if word in ALIASES:
        return ALIASES[word]
    plain = word.lower()
    return ALIASES.get(plain) if len(word) > 3 or plain in _ANY_CASE or word in _CAPITALS else None


# Two letters that are a product elsewhere (`kT`): a unit only inside `\text` or beside another unit.
TWO_LETTERS = frozenset(name for name in _prefixed(UNITS) if len(name) == 2 and name not in _TABLE.split())
# Signs before or behind an amount.
SIGNS = {
    "\\$": "dollar", "$": "dollar", "\\text{\\$}": "dollar", "\\text{$}": "dollar", "US\\$": "dollar", "USD": "dollar",
    "€": "euro", "\\euro": "euro", "EUR": "euro", "£": "GBP", "\\pounds": "GBP", "GBP": "GBP", "¥": "yen", "￥": "yen",
    "元": "yuan", "円": "yen", "₹": "rupee", "INR": "rupee", "Rs.": "rupee", "Rs": "rupee",
}  # fmt: skip
MULTIPLIERS = {
    "hundred": 100,
    "thousand": 1000,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
    "dozen": 12,
}
# What may follow the noun and changes nothing.
TRAILING = (
    "left", "in total", "total", "in all", "altogether", "old", "remaining", "long", "tall", "high", "wide", "deep",
    "each", "away", "ago",
)  # fmt: skip
_IRREGULAR_PLURALS_TEXT = """
people children men women sheep fish feet mice geese dice deer teeth cattle pieces
"""
IRREGULAR_PLURALS = frozenset(_IRREGULAR_PLURALS_TEXT.split())
_COUNTED_SINGULARS_TEXT = """
apple way point student page marble card coin book ball pencil egg piece person time turn game goal cookie
ticket bag dog cat car chair table tree flower orange banana candy sticker stamp pen cake pizza slice bottle
can jar gift toy shirt friend boy girl teacher player team cow hen chicken duck bird rabbit worker room class
step number digit pair set song photo puzzle problem question point square triangle
"""
COUNTED_SINGULARS = {word: f"{word}s" for word in _COUNTED_SINGULARS_TEXT.split()}
# No part of a noun phrase behind a value: they change the value, deny it, or make a statement of it.
_NO_NOUNS_TEXT = """
or and not if is are was were be been at most least more less fewer than about wrong right false true correct
incorrect squared cubed factorial mod modulo plus minus divided over by maybe perhaps approximately roughly
almost nearly around something anything anyone nothing else so but otherwise when where for any some all each
every no none only as then thus since because unless until while though the a an this that these those its
tens hundred hundreds thousand thousands million millions billion billions trillion trillions dozen dozens score
half halves third thirds fourths quarter fifths sixths sevenths eighths ninths tenth tenths hundredth
hundredths thousandths percent pct percentage percents base one two three four five six seven eight nine ten
eleven twelve twenty thirty forty fifty negative positive double doubles twice thrice triple inverse
reciprocal root power powers infinity pi unknown guess guesses has does equals yes always sometimes less
besides towards fails works loses wins lies exists holds means looks seems gives makes goes remains becomes
needs gets wants costs takes says ends starts follows satisfies vanishes diverges converges may might could
can will would should must never ever probably possibly likely unlikely up down and/or etc instead except
without within between to from of with whatever whichever nope sorry well
"""
NO_NOUNS = frozenset(_NO_NOUNS_TEXT.split())
