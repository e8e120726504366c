import math

import pytest
import torch

from timeloom.train.text_encoder import reading_loss

START, END = 0, 9


def test_words_read_back_perfectly_cost_nothing():
    tokens = torch.tensor([[START, 3, 3, 5, END, END], [START, 7, END, END, END, END]])
    shares = torch.full((2, 10), 1e-12)
    shares[0, 3], shares[0, 5], shares[1, 7] = 2 / 3, 1 / 3, 1.0
    assert reading_loss(shares.log(), tokens, [START, END]).item() == pytest.approx(0.0, abs=1e-6)


def test_an_even_guess_costs_what_the_words_tell():
    tokens = torch.tensor([[START, 3, 4, END]])
    assert reading_loss(torch.zeros(1, 10), tokens, [START, END]).item() == pytest.approx(math.log(10 / 2))


def test_an_empty_caption_costs_nothing():
    assert reading_loss(torch.randn(1, 10), torch.tensor([[START, END, END]]), [START, END]).item() == 0.0
