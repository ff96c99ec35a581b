"""Values for the slots of `templates.txt`: words of lists, and random identifiers, dates and
amounts in many notations. Knows no template.
"""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Mapping
from pathlib import Path

HERE = Path(__file__).parent
Draw = Callable[[random.Random], str]


def _read() -> dict[str, list[str]]:
    text = (HERE / "slots.txt").read_text(encoding="utf-8").partition("\n\n")[2]
    entries = [line.partition(": ") for line in text.replace("\n  ", " ").splitlines()]
    return {name: values.split("; ") for name, _, values in entries}


LISTS: Mapping[str, list[str]] = _read()
MONTHS = {name.removeprefix("months"): v for name, v in LISTS.items() if name.startswith("months")}
DAYS, STREETS, WORDS = LISTS["days"], LISTS["streets"], LISTS["words"]


def _code(rng: random.Random) -> str:
    """An identifier as offices, shops and factories write them."""
    shapes = LISTS["shapes"]
    letters = {"L": string.ascii_uppercase, "#": string.digits, "l": string.ascii_lowercase}
    return "".join(rng.choice(letters[c]) if c in letters else c for c in rng.choice(shapes))


def _password(rng: random.Random) -> str:
    word, other = rng.sample(WORDS, 2)
    return rng.choice(
        [
            f"{word}-{rng.randint(10, 99)}-{other}",
            f"{word.title()}{rng.randint(10, 9999)}!",
            f"{word}{other}{rng.randint(1, 99)}",
            f"{word[:3].upper()}{rng.randint(100, 999)}{other[:3]}#",
            f"{word}_{other}",
            f"{rng.randint(100, 9999)}{word}",
            f"{word.title()}*{other.title()}{rng.randint(1, 9)}",
            "".join(rng.choices(string.ascii_letters + string.digits, k=rng.randint(8, 12))),
        ]
    )


def _date(rng: random.Random) -> str:
    day, month, year = rng.randint(1, 28), rng.randint(1, 12), rng.randint(1950, 2031)
    name = MONTHS[""][month - 1]
    return rng.choice(
        [
            f"{day} {name}", f"{day} {name} {year}", f"{name} {day}", f"{year}-{month:02}-{day:02}",
            f"{day:02}/{month:02}/{year}", f"{day}.{month}.{year}", f"{day} {name[:3]}",
            f"{name} {day}, {year}", f"the {day}th of {name}", f"{day}.{month}.",
            f"{rng.choice(DAYS)} {day} {name}", f"{day} {name[:3]} {year}", f"{name} {year}",
        ]
    )  # fmt: skip


def _day_in(language: str) -> Draw:
    def draw(rng: random.Random) -> str:
        name = rng.choice(MONTHS[language])
        day = rng.randint(1, 28)
        return {
            "_de": f"{day}. {name}", "_fr": f"{day} {name}", "_es": f"{day} de {name}",
            "_pt": f"{day} de {name}",
        }[language]  # fmt: skip

    return draw


def _money(rng: random.Random) -> str:
    amount = rng.choice([rng.randint(3, 99), rng.randint(100, 999), rng.randint(1000, 9999)])
    text = rng.choice([f"{amount}", f"{amount:,}", f"{amount}.{rng.randint(5, 95):02}"])
    shapes = ["{} euros", "{} pounds", "${}", "£{}", "{} €", "{} francs", "{}", "{} EUR", "{} kr"]
    return rng.choice(shapes).format(text)


def _time(rng: random.Random) -> str:
    hour, minute = rng.randint(1, 23), rng.choice([0, 5, 10, 15, 20, 25, 30, 40, 45, 50])
    return rng.choice(
        [f"{hour}:{minute:02}", f"{hour:02}:{minute:02}", f"{hour % 12 or 12} {'ap'[hour > 11]}m"]
    )


def _phone(rng: random.Random) -> str:
    return rng.choice(
        [
            f"0{rng.randint(100, 999)} {rng.randint(1000, 99999)}",
            f"555-{rng.randint(1000, 9999)}",
            f"+{rng.randint(30, 49)} {rng.randint(100, 999)} {rng.randint(10000, 99999)}",
            f"0{rng.randint(10, 99)}/{rng.randint(10000, 999999)}",
        ]
    )


def _joined(first: int, last: int, shape: str) -> Draw:
    return lambda rng: shape.format(rng.randint(first, last))


def _full(rng: random.Random) -> str:
    first, last = rng.choice(LISTS["first"]), rng.choice(LISTS["last"])
    formal = [f"Mrs {last}", f"Mr. {last}", f"Ms. {last}", f"{first[0]}. {last}"]
    return rng.choice([f"{first} {last}"] * 6 + formal + [f"{first} {last}-{_last(rng)}"])


def _last(rng: random.Random) -> str:
    return rng.choice(LISTS["last"])


def _letters(rng: random.Random, count: int) -> str:
    return "".join(rng.choices(string.ascii_uppercase, k=count))


def _sum(rng: random.Random, digits: int) -> str:
    number = rng.randint(10 ** (digits - 1), 10**digits - 1)
    return rng.choice([f"{number:,}", str(number)])


DRAWN: Mapping[str, Draw] = {
    "child": lambda rng: rng.choice(LISTS["first"]),
    "full": _full,
    "dr": lambda rng: f"{rng.choice(['Dr.', 'Dr', 'Prof.'])} {rng.choice(LISTS['last'])}",
    "street": lambda rng: (
        f"{rng.randint(1, 140)} {rng.choice(STREETS)}"
        f" {rng.choice(['Street', 'Road', 'Lane', 'Close', 'Avenue', 'Row', 'Hill'])}"
    ),
    "code": _code,
    "model": lambda rng: (
        f"{rng.choice(['Vexa', 'Torin', 'Halo', 'Brix', 'Elmo', 'Kaan', 'Zenn'])}"
        f" {rng.choice(string.ascii_uppercase)}{rng.choice(string.ascii_uppercase)}"
        f"{rng.choice(['-', ' ', ''])}{rng.randint(10, 9900)}"
    ),
    "combo": lambda rng: rng.choice(["-", " ", "/"]).join(
        str(rng.randint(1, 99)) for _ in range(rng.choice([3, 3, 4]))
    ),
    "pin": lambda rng: (
        "".join(rng.choices(string.digits, k=rng.choice([4, 4, 4, 5, 6])))
        + rng.choice(["", "", "", "#", "*"])
    ),
    "pw": _password,
    "ssid": lambda rng: (
        f"{rng.choice(WORDS).title()}{rng.choice(['-', '_', ''])}"
        f"{rng.choice(['Net', 'Guest', '5G', 'Home', 'LAN', '2'])}"
    ),
    "num": _joined(2, 480, "{}"),
    "num2": _joined(18, 90, "{}"),
    "small": _joined(2, 14, "{}"),
    "big": lambda rng: _sum(rng, rng.choice([4, 5, 6])),
    "big2": lambda rng: _sum(rng, 4),
    "decimal": lambda rng: f"{rng.randint(3, 60)}.{rng.randint(1, 99):02}",
    "date": _date,
    "date_de": _day_in("_de"),
    "date_fr": _day_in("_fr"),
    "date_es": _day_in("_es"),
    "date_pt": _day_in("_pt"),
    "day": lambda rng: rng.choice(DAYS),
    "month": lambda rng: rng.choice(MONTHS[""]),
    "year": _joined(1961, 2027, "{}"),
    "time": _time,
    "clock": lambda rng: (
        f"{rng.choice(['', '1:', '3:', '2:'])}{rng.randint(10, 59)}:{rng.randint(0, 59):02}"
    ),
    "money": _money,
    "phone": _phone,
    "ext": _joined(100, 7999, "{}"),
    "room": lambda rng: rng.choice(["{}", "B{}", "1.{}", "{}a", "E-{}"]).format(
        rng.randint(2, 420)
    ),
    "seat": lambda rng: f"{rng.randint(1, 48)}{rng.choice('ABCDEF')}",
    "klass": lambda rng: f"{rng.randint(1, 12)}{rng.choice('abcd')}",
    "flight": lambda rng: (
        f"{rng.choice(['BA', 'LH', 'KL', 'SK', 'ICE', 'IC', 'U2', 'AF', 'RJ'])}"
        f"{rng.choice([' ', ''])}{rng.randint(40, 9800)}"
    ),
    "plate": lambda rng: rng.choice(
        [
            f"{_letters(rng, 2)}{rng.randint(10, 75)} {_letters(rng, 3)}",
            f"{rng.choice(['HH', 'M', 'KI', 'B'])}-{_letters(rng, 2)} {rng.randint(10, 9999)}",
        ]
    ),
    "shoe": lambda rng: rng.choice(["{}", "{}.5", "{} wide"]).format(rng.randint(35, 48)),
    "shirt": lambda rng: rng.choice(["M", "L", "XL", "40", "42", "39"]),
    "trousers": lambda rng: f"{rng.randint(28, 40)}/{rng.randint(30, 36)}",
    "dose": lambda rng: rng.choice(["{} mg", "{}mg"]).format(rng.choice([5, 10, 20, 40, 75, 500])),
    "kg": lambda rng: rng.choice(["{} kg", "{}.4 kg", "{}kg", "{}.7 kilos"]).format(
        rng.randint(3, 95)
    ),
    "grams": lambda rng: rng.choice(["{} g", "{} grams"]).format(rng.randint(2500, 4300)),
    "gram": lambda rng: rng.choice(["{} g", "{}g", "{} grams"]).format(rng.randint(3, 90) * 10),
    "min": lambda rng: rng.choice(["{} minutes", "{} min", "{} hours"]).format(rng.randint(2, 90)),
    "deg": lambda rng: rng.choice(["{} degrees", "{} C", "{}°"]).format(rng.randint(14, 24) * 10),
    "cm": lambda rng: rng.choice(["{} cm", "{}cm", "{}.5 cm"]).format(rng.randint(20, 260)),
    "metres": lambda rng: f"{_sum(rng, 4)} m",
    "km": lambda rng: f"{_sum(rng, 5)} km",
    "bar": lambda rng: f"{rng.randint(2, 3)}.{rng.randint(0, 9)} bar",
    "tyre": lambda rng: f"{rng.randint(15, 24)}5/{rng.choice([45, 55, 65])} R{rng.randint(14, 19)}",
    "chip": lambda rng: "".join(rng.choices(string.digits, k=15)),
    "iban": lambda rng: " ".join(
        ["".join(rng.choices(string.digits, k=4)) for _ in range(rng.choice([2, 3, 4]))]
    ),
    "ip": lambda rng: ".".join(str(rng.randint(1, 254)) for _ in range(4)),
    "version": lambda rng: f"{rng.randint(1, 24)}.{rng.randint(0, 12)}.{rng.randint(0, 30)}",
    "errcode": lambda rng: f"{rng.choice(['E', 'F', 'ERR ', 'A'])}{rng.randint(1, 99):02}",
}


def value(slot: str, rng: random.Random) -> str:
    """A value for a slot; the digit that tells `town2` from `town` has no meaning here."""
    for name in (slot, slot.rstrip("0123456789")):
        if name in DRAWN:
            return DRAWN[name](rng)
        if name in LISTS:
            return rng.choice(LISTS[name])
    raise KeyError(slot)
