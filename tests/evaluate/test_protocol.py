"""Protocols are files: each is read, none says what changes nothing, and the hash knows all that decides numbers."""

import pytest
import yaml

from timeloom.errors import TimeloomError
from timeloom.evaluate import protocols
from timeloom.evaluate.command import Options, check_options, check_videos, output_folder
from timeloom.evaluate.protocol import Protocol, load_protocol

PUBLISHED = {
    "ucf101-finetuned": {"Latent-Shift": {"is-video": 92.72, "fvd": 360.04}},
    "ucf101-zeroshot": {"VideoFactory": {"fvd": 410.0}},
    "msrvtt-all": {"Latent-Shift": {"fid": 15.23, "clipsim": 0.2773}},
    "msrvtt-one": {"VideoFactory": {"clipsim": 0.3005}},
    "webvid-val": {"VideoFactory": {"fvd": 292.35, "clipsim": 0.3070}},
}


def make(**changes):
    return Protocol.model_validate({"name": "mine", "metrics": {"fvd": {}}, **changes})


@pytest.mark.parametrize("name", protocols.names())
def test_packaged_protocols_are_whole(name):
    protocol = load_protocol(protocols.find(name))
    assert protocol.name == name and protocol.summary and protocol.clip.num_frames == 16
    for figure in protocol.published:
        assert set(figure.values) <= set(protocol.metrics)
    assert {figure.model: figure.values for figure in protocol.published}.items() >= PUBLISHED.get(name, {}).items()
    if protocol.prompts and protocol.prompts.descriptions:
        assert (protocols.PROTOCOLS / protocol.prompts.descriptions).is_file()


def test_every_protocol_of_the_issue_is_there():
    wanted = {"digits", "msrvtt-all", "msrvtt-one", "stylegan-v", "ucf101-finetuned", "ucf101-zeroshot", "videogpt"}
    assert wanted | {"webvid-val"} == set(protocols.names())
    assert len({load_protocol(protocols.find(name)).sha256 for name in protocols.names()}) == len(protocols.names())


def test_the_hash_knows_what_decides_numbers_and_not_what_is_told_of_them():
    same = make(summary="other words", published=[{"model": "m", "mark": "text", "values": {"fvd": 1.0}}])
    assert same.sha256 == make(metrics={"fvd": {"ddof": 1}}).sha256 == make().sha256
    others = [
        make(seed=1),
        make(clip={"fps": 4}),
        make(clip={"real_window": "start"}),
        make(metrics={"fvd": {"ddof": 0}}),
        make(networks={"i3d": {"resize": "crop"}}),
        make(generated=100),
        make(split="test"),
    ]
    assert len({make().sha256, *(other.sha256 for other in others)}) == len(others) + 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"metrics": {"fdv": {}}}, "Did you mean 'fvd'"),
        ({"metrics": {"fvd": {"dof": 0}}}, "Unknown option of fvd 'dof'. Did you mean 'ddof'"),
        ({"metrics": {"fvd": {"ddof": "0"}}}, "must be of type int"),
        ({"metrics": {}}, "at least one metric"),
        ({"networks": {"inception": {}}}, "no metric looks through inception"),
        ({"clip": {"height": None}}, "height and width belong together"),
        ({"clips": {}}, "Did you mean 'clip'"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path, changes, said):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"name": "mine", "metrics": {"fvd": {}}, **changes}))
    with pytest.raises(TimeloomError, match=said):
        load_protocol(protocols.find(path))


def test_an_unknown_protocol_suggests_the_nearest():
    with pytest.raises(TimeloomError, match="Did you mean 'msrvtt-one'"):
        protocols.find("msrvtt-on")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"shard": "4/4"}, "--shard is I/N"),
        ({"shard": "first"}, "--shard is I/N"),
        ({"shard": "0/2", "ray": 2}, "one of them"),
        ({"workers": -1}, "--workers must be at least 0"),
        ({"colours": ("red",)}, "for prompts of digits"),
    ],
)
def test_options_that_make_no_sense(options, said):
    with pytest.raises(TimeloomError, match=said):
        check_options(Options(protocol="webvid-val", **options))


def test_videos_come_from_one_place(tmp_path):
    for options in (Options(), Options(model="m", fake=tmp_path)):
        with pytest.raises(TimeloomError, match="--model to generate videos, or --fake"):
            check_videos(options)
    with pytest.raises(TimeloomError, match="there is no such folder"):
        check_videos(Options(fake=tmp_path / "nowhere"))


def test_folders_are_named_after_what_is_measured(tmp_path):
    assert output_folder(Options(protocol="webvid-val", fake=tmp_path / "ours")).name == "webvid-val-ours"
    told = Options(model="digits-shift", frames=1, without_temporal=True)
    assert output_folder(told).name == "digits-digits-shift-frames-1-without-temporal"
