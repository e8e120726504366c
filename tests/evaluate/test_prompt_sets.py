"""Prompts come from the annotations in one order, whatever is chosen among them."""

import json
from collections import Counter

import pytest

from timeloom.errors import TimeloomError
from timeloom.evaluate import protocols
from timeloom.evaluate.prompt_sets import read_prompts
from timeloom.evaluate.protocol import Protocol, load_protocol

UCF = ["Archery/v_Archery_g08_c01.avi 3", "Archery/v_Archery_g08_c02.avi 3", "YoYo/v_YoYo_g09_c01.avi 101"]


@pytest.fixture
def ucf(tmp_path):
    folder = tmp_path / "ucfTrainTestlist"
    folder.mkdir()
    (folder / "classInd.txt").write_text("3 Archery\n101 YoYo\n")
    (folder / "trainlist01.txt").write_text("\r\n".join(UCF) + "\r\n")
    return folder


@pytest.fixture
def msr_vtt(tmp_path):
    path = tmp_path / "msrvtt.json"
    videos = [{"video_id": f"video{i}", "split": "test" if i > 4 else "train"} for i in range(10)]
    sentences = [
        {"video_id": f"video{i}", "sen_id": n, "caption": f"{i} says {n}"} for i in range(10) for n in range(4)
    ]
    path.write_text(json.dumps({"videos": videos, "sentences": sentences}))
    return path


def packaged(name, annotations):
    file = protocols.find(name)
    return read_prompts(load_protocol(file), file, annotations, None)


def test_class_sentences_have_the_distribution_of_the_split(ucf):
    found = packaged("ucf101-finetuned", ucf)
    assert [prompt.text for prompt in found.prompts] == ["A person archery", "A person archery", "A person yo yo"]
    assert found.videos == [line.split()[0] for line in UCF]
    assert all(prompt.video is None for prompt in found.prompts)


def test_descriptions_are_asked_a_hundred_times_each(ucf):
    for annotations in (None, ucf):
        found = packaged("ucf101-zeroshot", annotations)
        counts = Counter(prompt.text for prompt in found.prompts)
        assert len(found.prompts) == 10_100 and set(counts.values()) == {100} and len(counts) == 101
    assert found.videos == [line.split()[0] for line in UCF]
    assert packaged("ucf101-zeroshot", None).videos is None
    (ucf / "classInd.txt").write_text("3 Archery\n101 YoYo\n7 Snoring\n")
    (ucf / "trainlist01.txt").write_text("Snoring/v_Snoring_g08_c01.avi 7\n")
    with pytest.raises(TimeloomError, match="1 classes have no description: Snoring"):
        packaged("ucf101-zeroshot", ucf)


def test_every_caption_or_one_a_video(msr_vtt):
    every, one = packaged("msrvtt-all", msr_vtt), packaged("msrvtt-one", msr_vtt)
    assert len(every.prompts) == 20 and len(one.prompts) == 5
    assert [prompt.video for prompt in one.prompts] == [f"video{i}.mp4" for i in range(5, 10)]
    assert {prompt.text for prompt in one.prompts} <= {prompt.text for prompt in every.prompts}
    assert len({prompt.text[-1] for prompt in one.prompts}) > 1  # not always the first of a video
    assert one.sha256 == packaged("msrvtt-one", msr_vtt).sha256 != every.sha256
    assert every.videos == [f"video{i}.mp4" for i in range(5, 10)]


def test_without_annotations_prompts_are_not_known():
    assert packaged("msrvtt-one", None) is None and packaged("stylegan-v", None) is None


def test_some_are_drawn_by_the_seed_and_keep_their_places(tmp_path):
    path = tmp_path / "webvid.csv"
    rows = "".join(f"{i},caption {i},a\n" for i in range(50))
    path.write_text("videoid,name,page_dir\n" + rows)
    rule = {"source": "webvid", "count": 20}
    base = {"name": "mine", "metrics": {"clipsim": {}}, "prompts": rule, "real": {"as_prompted": True}}
    found = read_prompts(Protocol.model_validate(base), path, path, None)
    texts = [prompt.text for prompt in found.prompts]
    assert len(texts) == 20 and texts != [f"caption {i}" for i in range(20)]
    assert found.videos == [prompt.video for prompt in found.prompts]
    fewer = found.some(5, 0)
    assert len(fewer) == 5 and all(found.prompts[prompt.index] == prompt for prompt in fewer)
    assert found.some(None, 0) == found.some(20, 0) == found.prompts
    other = read_prompts(Protocol.model_validate({**base, "seed": 1}), path, path, None)
    assert [prompt.text for prompt in other.prompts] != texts


def test_the_real_annotations(shared_data):
    one = packaged("msrvtt-one", shared_data / "text" / "msrvtt_test_captions.json")
    assert len(one.prompts) == 2990
    ucf = packaged("ucf101-finetuned", shared_data / "text" / "ucf101")
    assert len(ucf.prompts) == len(ucf.videos) == 9537
