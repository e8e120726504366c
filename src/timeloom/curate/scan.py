"""One pass over a video: its cuts, the central frame and the features of each scene, and its clips at training size.

scan(Path("film.mp4"), ScanOptions()).scenes
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import closing
from fractions import Fraction
from itertools import islice
from pathlib import Path

from av.video.frame import VideoFrame

from timeloom.curate.clip_encoder import ClipEncoder
from timeloom.curate.cut_finder import CutFinder, cut_finder
from timeloom.curate.difference import Comparer, Difference, Quick, comparison_size
from timeloom.curate.measure import Candidates, Greys, OverlayCounter, bar_share, bars, jpeg, sharpness
from timeloom.curate.options import ClipOptions, ScanOptions
from timeloom.curate.scene import Scan, Scene
from timeloom.data.container import ContainerMovie, TickedFrame
from timeloom.data.video import open_movie
from timeloom.errors import TimeloomError

__all__ = ["ClipOptions", "ScanOptions", "scan"]

COARSE = 64
"""Pixels of the longer side at which every frame is looked at."""
AT_ONCE = 16
"""Frames that are looked at together."""
HELD = 24
"""Frames of a scene that are held for its middle, ..."""
HELD_BYTES = 96 << 20
"""... in so much memory at most, but at least ..."""
HELD_LEAST = 8
LOOKED_AT = 4
"""Frames of a scene that bars are looked for in."""
STILL = 0.1
"""Mean difference of brightness, 0 to 255, below which a frame repeats the one before: less than a codec's noise."""
JUMP_S = 1.0
"""A clock that falls back so far began anew; a smaller step is one frame out of place."""
PQ, HLG = 16, 18  # FFmpeg's numbers of transfer curves

OnClip = Callable[[Scene, bytes], None]


def scan(path: Path, options: ScanOptions, on_clip: OnClip | None = None) -> Scan:
    """Decode `path` once and find its scenes.

    `on_clip` (with `options.clips`) is given each scene of the wanted duration together with an mp4 of exactly its
    frames, at training size and with the source's frame times, as soon as the scene ends. Damaged packets are passed
    over and counted.

    Raises: TimeloomError, naming the file, where it is missing, no video, cut short, or holds no frame that can be
    decoded; and for `pyscenedetect` without the extra.
    """
    movie = open_movie(path, options.threads, past_damage=True)
    with closing(movie):
        if not isinstance(movie, ContainerMovie):
            raise TimeloomError(f"{path}: is a picture or an animation, not a film.")
        return _Pass(movie, options, on_clip).run()


class _Pass:
    """The state of one scan."""

    def __init__(self, movie: ContainerMovie, options: ScanOptions, on_clip: OnClip | None) -> None:
        self.movie, self.options, self.on_clip = movie, options, on_clip
        self.finder: CutFinder = cut_finder(movie, options)
        self.size = comparison_size(*movie.stored, options.width)
        self.greys, self.overlay = Greys(self.size), OverlayCounter(self.size)
        self.clips = ClipEncoder(movie, options.clips) if options.clips and on_clip else None
        self.candidates: Candidates | None = None
        # Of each frame since the last cut that is known:
        self.pts, self.corrupt = array("q"), array("b")
        self.contents, self.motions, self.brightnesses = array("f"), array("f"), array("f")
        self.scenes: list[Scene] = []
        self.intervals = (1 << 62, 0)  # shortest and longest, in ticks
        self.num_frames = self.corrupt_frames = self.out_of_place = self.failed_before = 0
        self.high_dynamic_range = False

    def run(self) -> Scan:
        comparer = Comparer(Quick(comparison_size(*self.movie.stored, COARSE)), AT_ONCE)
        before: VideoFrame | None = None
        first = last = None
        frames = self._in_order()
        while block := list(islice(frames, AT_ONCE)):
            first = first or block[0]
            for shown, coarse in zip(block, comparer.compare([shown.picture for shown in block], before), strict=True):
                self._take(shown, before, coarse)
                before = shown.picture
            last = block[-1]
        assert first is not None and last is not None  # else the movie could not be opened
        self._end_scene(last.end_pts, last)
        return self._result(first, last.end_pts)

    def _in_order(self) -> Iterator[TickedFrame]:
        """The movie's frames, each later than the one before."""
        last: TickedFrame | None = None
        tick_s = self.movie.tick_s
        failed = 0
        for shown in self.movie.ticked_frames():
            if last is not None and shown.pts <= last.pts:
                if (last.pts - shown.pts) * tick_s > JUMP_S:
                    near_s = float(last.pts * tick_s)
                    raise TimeloomError(
                        f"{self.movie.path}: its clock starts anew near {near_s:.2f} s; write it anew with one clock."
                    )
                self.out_of_place += 1
                continue
            if last is not None and len(self.movie.failed) == failed:
                interval = shown.pts - last.pts
                self.intervals = min(self.intervals[0], interval), max(self.intervals[1], interval)
            failed = len(self.movie.failed)
            last = shown
            yield shown

    def _take(self, shown: TickedFrame, before: VideoFrame | None, coarse: Difference) -> None:
        picture = shown.picture
        if self.candidates is None:
            self.candidates = Candidates(_room(picture))
            self.high_dynamic_range = picture.color_trc in (PQ, HLG)
        cuts = self.finder.push(shown, before, coarse)
        self.num_frames += 1
        self.corrupt_frames += picture.is_corrupt
        self.pts.append(shown.pts)
        self.corrupt.append(picture.is_corrupt)
        self.contents.append(self.finder.content)
        self.motions.append(coarse.value)
        self.brightnesses.append(coarse.brightness)
        self.candidates.add(len(self.pts) - 1, shown.pts, picture)
        if self.clips:
            self.clips.take(shown)
        for cut in cuts:
            self._end_scene(cut, shown)
        if self.clips:
            self.clips.encode_before(self.finder.open_from())

    def _end_scene(self, end_pts: int, latest: TickedFrame) -> None:
        """The frames before `end_pts` are a scene."""
        assert self.candidates is not None
        count = bisect_left(self.pts, end_pts)
        if count == 0:
            return  # a cut at the first frame begins nothing new
        held = self.candidates.end(count, (len(self.pts) - 1, latest.pts, latest.picture))
        scene = self._scene(count, end_pts, held)
        self.scenes.append(scene)
        for values in (self.pts, self.corrupt, self.contents, self.motions, self.brightnesses):
            del values[:count]
        if self.clips and self.on_clip:
            content = self.clips.end(end_pts)
            if content is not None:
                self.on_clip(scene, content)

    def _scene(self, count: int, end_pts: int, held: list[tuple[int, int, VideoFrame]]) -> Scene:
        start_pts = self.pts[0]
        _, central_pts, central = min(held, key=lambda item: abs(2 * item[0] - (count - 1)))
        looked_at = [frame for _, _, frame in held[:: max(1, len(held) // LOOKED_AT)]]
        greys = [self.greys.draw(frame) for frame in looked_at]
        at_edges = bars(greys)
        self.overlay.add(self.greys.draw(central), at_edges)
        image = self.movie.draw(central, comparison_size(*self.movie.displayed, self.options.image_side))
        motions = self.motions[1:count]
        failed = sum(1 for pts in self.movie.failed if pts is not None and start_pts <= pts < end_pts)
        return Scene(
            start_pts=start_pts,
            end_pts=end_pts,
            num_frames=count,
            central_pts=central_pts,
            central_jpeg=jpeg(image, self.options.image_quality),
            cut_score=self.contents[0],
            motion=sum(motions) / max(1, len(motions)),
            brightness=sum(self.brightnesses[:count]) / count,
            sharpness=sharpness(image),
            letterbox_share=bar_share(at_edges, self.size),
            static_share=sum(motion < STILL for motion in motions) / count,
            corrupt_share=(sum(self.corrupt[:count]) + failed) / (count + failed),
        )

    def _result(self, first: TickedFrame, end_pts: int) -> Scan:
        movie = self.movie
        return Scan(
            codec=movie.codec,
            time_base=movie.tick_s,
            first_pts=first.pts,
            end_pts=end_pts,
            num_frames=self.num_frames,
            corrupt_frames=self.corrupt_frames + len(movie.failed),
            width=movie.displayed[1],
            height=movie.displayed[0],
            fps=float(1 / movie.interval_s),
            variable_rate=self.intervals[1] - self.intervals[0] > 1,
            rotation=90 * movie.quarter_turns,
            pixel_aspect=Fraction(movie.pixel_aspect),
            interlaced=movie.interlaced,
            high_dynamic_range=self.high_dynamic_range,
            static_overlay=self.overlay.score(),
            warnings=tuple(self._warnings()),
            scenes=tuple(self.scenes),
        )

    def _warnings(self) -> Iterator[str]:
        if self.movie.failed:
            yield f"{len(self.movie.failed)} packets could not be decoded"
        if self.corrupt_frames:
            yield f"{self.corrupt_frames} frames are damaged"
        if self.out_of_place:
            yield f"{self.out_of_place} frames whose time is not later than the one before were passed over"
        if self.movie.interlaced:
            yield "interlaced; its frames are made whole"
        if self.high_dynamic_range:
            yield "high dynamic range; its tones are taken as they are"


def _room(frame: VideoFrame) -> int:
    """Frames to hold of a scene."""
    size = sum(plane.buffer_size for plane in frame.planes)
    return max(HELD_LEAST, min(HELD, HELD_BYTES // max(1, size)))
