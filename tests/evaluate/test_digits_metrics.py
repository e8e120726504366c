import numpy as np
import pytest

from timeloom.data.clip import Window
from timeloom.data.digits import DigitsSource
from timeloom.errors import TimeloomError
from timeloom.evaluate.digits_metrics import LIKENESS, Looked, Looker, measure, resampled
from timeloom.evaluate.digits_protocol import for_images, make_prompts

COUNT = 40


@pytest.fixture(scope="module")
def looker():
    return Looker()


@pytest.fixture(scope="module")
def clips():
    """The clips that the first prompts were written about."""
    sources = [DigitsSource("test", 0, combinations=which, complete_captions=True) for which in ("seen", "unseen")]
    window = Window(16, 8, 64, 64)
    return np.stack([sources[index % 4 == 3][index].draw(window, 0.0) for index in range(COUNT)])


@pytest.fixture(scope="module")
def real(looker, clips):
    return looker.look(clips, make_prompts(COUNT))


def test_real_clips_are_nowhere_apart_from_themselves(real):
    found = measure(real, real)
    assert set(found) == {"digits-fvd", "digits-kvd", LIKENESS}
    assert found["digits-fvd"].value == pytest.approx(0, abs=1e-6)
    assert found[LIKENESS].value == pytest.approx(real.similarities().mean())
    assert found[LIKENESS].value > 0.5
    assert found["digits-fvd"].count == COUNT


def test_what_is_spoilt_lies_further_off(looker, clips, real):
    frozen = looker.look(clips[:, :1].repeat(16, axis=1), make_prompts(COUNT))
    noise = np.random.default_rng(0).integers(0, 256, clips.shape, dtype=np.uint8)
    lost = looker.look(noise, make_prompts(COUNT))
    distances = [measure(made, real)["digits-fvd"].value for made in (real, frozen, lost)]
    likenesses = [measure(made, real)[LIKENESS].value for made in (real, frozen, lost)]
    assert distances == sorted(distances) and distances[1] > 1
    assert likenesses == sorted(likenesses, reverse=True)


def test_parts_make_the_whole(looker, clips, real):
    prompts = make_prompts(COUNT)
    joined = Looked.joined([looker.look(clips[:15], prompts[:15]), looker.look(clips[15:], prompts[15:])])
    assert joined.names == real.names
    for mine, theirs in zip(joined.__dict__.values(), real.__dict__.values(), strict=True):
        if not isinstance(mine, tuple):
            np.testing.assert_allclose(mine, theirs, atol=1e-4)


def test_resamples_are_paired_by_the_prompts(looker, clips, real):
    again, fewer = resampled(real, real), resampled(looker.look(clips[::-1].copy(), make_prompts(COUNT)[::-1]), real)
    assert len(again) == 100 and again.std() > 0
    np.testing.assert_allclose(again, fewer, rtol=1e-3)


def test_images_have_distances_alone(looker, clips):
    prompts = for_images(make_prompts(COUNT))
    places = [prompt.index for prompt in prompts]
    first, last = (looker.look(clips[places, frame : frame + 1], prompts) for frame in (0, 15))
    assert set(measure(first, last)) == {"digits-fid", "digits-kid"}
    assert measure(first, first)["digits-fid"].value == pytest.approx(0, abs=1e-6)
    assert measure(first, last)["digits-fid"].value > 1


def test_one_clip_is_too_few(looker, clips, real):
    with pytest.raises(TimeloomError, match="at least 2 videos"):
        measure(looker.look(clips[:1], make_prompts(1)), real)
