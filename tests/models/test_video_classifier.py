import torch

from timeloom.models.video_classifier import VideoClassifier

CLASSES = {"digit": ("0", "1", "2"), "motion": ("left", "right")}


def make() -> VideoClassifier:
    torch.manual_seed(0)
    return VideoClassifier(CLASSES, width=8, dimension=12, embedding=5, text_width=6).eval()


def test_a_row_for_every_clip_whatever_its_size_and_length() -> None:
    network = make()
    for frames, height, width in ((4, 32, 32), (1, 64, 64), (7, 40, 72)):
        reading = network(torch.randn(3, frames, 3, height, width))
        assert reading.features.shape == (3, 12)
        assert {name: logits.shape for name, logits in reading.logits.items()} == {"digit": (3, 3), "motion": (3, 2)}
        torch.testing.assert_close(reading.embedding.norm(dim=1), torch.ones(3))


def test_a_clip_is_read_alone_as_among_others() -> None:
    network, videos = make(), torch.randn(3, 4, 3, 32, 32)
    whole = network(videos).features
    torch.testing.assert_close(whole, torch.cat([network(one[None]).features for one in videos]))


def test_the_order_of_frames_matters_and_their_number_alone_does_not() -> None:
    network, videos = make(), torch.randn(1, 4, 3, 32, 32)
    assert not torch.allclose(network(videos).features, network(videos.flip(1)).features, atol=1e-4)
    image = torch.randn(1, 1, 3, 32, 32)
    with torch.no_grad():
        for stage in network.stages:
            stage.time.weight.zero_()  # then nothing but pooling knows of frames
    torch.testing.assert_close(network(image).features, network(image.expand(-1, 4, -1, -1, -1)).features)


def test_sentences_get_a_place_by_the_mean_of_their_tokens() -> None:
    network, text = make(), torch.randn(2, 9, 6)
    there = network.embed_text(text)
    torch.testing.assert_close(there.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(there, network.embed_text(text.flip(1)))
