"""A little world whose truth is known: the class is a colour, the record a shade, captions name both."""

import jax
import numpy as np

from supcon_jax.evals.protocol import Network

CLASSES = 4
COLOURS = np.array([[-0.6, -0.6, -0.6], [0.6, -0.6, 0.0], [-0.6, 0.6, 0.3], [0.5, 0.5, -0.7]], np.float32)


def paint(label, shade):
    """Floats [n, 8, 8, 3]: the colour of the class, the shade along the height."""
    ramp = np.linspace(-0.3, 0.3, 8, dtype=np.float32)[None, :, None, None]
    return np.broadcast_to(COLOURS[label][:, None, None] + ramp * shade[:, None, None, None], (len(label), 8, 8, 3))


def world(records=96, batch=32, views=2, seed=0, padding=0):
    """List of batches; branch 1 holds rubbish, which evaluation must not look at."""
    rng = np.random.default_rng(seed)
    label, shade = np.arange(records) % CLASSES, rng.uniform(-1, 1, records).astype(np.float32)
    noisy = paint(label, shade) + 0.05 * rng.normal(size=(records, 8, 8, 3))
    image = np.clip((noisy + 1) * 127.5, 0, 255).astype(np.uint8)
    text = np.stack([label + 1, (shade * 1000 + 2000).astype(int), np.arange(records) + 5000], 1).astype(np.int32)
    fields = {
        "image": image, "text": text, "text_len": np.full(records, 3, np.int32), "label": label.astype(np.int32),
        "index": np.arange(records, dtype=np.int32),
    }  # fmt: skip
    fields = {k: np.stack([x] + [x[::-1] * 0 + 1] * (views - 1), 1) for k, x in fields.items()}
    batches = [{k: x[i : i + batch] for k, x in fields.items()} for i in range(0, records, batch)]
    if padding:
        for b in batches:
            for k, x in b.items():
                b[k] = np.concatenate([x, np.full_like(x[:padding], 1)])
            b["valid"] = np.r_[np.ones(batch), np.zeros(padding)].astype(np.float32)
    return batches


def generate(batch, key):
    """What the caption asks for, with a little noise; sees branch 0 alone."""
    assert batch["text"].shape[1] == 1
    text = batch["text"][:, 0]
    shade = ((text[:, 1] - 2000) / 1000).astype(np.float32)
    x = paint((text[:, 0] - 1) % CLASSES, shade)
    return x + 0.05 * np.asarray(jax.random.normal(key, x.shape))


def look(images):
    """u8 pictures -> (features [n, 6], logits [n, 4])."""
    x = images.astype(np.float32) / 127.5 - 1
    feature = np.concatenate([x[:, :4].mean((1, 2)), x[:, 4:].mean((1, 2))], 1)
    return feature, -20 * ((feature.reshape(-1, 2, 3).mean(1)[:, None] - COLOURS[None]) ** 2).sum(-1)


def network(name="toy", features=look):
    return Network(name, "ab" * 32, 8, "none", features)
