"""English sentences about digits: several words for each thing, several shapes of sentence."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

DIGIT_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

COLOUR_WORDS: Mapping[str, tuple[str, ...]] = {
    "red": ("red", "red", "scarlet", "crimson"),
    "orange": ("orange", "orange", "tangerine", "amber"),
    "yellow": ("yellow", "yellow", "lemon", "golden"),
    "green": ("green", "green", "emerald", "grass green"),
    "cyan": ("cyan", "cyan", "turquoise", "aqua"),
    "blue": ("blue", "blue", "navy blue", "royal blue"),
    "purple": ("purple", "purple", "violet", "plum"),
    "pink": ("pink", "pink", "rose", "bubblegum pink"),
}

BACKGROUND_WORDS: Mapping[str, tuple[str, ...]] = {
    "black": ("on a black background", "on black", "against a dark background", "in the dark"),
    "white": ("on a white background", "on white", "against a bright background", "on white paper"),
    "gray": ("on a gray background", "on gray", "against a grey wall", "in front of plain grey"),
    "gradient": ("on a gradient", "on a gradient background", "against a fading background", "over a smooth gradient"),
    "stripes": ("on stripes", "on a striped background", "against a striped wall", "over grey stripes"),
    "checkers": ("on a checkerboard", "on a checkered background", "over a chessboard", "against grey checks"),
}

_TRAVEL = (("moves", "moving"), ("slides", "sliding"), ("drifts", "drifting"), ("travels", "travelling"))
_WAYS: Mapping[str, tuple[str, ...]] = {
    "left": ("left", "to the left", "leftwards"),
    "right": ("right", "to the right", "rightwards"),
    "up": ("up", "upwards", "to the top"),
    "down": ("down", "downwards", "to the bottom"),
    "up left": ("up and left", "diagonally up to the left", "towards the upper left"),
    "up right": ("up and right", "diagonally up to the right", "towards the upper right"),
    "down left": ("down and left", "diagonally down to the left", "towards the lower left"),
    "down right": ("down and right", "diagonally down to the right", "towards the lower right"),
}
_PLACE: Mapping[str, tuple[tuple[str, str], ...]] = {
    "bounce": (("bounces", "bouncing"), ("bounces up and down", "bouncing up and down"), ("hops", "hopping")),
    "grow": (("grows", "growing"), ("gets bigger", "getting bigger"), ("becomes larger", "becoming larger")),
    "shrink": (("shrinks", "shrinking"), ("gets smaller", "getting smaller"), ("becomes tiny", "becoming tiny")),
    "spin": (("spins", "spinning"), ("rotates", "rotating"), ("turns around", "turning around")),
    "still": (("stays still", "staying still"), ("stands still", "standing still"), ("does not move", "not moving")),
}
MOTION_WORDS: Mapping[str, tuple[tuple[str, str], ...]] = {
    **{
        motion: tuple((f"{verb} {way}", f"{gerund} {way}") for verb, gerund in _TRAVEL for way in ways)
        for motion, ways in _WAYS.items()
    },
    **_PLACE,
}
"""For each motion its (finite, gerund) phrases: "moves left", "moving left"."""


def describe(digit: int, colour: str, background: str, motion: str, rng: np.random.Generator, complete: bool) -> str:
    """A sentence that says what a clip shows.

    Args:
        digit: 0 … 9; the other attributes are keys of this module's tables.
        rng: chooses words and the shape of the sentence.
        complete: name all four attributes; else the background (15 %) or the motion (10 %) may be left out.
    """
    left_out = 1.0 if complete else rng.random()
    background_phrase = "" if left_out < 0.15 else _choose(BACKGROUND_WORDS[background], rng)
    finite, gerund = ("", "") if 0.15 <= left_out < 0.25 else _choose(MOTION_WORDS[motion], rng)
    number = _choose((DIGIT_WORDS[digit], DIGIT_WORDS[digit], str(digit)), rng)
    number = _choose(("{}", "{}", "number {}", "digit {}", "handwritten {}"), rng).format(number)
    thing = f"{_choose(COLOUR_WORDS[colour], rng)} {number}"
    shape = rng.integers(6)
    if not finite:
        words = _choose(("{}", "an image of {}", "there is {}"), rng).format(_article(thing)), background_phrase
    elif shape == 0:
        words = f"a video of {_article(thing)} {gerund}", background_phrase
    elif shape == 1:
        words = f"{_article(thing)} {gerund}", background_phrase
    elif shape == 2:
        words = f"{_article(thing)} that {finite}", background_phrase
    elif shape == 3 and background_phrase:
        words = background_phrase, f"{_article(thing)} {finite}"
    else:
        words = f"{_article(thing)} {finite}", background_phrase
    return " ".join(word for word in words if word)


def _article(thing: str) -> str:
    return f"{'an' if thing[0] in 'aeo' else 'a'} {thing}"


def _choose(options, rng: np.random.Generator):  # type: ignore[no-untyped-def]
    return options[int(rng.integers(len(options)))]
