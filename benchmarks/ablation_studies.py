"""What each paper's ablations train: models that differ in one thing. `timeloom evaluate papers` compares them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Arm:
    """A model that is trained, once a seed; all arms of a study on the same clips."""

    name: str
    recipe: str = "digits/video_shift"
    changes: tuple[str, ...] = ()
    """To the recipe."""
    begins: str | None = None
    """The arm whose model it goes on from, as a second phase; the image model without it."""

    @property
    def slug(self) -> str:
        """Of its folder."""
        return self.name.replace(",", "").replace(" ", "-")


@dataclass(frozen=True)
class Study:
    """The ablations of one paper."""

    name: str
    """Of its part of the page, and of its folder of runs."""
    title: str
    arms: tuple[Arm, ...]

    def is_phase(self, arm: Arm) -> bool:
        """Whether others go on from it; then it is not compared."""
        return any(other.begins == arm.name for other in self.arms)


LATENT_SHIFT = Study(
    "ablations",
    "Trained alike: shift and attention from one image model",
    (Arm("shift"), Arm("attention", "digits/video_attention")),
)


def _swap(name: str, queries: str, begins: str | None = "first phase", **options: str) -> Arm:
    """An arm with the temporal mechanism `swap` as digits-swap has it, but for these options."""
    words = {"queries": queries, "window": "[8,8,8]", "heads": "2", "width": "0.375", **options}
    changes = ("model.temporal=swap", *(f"model.swap.{option}={value}" for option, value in words.items()))
    return Arm(name, changes=changes, begins=begins)


VIDEOFACTORY = Study(
    "ablations_videofactory",
    "Trained alike: Swap-CA and what it is made of, beside shift and attention",
    (
        _swap("first phase", "none", begins=None),
        _swap("first phase without skips", "none", begins=None, skips="false"),
        _swap("plain addition", "none"),
        _swap("spatial asks", "spatial"),
        _swap("temporal asks", "temporal"),
        _swap("swap", "spatial_first"),
        _swap("swap, global", "spatial_first", window="[0,0,0]"),
        _swap("swap without skips", "spatial_first", begins="first phase without skips", skips="false"),
        Arm("shift"),
        Arm("attention", "digits/video_attention"),
    ),
)

STUDIES = {"latent-shift": LATENT_SHIFT, "videofactory": VIDEOFACTORY}
