"""Features are computed once a file's content, and what cannot be computed is counted."""

import errno
import os

import numpy as np
import pytest
import torch

from timeloom.errors import TimeloomError
from timeloom.evaluate.feature_cache import FeatureCache
from timeloom.tensor_cache import DamagedFile, TensorCache


class Network:
    """The mean of the frames; remembers the size of each batch."""

    def __init__(self):
        self.batches = []

    def __call__(self, clips):
        self.batches.append(len(clips))
        return torch.from_numpy(clips).float().mean(dim=(1, 2, 3))


def read(path):
    try:
        return np.load(path)
    except ValueError as error:
        raise TimeloomError(f"{path}: is no video.") from error


@pytest.fixture
def videos(tmp_path):
    """Ten small "videos"; the last three have another size."""
    rng = np.random.default_rng(0)
    found = {}
    for number in range(10):
        path = tmp_path / f"{number}.npy"
        np.save(path, rng.integers(0, 256, (3, 4, 4 if number < 7 else 6, 3), np.uint8))
        found[path.name] = path
    return found


@pytest.fixture
def cache(tmp_path):
    return FeatureCache("network", "features", "16 frames", tmp_path / "kept")


def expected(videos):
    return np.stack([np.load(path).astype(np.float64).mean(axis=(0, 1, 2)) for path in videos.values()])


def all_of(features):
    return features.take(np.arange(len(features)))


@pytest.mark.parametrize(("batch_size", "batches"), [(1, [1] * 10), (4, [4, 3, 3]), (100, [7, 3])])
def test_the_batch_is_nothing_to_the_features(cache, videos, batch_size, batches):
    network = Network()
    counted = []
    assert cache.fill(videos, read, network, batch_size, done=counted.append) == {}
    assert network.batches == batches and sum(counted) == 10
    features = cache.open(videos)
    assert features.keys == list(videos) and not features.missing
    np.testing.assert_allclose(all_of(features), expected(videos), rtol=1e-6)


def test_what_is_there_is_not_computed_again(cache, videos, tmp_path):
    cache.fill(videos, read, Network())
    network = Network()
    moved = {}
    for name, path in videos.items():
        moved[f"moved/{name}"] = path.rename(tmp_path / f"moved-{name}")
    again = FeatureCache("network", "features", "16 frames", tmp_path / "kept")
    assert again.fill(moved, read, network) == {} and network.batches == []
    assert again.open(moved).keys == list(moved)
    np.save(moved["moved/4.npy"], np.zeros((3, 4, 4, 3), np.uint8))
    again.fill(moved, read, network)
    assert network.batches == [1]
    np.testing.assert_allclose(all_of(again.open(moved))[4], 0)


def test_another_network_or_other_frames_are_computed_anew(cache, videos, tmp_path):
    cache.fill(videos, read, Network())
    for other in (
        ("network 2", "features", "16 frames"),
        ("network", "logits", "16 frames"),
        ("network", "features", "32 frames"),
    ):
        features = FeatureCache(*other, tmp_path / "kept").open(videos)
        assert len(features) == 0 and len(features.missing) == 10


def test_processes_share_the_videos(cache, videos):
    first, second = Network(), Network()
    cache.fill(videos, read, first, 2, rank=0, world=2)
    assert len(cache.open(videos)) == 5
    cache.fill(videos, read, second, 2, rank=1, world=2)
    assert sum(first.batches) == sum(second.batches) == 5
    np.testing.assert_allclose(all_of(cache.open(videos)), expected(videos), rtol=1e-6)


def test_broken_videos_are_missing_with_a_reason(cache, videos):
    videos["1.npy"].write_bytes(b"not a video")
    videos["2.npy"].unlink()
    np.save(videos["5.npy"], np.full((3, 4, 4, 3), 255, np.uint8))

    def network(clips):
        features = torch.from_numpy(clips).float().mean(dim=(1, 2, 3))
        features[features == 255] = torch.nan
        return features

    broken = cache.fill(videos, read, network)
    assert sorted(broken) == ["1.npy", "2.npy", "5.npy"]
    assert "is no video" in broken["1.npy"] and "No such file" in broken["2.npy"]
    assert broken["5.npy"] == "3 of its 3 features are not finite."
    features = cache.open(videos, broken)
    assert len(features) == 7 and features.missing == broken
    assert cache.open(videos).missing["5.npy"] == "its features were not computed."


def test_a_damaged_file_is_found_and_made_again(cache, videos, capsys):
    cache.fill(videos, read, Network())
    kept = cache.path(videos["3.npy"])
    kept.write_bytes(kept.read_bytes()[:-1])
    with pytest.raises(DamagedFile, match=kept.name):
        all_of(cache.open(videos))
    network = Network()
    cache.fill(videos, read, network)
    assert network.batches == [1] and "is damaged. It is made again." in capsys.readouterr().err
    np.testing.assert_allclose(all_of(cache.open(videos)), expected(videos), rtol=1e-6)


def test_a_file_that_goes_while_it_is_needed(cache, videos):
    cache.fill(videos, read, Network())
    features = cache.open(videos)
    cache.path(videos["3.npy"]).unlink()
    with pytest.raises(TimeloomError, match="is gone; compute the features again"):
        all_of(features)


def test_a_full_disk_is_said(cache, videos, monkeypatch):
    def full(path, value):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(TensorCache, "put", staticmethod(full))
    with pytest.raises(TimeloomError, match="No space left on device; features cannot be kept"):
        cache.fill(videos, read, Network())


def test_a_network_that_loses_a_video_is_refused(cache, videos):
    with pytest.raises(TimeloomError, match=r"gave features \(6, 2\) for 7 videos"):
        cache.fill(videos, read, lambda clips: torch.zeros(len(clips) - 1, 2))


def test_rows_of_frames_belong_to_their_video(cache, videos):
    cache.fill(videos, read, lambda clips: clips.mean(axis=(2, 3)).reshape(-1, 3), batch_size=4)
    frames = all_of(cache.open(videos))
    assert frames.shape == (10, 3, 3)
    np.testing.assert_allclose(frames.mean(axis=1), expected(videos), rtol=1e-6)


def test_a_video_that_the_network_refuses_is_missing_and_its_batch_is_not(cache, videos):
    black = np.zeros((3, 4, 4, 3), np.uint8)
    np.save(videos["5.npy"], black)

    def network(clips):
        if (clips == 0).all(axis=(1, 2, 3, 4)).any():
            raise TimeloomError("The network sees black.")
        return clips.mean(axis=(1, 2, 3))

    assert cache.fill(videos, read, network) == {"5.npy": "The network sees black."}
    assert len(cache.open(videos)) == 9


def test_features_of_several_shapes_name_the_file(cache, videos):
    cache.fill(videos, read, lambda clips: np.zeros((len(clips), clips.shape[3])))
    with pytest.raises(TimeloomError, match=r"features of shape \(6,\) beside others of \(4,\)"):
        all_of(cache.open(videos))


def test_by_default_it_lies_in_the_cache_of_timeloom(tmp_path, monkeypatch, videos):
    monkeypatch.setenv("TIMELOOM_CACHE", str(tmp_path / "cache"))
    assert tmp_path / "cache" / "features" in FeatureCache("a", "b", "c").path(videos["0.npy"]).parents
