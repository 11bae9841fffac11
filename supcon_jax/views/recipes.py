"""Which views a method sees: the published augmentations as data, and the one function that draws and computes them."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp

from supcon_jax.views import autoaugment, colour
from supcon_jax.views.crop import DRAWS, KERNELS, centre, crop, random_boxes
from supcon_jax.views.image import mirror, planes
from supcon_jax.views.jigsaw import rotate

ORDERS = ("fixed", "random")
CHANCES = ("flip", "jitter_p", "gray", "blur", "solarize")


@dataclasses.dataclass(frozen=True)
class View:
    """How one view of a picture is drawn. flip, jitter_p, gray, blur, solarize: probabilities.

    scale: least and most share of the area. ratio: of width / height. kernel: of the resizing, "linear" or "cubic".
    jitter: reach of brightness, contrast, saturation (a factor from max(0, 1 - r) to 1 + r; brightness of flavour "tf": an
    amount from -r to r) and hue (-r to r of the circle). order: of the four, "fixed" or "random", for each picture anew.
    gray_first: gray before the jitter, not after. sigma: least and most, in pixels. taps: odd width of the blur; 0 for a
    tenth of the picture. threshold: of solarize. rotate: most degrees either way. flavour: see colour.jitter. policy: of
    views.autoaugment, before all that; none if empty.
    Raises ValueError: an unknown word, or a probability outside 0..1.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    kernel: str = "cubic"
    flip: float = 0.5
    jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    jitter_p: float = 0.8
    order: str = "random"
    gray: float = 0.0
    gray_first: bool = False
    blur: float = 0.0
    sigma: tuple[float, float] = (0.1, 2.0)
    taps: int = 0
    solarize: float = 0.0
    threshold: float = 0.5
    rotate: float = 0.0
    flavour: str = "tv"
    policy: str = ""

    def __post_init__(self):
        choices = {"kernel": KERNELS, "order": ORDERS, "flavour": colour.FLAVOURS, "policy": ("", *autoaugment.POLICIES)}
        for field, words in choices.items():
            if getattr(self, field) not in words:
                raise ValueError(f"{field} of a view is {getattr(self, field)!r}: say one of {', '.join(filter(None, words))}")
        for field in CHANCES:
            if not 0 <= getattr(self, field) <= 1:
                raise ValueError(f"{field} of a view is {getattr(self, field)}: a probability lies in 0..1")
        for field, least in (("scale", 0.0), ("ratio", 0.0), ("sigma", 0.0)):
            low, high = getattr(self, field)
            if not least < low <= high:
                raise ValueError(f"{field} of a view is {(low, high)}: give (least, most) with 0 < least <= most")
        if self.scale[1] > 1:
            raise ValueError(f"scale of a view is {self.scale}: the share of the area is at most 1")
        if self.taps and self.taps % 2 == 0:
            raise ValueError(f"taps of a view is {self.taps}: give an odd number, or 0 for a tenth of the picture")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """views: of full size. norm: a name in NORMS, or "lab". small: views of small size, which follow the others."""

    views: tuple[View, ...]
    norm: str
    small: tuple[View, ...] = ()


def _two(norm, view, **second):
    """Two views alike but for what the second changes."""
    return Recipe((view, dataclasses.replace(view, **second)), norm)


def _cifar(strength, **rest):
    return View(jitter=strength, gray=0.2, taps=17, **rest)


# 17 taps hold 4 sigma on either side: Pillow's blur, which has no width of its own
_simclr = View(jitter=(0.8, 0.8, 0.8, 0.2), gray=0.2, blur=0.5, flavour="tf2")
_moco = View((0.2, 1.0), kernel="linear", jitter=(0.4, 0.4, 0.4, 0.1), gray=0.2, blur=0.5, taps=17)
_byol = View(jitter=(0.4, 0.4, 0.2, 0.1), gray=0.2, blur=1.0, flavour="tf")
_barlow = dataclasses.replace(_byol, flavour="tv", taps=17)
_swav = View((0.14, 1.0), kernel="linear", jitter=(0.8, 0.8, 0.8, 0.2), gray=0.2, blur=0.5, taps=23)
_plain = View((0.2, 1.0), kernel="linear")

RECIPES: Mapping[str, Recipe] = MappingProxyType({
    # Chen et al. 2020, arXiv 2002.05709, appendix A and (cifar) B.9; brightness is a factor, as in the released code's default
    "simclr": _two("none", _simclr),
    "simclr_cifar": _two("none", dataclasses.replace(_simclr, jitter=(0.4, 0.4, 0.4, 0.1), blur=0.0)),
    # He et al. 2020, arXiv 1911.05722; Chen et al. 2020, arXiv 2003.04297 (SimSiam, arXiv 2011.10566, and PCL v2 alike)
    "moco_v1": _two(
        "imagenet",
        View((0.2, 1.0), kernel="linear", jitter=(0.4, 0.4, 0.4, 0.4), jitter_p=1.0, gray=0.2, gray_first=True),
    ),
    "moco_v2": _two("imagenet", _moco),
    "simsiam": _two("imagenet", _moco),
    "pcl_v2": _two("imagenet", _moco),
    # Grill et al. 2020, arXiv 2006.07733, table 6
    "byol": _two("imagenet", _byol, blur=0.1, solarize=0.2),
    # Chen et al. 2021, arXiv 2104.02057: as BYOL but for the least scale; its ViTs change scale to (0.08, 1)
    "moco_v3": _two("imagenet", dataclasses.replace(_barlow, scale=(0.2, 1.0), kernel="linear"), blur=0.1, solarize=0.2),
    # Zbontar et al. 2021, arXiv 2103.03230; Bardes et al. 2022, arXiv 2105.04906
    "barlow": _two("imagenet", _barlow, blur=0.1, solarize=0.2),
    "vicreg": _two("imagenet", _barlow, blur=0.1, solarize=0.2),
    # Caron et al. 2020, arXiv 2006.09882: 2 x 224 and 6 x 96 px
    "swav": Recipe((_swav,) * 2, "swav", (dataclasses.replace(_swav, scale=(0.05, 0.14)),) * 6),
    "swav_two": _two("swav", _swav),
    # da Costa et al. 2022, arXiv 2108.01775 (solo-learn), for 32 px
    "cifar_symmetric": _two("cifar", _cifar((0.8, 0.8, 0.8, 0.2), blur=0.5)),
    "cifar_weak": _two("cifar", _cifar((0.4, 0.4, 0.4, 0.1), blur=0.5)),
    "cifar_asymmetric": _two("cifar", _cifar((0.4, 0.4, 0.2, 0.1)), solarize=0.2),
    "cifar_vicreg": _two("cifar", _cifar((0.4, 0.4, 0.2, 0.1), scale=(0.2, 1.0), solarize=0.1)),
    # Khosla et al. 2020, arXiv 2004.11362: on ImageNet (section 4.4 and the released code's crops), and the PyTorch code's
    "supcon": _two("half", View(kernel="linear", policy="imagenet")),
    "supcon_cifar": _two("cifar_supcon", dataclasses.replace(_moco, blur=0.0)),
    # Tian et al. 2019, arXiv 1906.05849: L and ab are parted after
    "cmc": _two("lab", _plain),
    # van den Oord et al. 2018, arXiv 1807.03748, section 3.2: a crop of 256 out of 300 px, mirrored, gray
    "cpc": _two("imagenet", View((0.7, 0.75), (1.0, 1.0), kernel="linear", gray=0.25)),
    # what classifiers are trained with on an encoder
    "crop_flip": _two("imagenet", View(kernel="linear")),
    "emoji": _two("half", View((0.3, 1.0), kernel="linear", jitter=(0.4, 0.4, 0.4, 0.1), gray=0.2)),
    # pictures whose class a mirror or a colour would change
    "digits": _two("half", View((0.4, 1.0), kernel="linear", flip=0.0, rotate=15.0)),
    "shapes": _two("half", View((0.6, 1.0), kernel="linear", jitter=(0.2, 0.2, 0.2, 0.0))),
})  # fmt: skip

# mean and standard deviation of the channels in [0, 1]
NORMS: Mapping[str, tuple] = MappingProxyType({
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "swav": ((0.485, 0.456, 0.406), (0.228, 0.224, 0.225)),  # as its weights were trained
    "cifar": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "cifar_supcon": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),  # mean of each picture's own deviation
})  # fmt: skip


def own_norm(recipe):
    """Name of the normalisation that belongs to a recipe: what `plain` takes in evaluation.

    Raises ValueError: an unknown recipe.
    """
    return _named(recipe).norm


def crops(images, key, *, recipe, size, small=0, norm="", change=(), more=0):
    """The augmented views of each picture, normalised: pictures and views draw on their own, from one key.

    Every number is drawn as a vector over the whole batch, so that the views do not depend on how it is split over devices.
    View i draws from fold_in(key, i), and each field has its own column of the draw: changing one leaves the others' alone.

    images: u8[n, h, w, 3]; floating ones are taken to be in [0, 1]. recipe: a name in RECIPES. size, small: of the views;
    small is read where the recipe has small views only. norm: a name in NORMS, or "lab"; the recipe's own if "".
    change: mapping of View's fields to values that replace those of every view. more: further views of full size, drawn as
    the recipe's first one is, behind its own.
    Returns a tuple with one f32[n, v, s, s, 3] for each size: all views in the order of the recipe.
    Raises ValueError: an unknown recipe, norm or field, or small views without a size.
    """
    made = _named(recipe)
    norm = _known(norm or made.norm)
    if made.small and small <= 0:
        raise ValueError(f"the recipe {recipe} has small views: give their size, views.small (96 beside 224)")
    pictures, out, number = planes(images), [], 0
    for views, side in (((*made.views, *made.views[:1] * more), size), (made.small, small)):
        parts = []
        for view, alike in itertools.groupby(_changed(view, change) for view in views):
            count = len(list(alike))
            drawn = draw(view, key, range(number, number + count), images.shape)
            parts.append(render(pictures, view, drawn, side, norm))
            number += count
        if parts:
            out.append(parts[0] if len(parts) == 1 else jnp.concatenate(parts, 1))
    return tuple(out)


def plain(images, *, size, norm, share=1.0):
    """The view of evaluation: the middle square brought to `size` and normalised.

    images: u8[n, h, w, 3]; floating ones are taken to be in [0, 1]. norm: a name in NORMS, or "lab". share: of the short side
    that is kept; 0.875 is ImageNet's usual 224 out of 256. Pictures of this size already keep their pixels.
    Returns f32[n, size, size, 3].
    Raises ValueError: an unknown norm.
    """
    return jnp.moveaxis(_normal(centre(planes(images), size, share=share), _known(norm)), -3, -1)


class Draws(NamedTuple):
    """What was drawn for v views of n pictures; see View. Probabilities are bool[n, v] by now."""

    boxes: jax.Array  # f32[n, v, 4] top, left, height, width
    flip: jax.Array
    jitter: jax.Array
    factors: jax.Array  # f32[n, v, 4] by operation
    order: jax.Array  # i32[n, v, 4]
    gray: jax.Array
    blur: jax.Array
    sigma: jax.Array  # f32[n, v] pixels
    solarize: jax.Array
    degrees: jax.Array  # f32[n, v]
    policy: jax.Array | None = None  # f32[n, v, autoaugment.DRAWS], where the view has one


def draw(view, key, numbers, shape):
    """Draws views for a batch of pictures of shape [n, h, w, 3]. numbers: of these views, folded into the key.

    Returns Draws.
    """
    rows = jnp.array(list(numbers), jnp.uint32)
    one = lambda i: jax.random.uniform(jax.random.fold_in(key, i), (shape[0], DRAWS + 15))  # noqa: E731
    pair = lambda i: autoaugment.draw(jax.random.fold_in(jax.random.fold_in(key, i), 1), shape[:1])  # noqa: E731
    u = jax.vmap(one, out_axes=1)(rows)
    boxes = random_boxes(u[..., :DRAWS], shape[1], shape[2], scale=view.scale, ratio=view.ratio)
    u = u[..., DRAWS:]
    lows, highs = zip(*(_reach(view, k) for k in range(4)))
    low, high = jnp.array(lows, jnp.float32)[None, None], jnp.array(highs, jnp.float32)[None, None]
    return Draws(
        boxes=boxes,
        flip=u[..., 0] < view.flip,
        jitter=u[..., 1] < view.jitter_p,
        factors=low + (high - low) * u[..., 2:6],
        order=jnp.argsort(u[..., 6:10], -1).astype(jnp.int32),
        gray=u[..., 10] < view.gray,
        blur=u[..., 11] < view.blur,
        sigma=view.sigma[0] + (view.sigma[1] - view.sigma[0]) * u[..., 12],
        solarize=u[..., 13] < view.solarize,
        degrees=view.rotate * (2.0 * u[..., 14] - 1.0),
        policy=jax.vmap(pair, out_axes=1)(rows) if view.policy else None,
    )


def _reach(view, op):
    reach = view.jitter[op]
    if colour.OPS[op] == "hue" or (colour.OPS[op] == "brightness" and view.flavour == "tf"):
        return -reach, reach
    return max(0.0, 1.0 - reach), 1.0 + reach


def render(pictures, view, drawn, size, norm):
    """Computes the views that were drawn: f32[n, 3, h, w] in [0, 1] and Draws -> f32[n, v, size, size, 3], normalised.

    What a view applies with probability p is computed for all and selected, as pictures of a batch share one program; what
    it never applies is left out. Mirror and rotation come last: they commute with everything before them but a policy, whose
    shear begins at a corner: before that the mirror comes first.
    """
    x = crop(pictures, drawn.boxes, size, view.kernel)
    if view.policy:
        x = jnp.where(drawn.flip[..., None, None, None], x[..., ::-1], x)
        x = autoaugment.augment(x, drawn.policy, view.policy)
    steps = ("gray", "jitter") if view.gray_first else ("jitter", "gray")
    for step in (*steps, "blur", "solarize"):
        chance = view.jitter_p if step == "jitter" else getattr(view, step)
        if chance == 0 or (step == "jitter" and not any(view.jitter)):
            continue
        done = _apply(step, x, view, drawn)
        x = done if chance == 1 else jnp.where(getattr(drawn, step)[:, :, None, None, None], done, x)
    x = jnp.moveaxis(_normal(x, norm), -3, -1)
    if view.flip and not view.policy:
        x = mirror(x, drawn.flip)
    return rotate(x, drawn.degrees) if view.rotate else x


def _apply(step, x, view, drawn):
    if step == "jitter":
        return colour.jitter(x, drawn.factors, drawn.order if view.order == "random" else None, view.flavour)
    if step == "gray":
        return colour.gray(x)
    if step == "blur":
        return colour.blur(x, drawn.sigma, view.taps or colour.taps(x.shape[-1]))
    return colour.solarize(x, view.threshold)


def _normal(x, norm):
    if norm == "lab":
        return colour.lab(x)
    return colour.normalise(x, *NORMS[norm])


def _changed(view, change):
    fields = {f.name for f in dataclasses.fields(View)}
    for name in dict(change):
        if name not in fields:
            raise ValueError(f"a view has no field {name!r}: say one of {', '.join(sorted(fields))}")
    settled = {k: tuple(v) if isinstance(v, list) else v for k, v in dict(change).items()}
    return dataclasses.replace(view, **settled) if settled else view


def _known(norm):
    if norm != "lab" and norm not in NORMS:
        raise ValueError(f"the norm is {norm!r}: say one of {', '.join(NORMS)}, lab")
    return norm


def _named(recipe):
    if recipe not in RECIPES:
        raise ValueError(f"the recipe is {recipe!r}: say one of {', '.join(RECIPES)}")
    return RECIPES[recipe]
