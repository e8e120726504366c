"""What each paper's ablations compare: which models are trained, what is judged, and what the paper says of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

IMAGE_MODEL = "image model"


@dataclass(frozen=True)
class Arm:
    """A model that is trained, once a seed; all arms of a study on the same clips."""

    name: str
    recipe: str = "digits/video_shift"
    changes: tuple[str, ...] = ()
    """To the recipe."""
    begins: str | None = None
    """The arm whose model it goes on from, as a second phase; the image model without it."""


@dataclass(frozen=True)
class Case:
    """What is judged: the clips or images of a trained model, its mechanism in place or taken out."""

    model: str
    """An arm, or the image model."""
    kind: str = "videos"
    """"videos" or "images"."""
    without: bool = False

    @property
    def name(self) -> str:
        return f"{self.model}{' taken out' if self.without else ''}, {self.kind}"

    @property
    def slug(self) -> str:
        return self.name.replace(",", "").replace(" ", "-")


@dataclass(frozen=True)
class Comparison:
    """Two cases, the first of which the paper finds better."""

    better: str
    worse: str
    finding: str | None
    """The paper's, as the beginning of a sentence; None where it gives no direction."""


@dataclass(frozen=True)
class Section:
    """A table of the page."""

    title: str
    paper: str
    """What the paper says."""
    cases: tuple[str, ...]
    comparisons: tuple[Comparison, ...]
    faster: tuple[str, str] | None = None
    """Two arms, the first of which the paper finds cheaper: their sizes, times and losses stand below the table."""


@dataclass(frozen=True)
class Study:
    """The ablations of one paper."""

    title: str
    arms: tuple[Arm, ...]
    cases: tuple[Case, ...]
    sections: tuple[Section, ...]
    name: str
    """Of its files: NAME.json, pictures/NAME_videos.png, and its folder of runs."""
    page: str

    @property
    def timed(self) -> Iterator[str]:
        """Arms whose denoising step is timed."""
        return (arm for section in self.sections for arm in section.faster or ())

    @property
    def phases(self) -> int:
        """Of training, in its longest arm."""
        return 2 if any(arm.begins for arm in self.arms) else 1


LATENT_SHIFT = Study(
    "Results: the ablations of Latent-Shift, at laptop size",
    arms=(Arm("shift"), Arm("attention", "digits/video_attention")),
    cases=(
        *(Case("shift"), Case("attention"), Case("shift", without=True)),
        *(Case(IMAGE_MODEL, "images"), Case("shift", "images"), Case("attention", "images")),
        *(Case("shift", "images", without=True), Case("attention", "images", without=True)),
    ),
    sections=(
        Section(
            "Shift or attention",
            "The paper: Latent-Shift does better than attention over time (Latent-VDM) in most cases, with fewer "
            "parameters, faster.",
            ("shift, videos", "attention, videos"),
            (Comparison("shift, videos", "attention, videos", "The shift makes the better videos"),),
            faster=("shift", "attention"),
        ),
        Section(
            "Images from the video model",
            "The paper: after training for video, Latent-Shift still makes reasonable images; with attention, "
            "images collapse. Beside the image model it claims no direction, so that only the difference stands here.",
            ("image model, images", "shift, images", "attention, images"),
            (
                Comparison("shift, images", "image model, images", None),
                Comparison("shift, images", "attention, images", "The shift makes the better images"),
            ),
        ),
        Section(
            "Videos without the shift",
            "The paper: the shift has no weights, but generation cannot do without it.",
            ("shift, videos", "shift taken out, videos"),
            (Comparison("shift, videos", "shift taken out, videos", "Videos need the shift"),),
        ),
        Section(
            "Images without the mechanism",
            "The paper: the shift is needed for images too, since its zeros say that the neighbours are missing; "
            "taking attention out does not bring the images back.",
            ("shift, images", "shift taken out, images", "attention, images", "attention taken out, images"),
            (
                Comparison("shift, images", "shift taken out, images", "Images need the shift"),
                Comparison(
                    "shift, images", "attention taken out, images", "Attention taken out leaves the worse images"
                ),
            ),
        ),
    ),
    name="ablations",
    page="docs/results.md",
)


def _swap(name: str, queries: str, begins: str | None = "first phase", **options: str) -> Arm:
    """An arm with the temporal mechanism `swap` as digits-swap has it, but for these options."""
    words = {"queries": queries, "window": "[8,8,8]", "heads": "2", "width": "0.375", **options}
    changes = ("model.temporal=swap", *(f"model.swap.{option}={value}" for option, value in words.items()))
    return Arm(name, changes=changes, begins=begins)


VIDEOFACTORY = Study(
    "Results: the ablations of VideoFactory, at laptop size",
    arms=(
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
    cases=tuple(
        Case(name)
        for name in (
            *("plain addition", "spatial asks", "temporal asks", "swap", "swap, global", "swap without skips"),
            *("shift", "attention"),
        )
    ),
    sections=(
        Section(
            "Who asks",
            "The paper (Tab. 2): where the temporal features ask, clips fit their text better, since text enters the "
            "spatial features alone; where the spatial features ask, quality is much better; swapping the roles from "
            "block to block gives both.",
            ("plain addition, videos", "temporal asks, videos", "spatial asks, videos", "swap, videos"),
            (
                Comparison("temporal asks, videos", "plain addition, videos", "Temporal features that ask help"),
                Comparison("spatial asks, videos", "plain addition, videos", "Spatial features that ask help"),
                Comparison("swap, videos", "plain addition, videos", "Swap-CA is better than plain addition"),
                Comparison("swap, videos", "temporal asks, videos", "Swapping is better than temporal features asking"),
                Comparison("swap, videos", "spatial asks, videos", "Swapping is better than spatial features asking"),
            ),
            faster=("plain addition", "swap"),
        ),
        Section(
            "Windows or global",
            "The paper: 3D windows cost far less than global attention and lose nothing. That is no direction, so that "
            "only the difference stands here.",
            ("swap, videos", "swap, global, videos"),
            (Comparison("swap, videos", "swap, global, videos", None),),
            faster=("swap", "swap, global"),
        ),
        Section(
            "Temporal skip connections",
            "The paper: skip connections between temporal modules on both sides of a down- or up-sampling make for "
            "better integration over time.",
            ("swap, videos", "swap without skips, videos"),
            (Comparison("swap, videos", "swap without skips, videos", "Temporal skip connections help"),),
        ),
        Section(
            "Beside Latent-Shift and Latent-VDM",
            "All trained on as many clips; the papers do not compare these.",
            ("swap, videos", "shift, videos", "attention, videos"),
            (
                Comparison("swap, videos", "shift, videos", None),
                Comparison("swap, videos", "attention, videos", None),
            ),
            faster=("shift", "swap"),
        ),
    ),
    name="ablations_videofactory",
    page="docs/results_videofactory.md",
)

STUDIES = {"latent-shift": LATENT_SHIFT, "videofactory": VIDEOFACTORY}
