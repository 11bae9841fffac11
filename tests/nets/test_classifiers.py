"""EfficientNet-Lite0 and the attribute network."""

import jax
import numpy as np

from supcon_jax.nets import init
from supcon_jax.nets.classify import AttributeNet
from supcon_jax.nets.efficientnet import EfficientNetLite0


def test_efficientnet_lite0_has_the_published_size():
    made = jax.eval_shape(EfficientNetLite0().init_with_output, jax.random.key(0), np.zeros((2, 96, 96, 3), np.float32))
    taps, variables = made
    assert {tap: x.shape for tap, x in taps.items()} == {"112": (2, 6, 6, 112), "1280": (2, 1280), "logits": (2, 1000)}
    assert sum(a.size for a in jax.tree.leaves(variables["params"])) == 4_652_008


def test_attribute_net_has_a_head_for_each_attribute():
    net = AttributeNet({"colour": 4, "shape": 3}, 4)
    image = np.random.default_rng(0).uniform(-1, 1, (3, 16, 16, 3)).astype(np.float32)
    variables = init.on_host(net.init, jax.random.key(0), image)
    (features, logits), moved = net.apply(variables, image, train=True, mutable=["batch_stats"])
    assert features.shape == (3, 32) and {k: v.shape for k, v in logits.items()} == {"colour": (3, 4), "shape": (3, 3)}
    assert moved["batch_stats"]["norm"]["mean"].any()
