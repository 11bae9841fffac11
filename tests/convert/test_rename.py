import jax
import numpy as np
import pytest

from supcon_jax.config import UserError
from supcon_jax.convert import attngan, damsm, dmgan, efficientnet, inception, rename
from supcon_jax.nets import dmgan as dmgan_nets
from supcon_jax.nets.attngan import Discriminator, Generator
from supcon_jax.nets.efficientnet import STAGES, EfficientNetLite0
from supcon_jax.nets.inception import Inception

TABLE = [rename.Rule(r"fc(\d)\.weight", r"params/layer\1/kernel", rename.turned), *rename.norm(r"bn(\d)", r"norm\1")]
LIKE = {"params": {"layer0": {"kernel": np.zeros((3, 2), np.float32)},
                   "norm1": {"scale": np.zeros(2), "bias": np.zeros(2)}},
        "batch_stats": {"norm1": {"mean": np.zeros(2), "var": np.zeros(2)}}}


def given():
    return {"fc0.weight": np.arange(6.0).reshape(2, 3), "bn1.weight": np.ones(2), "bn1.bias": np.ones(2),
            "bn1.running_mean": np.ones(2), "bn1.running_var": np.ones(2), "bn1.num_batches_tracked": np.array(3)}


def test_load_places_turns_and_casts():
    tree = rename.load({f"module.{k}": v for k, v in given().items()}, TABLE, LIKE)
    kernel = tree["params"]["layer0"]["kernel"]
    np.testing.assert_array_equal(kernel, given()["fc0.weight"].T)
    assert kernel.dtype == np.float32 and tree["batch_stats"]["norm1"]["var"].sum() == 2


@pytest.mark.parametrize(("change", "said"), [
    ({"fc0.weight": np.zeros((3, 3))}, r"fc0.weight gives params/layer0/kernel shape \(3, 3\).*\(3, 2\)"),
    ({"fc0.weight": np.zeros((2, 3)), "fc1.weight": np.zeros(2)}, "no place for: fc1.weight"),
    ({"head": np.zeros(2)}, "no place for: head"),
    ({"bn1.bias": None}, "the file lacks: params/norm1/bias")])
def test_load_names_what_does_not_fit(change, said):
    tensors = {k: v for k, v in (given() | change).items() if v is not None}
    with pytest.raises(UserError, match=said):
        rename.load(tensors, TABLE, LIKE)


def test_load_warns_and_keeps_what_it_has_if_not_strict():
    tensors = given() | {"head": np.zeros(2)}
    del tensors["bn1.bias"]
    with pytest.warns(UserWarning) as said:
        tree = rename.load(tensors, TABLE, LIKE, strict=False)
    assert len(said) == 2 and not tree["params"]["norm1"]["bias"].any()


def test_two_tensors_for_one_place_are_refused():
    table = [*TABLE, rename.Rule("other", "params/layer0/kernel", rename.turned)]
    with pytest.raises(UserError, match="filled already"):
        rename.load(given() | {"other": np.zeros((2, 3))}, table, LIKE)


def test_the_linear_start_is_moved_half_by_half():
    c = 3
    vector = np.arange(2 * c * 16)
    ours = attngan.positions(vector).reshape(4, 4, 2, c)
    theirs = vector.reshape(2, c, 4, 4)  # PyTorch: GLU halves, then view(c, 4, 4)
    for half in range(2):
        np.testing.assert_array_equal(ours[:, :, half].transpose(2, 0, 1), theirs[half])
    kernel = np.arange(2 * c * 16 * 5).reshape(-1, 5)
    np.testing.assert_array_equal(attngan.start_kernel(kernel)[2], attngan.positions(kernel[:, 2]))


def test_tables_name_every_weight_of_the_published_sizes():
    """Tables are read backwards: each leaf of the network must have exactly one foreign name in a list of names."""
    image = jax.ShapeDtypeStruct((1, 128, 128, 3), np.float32)
    d128 = jax.eval_shape(Discriminator(128).init, jax.random.key(0), image, jax.ShapeDtypeStruct((1, 256), np.float32))
    bns = (".weight", ".bias", ".running_mean", ".running_var")
    names = [f"img_code_s16.{i}.weight" for i in (0, 2, 5, 8)] + ["img_code_s32.0.weight", "img_code_s32_1.0.weight"]
    names += [f"{n}{b}" for n in ("img_code_s16.3", "img_code_s16.6", "img_code_s16.9", "img_code_s32.1",
                                  "img_code_s32_1.1", "COND_DNET.jointConv.1") for b in bns]
    names += [f"{n}.outlogits.0.{x}" for n in ("UNCOND_DNET", "COND_DNET") for x in ("weight", "bias")]
    covered(d128, attngan.discriminator(128), [*names, "COND_DNET.jointConv.0.weight"])

    blocks = sum(s[0] for s in STAGES)
    names = [f"_blocks.{i}.{n}" for i in range(blocks) for n in (
        "_depthwise_conv.weight", "_project_conv.weight", *(f"_bn{k}{b}" for k in (1, 2) for b in bns))]
    names += [f"_blocks.{i}.{n}" for i in range(1, blocks) for n in ("_expand_conv.weight", *(f"_bn0{b}" for b in bns))]
    names += ["_conv_stem.weight", "_conv_head.weight", "_fc.weight", "_fc.bias", *(f"_bn{k}{b}" for k in (0, 1)
                                                                                  for b in bns)]
    lite = jax.eval_shape(EfficientNetLite0().init, jax.random.key(0), image)
    covered(lite, efficientnet.lite0(), names)


def test_torchvision_and_wrapped_names_meet_in_one_network():
    image = jax.ShapeDtypeStruct((1, 299, 299, 3), np.float32)
    like = jax.eval_shape(Inception(classes=1008).init, jax.random.key(0), image)
    place = lambda name, table: rename.place(name, table)[0]  # noqa: E731
    full = inception.torchvision(classes=1008)
    assert place("Mixed_6b.branch7x7_2.conv.weight", full) == place(
        "blocks.2.4.branch7x7_2.conv.weight", inception.wrapped()) == "params/mixed6b/branch7x7_2/conv/kernel"
    assert place("Conv2d_3b_1x1.bn.running_var", full) == place(
        "blocks.1.0.bn.running_var", inception.wrapped()) == "batch_stats/conv3b/norm/var"
    assert place("fc.weight", full) == "params/fc/kernel" and like["params"]["fc"]["kernel"].shape == (2048, 1008)
    assert place("AuxLogits.conv0.conv.weight", full) is None and place("fc.bias", damsm.image()) is None


def test_generator_table_follows_its_sizes():
    z, words = jax.ShapeDtypeStruct((1, 100), np.float32), jax.ShapeDtypeStruct((1, 4, 8), np.float32)
    like = jax.eval_shape(Generator(4, (16, 32), 1).init, jax.random.key(0), z,
                          jax.ShapeDtypeStruct((1, 8), np.float32), words, jax.ShapeDtypeStruct((1, 4), bool), z)
    names = shared_names()
    covered(like, attngan.generator((16, 32)), [*names, "h_net2.att.conv_context.weight"])
    like = jax.eval_shape(dmgan_nets.Generator(4, (16, 32), 1).init, jax.random.key(0), z,
                          jax.ShapeDtypeStruct((1, 8), np.float32), words, jax.ShapeDtypeStruct((1, 4), bool), z)
    names += [f"h_net2.{n}.0.{x}" for n in ("M_w", "M_r", "key", "value", "response_gate") for x in ("weight", "bias")]
    covered(like, dmgan.generator((16, 32)), [*names, "h_net2.A.weight", "h_net2.B.weight"])


def shared_names():
    """What the published generators of two scales have in common."""
    bns = (".weight", ".bias", ".running_mean", ".running_var")
    names = ["ca_net.fc.weight", "ca_net.fc.bias", "h_net1.fc.0.weight", "img_net1.img.0.weight",
             "img_net2.img.0.weight", "h_net2.upsample.1.weight"]
    names += [f"h_net1.upsample{i}.1.weight" for i in (1, 2)]
    names += [f"h_net2.residual.0.block.{i}.weight" for i in (0, 3)]
    names += [f"{n}{b}" for n in ("h_net1.fc.1", "h_net1.upsample1.2", "h_net1.upsample2.2", "h_net2.upsample.2",
                                  "h_net2.residual.0.block.1", "h_net2.residual.0.block.4") for b in bns]
    return names


def test_names_of_a_discriminator_with_spectral_norm():
    image = jax.ShapeDtypeStruct((1, 256, 256, 3), np.float32)
    net = dmgan_nets.Discriminator(256, 4)
    like = jax.eval_shape(net.init, jax.random.key(0), image, jax.ShapeDtypeStruct((1, 8), np.float32))
    layers = [f"img_code_s16.{i}" for i in (0, 2, 4, 6)]
    layers += [f"{n}.0" for n in ("img_code_s32", "img_code_s64", "img_code_s64_1", "img_code_s64_2", "COND_DNET.jointConv")]
    names = [f"{n}.module.{x}" for n in layers for x in ("weight_bar", "weight_u", "weight_v", "bias")]
    names += [f"{n}.outlogits.0.{x}" for n in ("UNCOND_DNET", "COND_DNET") for x in ("weight", "bias")]
    covered(like, dmgan.discriminator(256), names)


def test_spectral_vectors_follow_their_kernel():
    """The right vector is turned as the kernel's inputs are: W v is the same number in both layouts."""
    rng = np.random.default_rng(0)
    kernel, u, v = rng.normal(size=(5, 3, 4, 4)), rng.normal(size=5), rng.normal(size=48)
    tensors = {"weight_bar": kernel, "weight_u": u, "weight_v": v}
    ours = {}
    for name, a in tensors.items():
        path, layout = rename.place(f"img_code_s16.2.module.{name}", dmgan.discriminator(64))
        ours[path] = layout(a)
    w = ours["params/down1/kernel"].reshape(-1, 5)
    np.testing.assert_allclose(ours["batch_stats/down1/norm/v"] @ w, kernel.reshape(5, -1) @ v, rtol=1e-12)
    np.testing.assert_array_equal(ours["batch_stats/down1/norm/u"], u)


def covered(like, table, names):
    placed = sorted(rename.place(name, table)[0] for name in names)
    leaves = jax.tree_util.tree_flatten_with_path(like)[0]
    assert placed == sorted("/".join(k.key for k in path) for path, _ in leaves)
