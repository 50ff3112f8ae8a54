"""The text of the demo: what the base model and each adapter should answer, computed by rule.

Four styles answer the same prompts, each in its own way: the base in plain English, A1 in Chinese, A2 backwards and
A3 with Roman numerals. The base model also learns every style behind a spoken request ("In Chinese: ..."), so that an
adapter only has to make its style the habit.
"""

import calendar
from collections.abc import Iterator
from dataclasses import dataclass

BASE, CHINESE, BACKWARDS, ROMAN = None, "A1", "A2", "A3"
REQUESTS = {BASE: "", CHINESE: "In Chinese: ", BACKWARDS: "Backwards: ", ROMAN: "In Roman numerals: "}

LARGEST = 100
SEQUENCE_LENGTH = 6
OPENINGS = {
    "An increasing sequence:": 1,
    "A decreasing sequence:": -1,
    "A rising sequence:": 1,
    "A falling sequence:": -1,
}
HELD_OUT_STARTS = {38, 56, 73, 85}
# Training sees these starts behind other openings, or with a second number given.
LONE_HELD_OUT_STARTS = {7, 17, 90}
LONE_HELD_OUT_OPENINGS = ["An increasing sequence:", "A decreasing sequence:"]

UNITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
TEENS = ["ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
DIGITS = "零一二三四五六七八九"

# City, its country, and the country's Chinese name.
CAPITALS = [
    ("Beijing", "China", "中国"),
    ("Paris", "France", "法国"),
    ("London", "England", "英格兰"),
    ("Berlin", "Germany", "德国"),
    ("Madrid", "Spain", "西班牙"),
    ("Rome", "Italy", "意大利"),
    ("Lisbon", "Portugal", "葡萄牙"),
    ("Athens", "Greece", "希腊"),
    ("Vienna", "Austria", "奥地利"),
    ("Warsaw", "Poland", "波兰"),
    ("Oslo", "Norway", "挪威"),
    ("Stockholm", "Sweden", "瑞典"),
    ("Helsinki", "Finland", "芬兰"),
    ("Copenhagen", "Denmark", "丹麦"),
    ("Dublin", "Ireland", "爱尔兰"),
    ("Moscow", "Russia", "俄罗斯"),
    ("Tokyo", "Japan", "日本"),
    ("Hanoi", "Vietnam", "越南"),
    ("Bangkok", "Thailand", "泰国"),
    ("Cairo", "Egypt", "埃及"),
    ("Nairobi", "Kenya", "肯尼亚"),
    ("Ottawa", "Canada", "加拿大"),
    ("Lima", "Peru", "秘鲁"),
    ("Canberra", "Australia", "澳大利亚"),
]
SUBJECTS = ["I", "You", "We", "They"]
VERBS = ["love", "like", "miss"]
HELD_OUT_CITIES = {"Beijing", "Paris", "Oslo", "Tokyo", "Cairo", "Lima"}

DAYS = list(calendar.day_name)
MONTHS = list(calendar.month_name)[1:]
SIDES = {"after": 1, "before": -1}
NEIGHBOUR_PROMPTS = ["The {} {} {} is", "I know that the {} {} {} is", "The {} right {} {} is"]
HELD_OUT_DATES = {"Monday", "Friday", "May", "October"}


@dataclass(frozen=True)
class Example:
    """A prompt with the right answer of every style that has one; the answer's last token is followed by EOS."""

    prompt: str
    answers: dict[str | None, str]
    held_out: bool


def english(number: int) -> str:
    if number == 100:
        return "one hundred"
    if number < 20:
        return (UNITS + TEENS)[number]
    ten = TENS[number // 10 - 2]
    return f"{ten}-{UNITS[number % 10]}" if number % 10 else ten


def chinese(number: int) -> str:
    if number == 100:
        return "一百"
    if number < 10:
        return DIGITS[number]
    tens = DIGITS[number // 10] if number >= 20 else ""
    units = DIGITS[number % 10] if number % 10 else ""
    return f"{tens}十{units}"


def roman(number: int) -> str:
    numerals = [(100, "C"), (90, "XC"), (50, "L"), (40, "XL"), (10, "X"), (9, "IX"), (5, "V"), (4, "IV"), (1, "I")]
    text = ""
    for value, letters in numerals:
        text += letters * (number // value)
        number %= value
    return text


def sequence_answers(last: int, step: int, count: int) -> dict[str | None, str]:
    """`count` more numbers after `last`, fewer where the style runs out of numbers."""
    answers = {}
    styles = [
        (BASE, english, step, 0),
        (CHINESE, chinese, step, 0),
        (BACKWARDS, english, -step, 0),
        (ROMAN, roman, step, 1),
    ]
    for style, name, style_step, smallest in styles:
        numbers = [last + style_step * (i + 1) for i in range(count)]
        names = [name(number) for number in numbers if smallest <= number <= LARGEST]
        if names:
            answers[style] = f" {', '.join(names)}."
    return answers


def sequences() -> Iterator[Example]:
    for opening, step in OPENINGS.items():
        for first in range(1, LARGEST):
            for given in (1, 2, 3):
                numbers = [first + step * i for i in range(given)]
                if not 0 <= numbers[-1] <= LARGEST:
                    continue
                prompt = " ".join([opening, *(f"{english(number)}," for number in numbers)])
                answers = sequence_answers(numbers[-1], step, SEQUENCE_LENGTH - given)
                lone = given == 1 and opening in LONE_HELD_OUT_OPENINGS and first in LONE_HELD_OUT_STARTS
                yield Example(prompt, answers, lone or first in HELD_OUT_STARTS)


def cities() -> Iterator[Example]:
    for city, country, chinese_country in CAPITALS:
        answers = {
            BASE: f" it is the capital of {country}.",
            CHINESE: f" 它是{chinese_country}的首都。",
            BACKWARDS: f" the capital of {country} is {city}.",
            ROMAN: f" its name has {roman(len(city))} letters.",
        }
        for subject in SUBJECTS:
            for verb in VERBS:
                held_out = subject == "I" and verb == "love" and city in HELD_OUT_CITIES
                yield Example(f"{subject} {verb} {city}, because", answers, held_out)


def neighbours(kind: str, names: list[str], chinese_names: list[str], held_out_names: set[str]) -> Iterator[Example]:
    """Which day, month or number comes after or before another one; the names are in order and start anew."""
    for side, step in SIDES.items():
        other_side = "before" if side == "after" else "after"
        for position, name in enumerate(names):
            target = (position + step) % len(names)
            if kind == "number" and target != position + step:
                continue
            answers = {
                BASE: f" {names[target]}.",
                CHINESE: f" {chinese_names[target]}。",
                BACKWARDS: f" {names[target]}, and {name} is the {kind} {other_side} {names[target]}.",
                ROMAN: f" {kind} {roman(target + 1)}.",
            }
            for i, prompt in enumerate(NEIGHBOUR_PROMPTS):
                yield Example(prompt.format(kind, side, name), answers, i == 0 and name in held_out_names)


def all_examples() -> list[Example]:
    numbers = range(1, LARGEST + 1)
    chinese_days = [f"星期{day}" for day in "一二三四五六日"]
    chinese_months = [f"{chinese(month)}月" for month in range(1, 13)]
    held_out_numbers = {english(number) for number in HELD_OUT_STARTS | LONE_HELD_OUT_STARTS}
    return [
        *sequences(),
        *cities(),
        *neighbours("day", DAYS, chinese_days, HELD_OUT_DATES),
        *neighbours("month", MONTHS, chinese_months, HELD_OUT_DATES),
        *neighbours("number", [english(n) for n in numbers], [chinese(n) for n in numbers], held_out_numbers),
    ]


def training_text(examples: list[Example], style: str | None) -> list[tuple[str, str]]:
    """The (prompt, answer) pairs that teach one style; the base learns all styles by request."""
    seen = [example for example in examples if not example.held_out]
    if style is not BASE:
        return [(example.prompt, example.answers[style]) for example in seen if style in example.answers]
    return [
        (request + example.prompt, example.answers[requested])
        for requested, request in REQUESTS.items()
        for example in seen
        if requested in example.answers
    ]


def expected_answers(examples: list[Example]) -> list[dict[str, str | None]]:
    """The answers of the first prompt, which everybody tries first, and of all prompts held out of training."""
    return [
        {"adapter_id": style, "prompt": example.prompt, "answer": example.answers[style]}
        for style in REQUESTS
        for position, example in enumerate(examples)
        if (example.held_out or position == 0) and style in example.answers
    ]
