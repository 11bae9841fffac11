"""Which network a file holds, on the files of the original codes that the reference numbers come with."""

import pathlib

import numpy as np
import pytest

from golden.cases import read_cases
from supcon_jax.convert import kinds, tensors

GOLDEN = pathlib.Path(__file__).parent.parent / "golden"
EXPECTED = {
    "attngan_g": "attngan_g", "attngan_d": "attngan_d", "attngan_rnn": "text_encoder", "damsm_cnn": "image_encoder",
    "dmgan_g": "dmgan_g", "dmgan_d": "dmgan_d", "dfgan_g": "dfgan_g", "dfgan_d": "dfgan_d", "ssagan_g": "ssagan_g",
    "ssagan_d": "ssagan_d", "galip_g": "galip_g", "galip_d": "galip_d", "openai_clip": "clip", "hf_clip": "clip",
    "hf_vit": "vit", "tv_vit": "vit",
}  # fmt: skip
FILES = sorted({case.weights for case in read_cases(GOLDEN) if case.weights})


@pytest.mark.parametrize("start,kind", EXPECTED.items())
def test_files_of_the_original_codes_are_known(start, kind):
    files = [file for file in FILES if file.name.startswith(start)]
    assert files
    for file in files:
        assert list(kinds.told(tensors.read(file))) == [kind], file.name


def zeros(*names):
    return dict.fromkeys(names, np.zeros(1))


def test_a_whole_state_is_taken_apart():
    """What DF-GAN and GALIP save: networks beside their optimisers, each maybe wrapped once more."""
    g, d, c = "to_rgb.1.weight", "DBlocks.0.gamma", "joint_conv.0.weight"
    for before, behind in (("model.", ""), ("model.", "module."), ("", "")):
        state = zeros(*(f"{before}net{n}.{behind}{x}" for n, x in (("G", g), ("D", d), ("C", c))), "optimizers.G.state.0.step")
        told = kinds.told(state)
        assert {kind: sorted(part) for kind, part in told.items()} == {
            "dfgan_g": [g], "dfgan_d": [f"netC.{c}", f"netD.{d}"]}
    wrapped = kinds.told(zeros("netG.h_net2.A.weight", "netG.ca_net.fc.weight"))
    assert {kind: sorted(part) for kind, part in wrapped.items()} == {"dmgan_g": ["ca_net.fc.weight", "h_net2.A.weight"]}


@pytest.mark.parametrize("before", ["", "module.", "state_dict.", "state_dict.module."])
def test_names_before_all_names_are_taken_off(before):
    (kind, part), = kinds.told(zeros(f"{before}h_net2.att.conv_context.weight")).items()
    assert kind == "attngan_g" and list(part) == ["h_net2.att.conv_context.weight"]


def test_what_is_not_known_has_no_kind():
    assert kinds.told(zeros("weight", "bias")) == {} and kinds.told({}) == {}
