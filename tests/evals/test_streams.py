"""Pictures in and out of batches: branch 0, padding, how many, and what is not finite."""

import itertools

import jax
import numpy as np
import pytest

from evals import toys
from supcon_jax.evals.streams import Content, alike, column, fakes, first_branch, labelled, leading, quantise, reals, valid_rows


def test_quantise():
    x = np.zeros((3, 1, 1, 3), np.float32)
    x[0, 0, 0] = [-1, 0.999, 5]
    x[1, 0, 0, 2] = np.nan
    images, ok = quantise(x)
    assert images.dtype == np.uint8 and images[0, 0, 0].tolist() == [0, 255, 255] and ok.tolist() == [True, False, True]
    u8 = np.arange(256, dtype=np.uint8).repeat(3).reshape(256, 1, 1, 3)
    np.testing.assert_array_equal(quantise(u8 / 127.5 - 1)[0], u8)
    with pytest.raises(ValueError, match="floats"):
        quantise(u8)


def test_branch_and_padding():
    batch = toys.world(padding=5)[0]
    cut = first_branch(batch)
    assert cut["image"].shape == (37, 1, 8, 8, 3) and cut["valid"].shape == (37,)
    assert valid_rows(cut).sum() == 32 and valid_rows(toys.world()[0]).all()
    assert valid_rows({"valid": np.array([[1, 0], [0, 1]])}).tolist() == [True, False]
    np.testing.assert_array_equal(cut["label"][:, 0], batch["label"][:, 0])


@pytest.mark.parametrize("padding", [0, 5])
def test_reals_keep_the_valid_ones_up_to_the_limit(padding):
    batches = toys.world(padding=padding)
    assert column(reals(batches), "index").tolist() == list(range(96))
    assert column(reals(batches, 40), "index").tolist() == list(range(40))
    assert len(list(reals(batches, 64))) == 2
    assert column(reals(batches), "nothing") is None


def test_fakes_pass_again_with_new_noise_and_are_seeded():
    batches = toys.world(records=32, padding=3)
    parts = list(fakes(toys.generate, batches, 80, seed=0))
    assert [int(p.keep.sum()) for p in parts] == [32, 32, 16] and all(p.images.shape[0] == 35 for p in parts)
    assert (parts[0].images != parts[1].images).any()
    again = list(fakes(toys.generate, batches, 80, seed=0))
    assert all((a.images == b.images).all() for a, b in zip(parts, again, strict=True))
    other = next(fakes(toys.generate, batches, 80, seed=1))
    assert (other.images != parts[0].images).any()


def test_captions_that_end_are_told():
    with pytest.raises(ValueError, match="16 short of 48"):
        list(fakes(toys.generate, iter(toys.world(records=32)), 48, seed=0))
    empty = toys.world(records=32)[0] | {"valid": np.zeros(32)}
    with pytest.raises(ValueError, match="8 short of 8"):
        list(fakes(toys.generate, [empty], 8, seed=0))
    endless = itertools.cycle(toys.world())
    assert len(list(fakes(toys.generate, endless, 100, seed=0))) == 4


def test_bad_pictures_are_counted_and_left_out():
    def broken(batch, key):
        x = toys.generate(batch, key).copy()
        x[::8, 0, 0, 0] = np.nan
        return x

    part = next(fakes(broken, toys.world(), 32, seed=0))
    assert part.bad == 4 and part.keep.sum() == 28 and not part.keep[::8].any()
    with pytest.raises(ValueError, match="1 pictures for 32 captions"):
        next(fakes(lambda batch, key: np.zeros((1, 8, 8, 3)), toys.world(), 32, seed=0))


def hashed(parts):
    content = Content()
    for part in parts:
        content.add(part)
    return str(content)


def test_the_hash_is_of_pixels_in_order_and_of_nothing_else():
    one = hashed(reals(toys.world()))
    assert one == hashed(reals(toys.world(batch=8))) == hashed(reals(toys.world(padding=3)))
    back = [b | {"image": b["image"][::-1]} for b in toys.world()]
    wide = [b | {"image": b["image"].reshape(32, 2, 4, 16, 3)} for b in toys.world()]
    assert len({one, hashed(reals(back)), hashed(reals(wide)), hashed(reals(toys.world(), 95))}) == 4


def test_captions_are_alike_by_their_words_or_their_tokens():
    """A caption that is cut at random has other tokens each time; another spelling may have the same ones."""
    text = np.int32([[1, 2, 9], [1, 2, 8], [1, 2, 0], [3, 0, 0], [1, 2, 0]])[:, None]
    batch = {"text": text, "text_len": np.int32([3, 3, 2, 1, 2])[:, None], "index": np.zeros((5, 1)), "image": text}
    part = next(reals([batch | {"image": np.zeros((5, 1, 2, 2, 3), np.uint8)}]))
    cut, again, plain, other, spelt = alike([part]).tolist()
    assert plain == spelt and len({cut, again, plain, other}) == 4
    said = part._replace(batch=part.batch | {"caption": np.array(["a b c d", "a b c d", "a b", "e", "a, b!"])[:, None]})
    first, again, plain, other, spelt = alike([said]).tolist()
    assert first == again and plain == spelt and len({first, plain, other}) == 3


@pytest.mark.parametrize("rows", (1, 31, 32, 33, 96))
def test_leading_rows(rows):
    for padding in (0, 3):
        batches = leading(toys.world(padding=padding), rows)
        assert column(reals(batches), "index").tolist() == list(range(rows)) and len(batches) == -(-rows // 32)
        assert len(batches[0]["text"]) == 32 + padding  # shapes stay


def test_labelled():
    assert labelled(None) is None and labelled(np.full(3, -1)) is None and labelled(np.zeros((3, 2))) is None
    assert labelled(np.array([-1, 0])) is not None and labelled(np.eye(2)) is not None


def test_keys_differ_between_batches():
    seen = []
    list(fakes(lambda b, k: seen.append(jax.random.key_data(k).tolist()) or toys.generate(b, k), toys.world(), 96, 0))
    assert len({tuple(k) for k in seen}) == 3
