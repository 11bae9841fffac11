"""How good and how varied generated pictures are: FID, KID, IS, precision/recall/density/coverage, labels, diversity."""

import numpy as np

from supcon_jax.evals.diversity import spread
from supcon_jax.evals.features import extract, real_features
from supcon_jax.evals.fid import frechet, gaussian, inception_score, kid, prdc
from supcon_jax.evals.knn import label_accuracy, neighbours
from supcon_jax.evals.protocol import Protocol, record
from supcon_jax.evals.streams import Content, alike
from supcon_jax.evals.streams import fakes as made

NO_REALS = {"real_number": 0, "real_origin": "", "real_content": ""}
NEED_REALS = {"fid", "kid", "prdc", "labels"}


def shown(size):
    return "x".join(map(str, size))


def known(label, bank):
    """bool[m]: rows whose label can be found in a bank of labels at all (multi-label: any of their classes)."""
    if label.ndim == 1:
        return np.isin(label, bank[bank >= 0])
    return ((label > 0) & bank.any(0)[None]).any(1)


def distribution(network, real, fake, logits, protocol, *, splits, subsets, k, seed):
    """Scores of fakes against reals by one network's features, each with its protocol.

    real: [n, d]; fake: [m, d]; logits: [m, c] or None (then no Inception score).
    """
    out = {}
    if "fid" in network.scores:
        out |= record({network.metric("fid"): frechet(*gaussian(real), *gaussian(fake))}, protocol)
    if "kid" in network.scores:
        size = max(2, min(1000, len(real) // 2, len(fake) // 2))  # subsets of the whole set would all be the same
        mean, spread = kid(real, fake, subsets=subsets, size=size, seed=seed)
        values = {network.metric("kid"): mean, network.metric("kid_std"): spread}
        out |= record(values, protocol.replace(subsets=f"{subsets} x {size}"))
    if "prdc" in network.scores:
        values = {network.metric(name): v for name, v in prdc(real, fake, k).items()}
        out |= record(values, protocol.replace(neighbours=k))
    if "is" in network.scores and logits is not None:
        mean, spread = inception_score(logits, splits, np.random.default_rng(seed).permutation(len(logits)))
        values = {network.metric("is"): mean, network.metric("is_std"): spread}
        out |= record(values, protocol.replace(splits=f"{splits} shuffled", **NO_REALS))
    return out


def head_said(network, logits, label, classes, protocol):
    """Label accuracy of pictures by the network's own head, in percent; nothing where it was trained on other classes."""
    if label is None or label.ndim != 1 or not network.classes or tuple(classes) != tuple(network.classes):
        return {}
    rows = label >= 0
    value = 100 * np.mean(np.asarray(logits)[rows].argmax(1) == label[rows])
    own = protocol.replace(fake_number=int(rows.sum()), subsets=f"own head of {len(classes)} classes", **NO_REALS)
    return record({network.metric("label_accuracy"): value}, own)


def variety(networks, parts, protocol):
    """Diversity by networks that have maps: how much pictures of the same caption differ, see diversity.spread."""
    kept = list(parts)
    images, same = np.concatenate([part.images[part.keep] for part in kept]), alike(kept)
    content = Content()
    for part in kept:
        content.add(part)
    out = {}
    for network in networks:
        value, captions, pairs = spread(network.maps, images, same)
        resize = f"fake {shown(images.shape[1:3])} -> {network.size} {network.resize}"
        own = protocol.replace(
            network=network.name, weights=network.sha256, resize=resize,
            fake_number=len(images), fake_content=str(content), subsets=f"{pairs} pairs of {captions} captions", **NO_REALS,
        )  # fmt: skip
        out |= record({network.metric("diversity"): value}, own)
    return out


def labels_said(network, fake, label, bank, bank_label, protocol, *, origin, content, prefix=""):
    """Label accuracy of pictures among the real ones of a bank; nothing where their classes do not stand in it.

    Pictures of classes that the bank lacks are left out, and the protocol's fake_number says how many were judged.
    """
    rows = known(label, bank_label)
    if not rows.any():
        return {}
    name = "label_accuracy" if label.ndim == 1 else "label_map"
    k = neighbours(len(bank), len(np.unique(bank_label)) if label.ndim == 1 else bank_label.shape[1])
    value = label_accuracy(fake[rows], label[rows], bank, bank_label)
    own = protocol.replace(neighbours=k, real_number=len(bank), real_origin=origin, real_content=content)
    return record({prefix + network.metric(name): value}, own.replace(fake_number=int(rows.sum())))


def generation(
    generate,
    real_batches,
    caption_batches,
    networks,
    *,
    protocol=Protocol(),  # noqa: B008  (frozen)
    fakes=512,
    reals=None,
    seed=0,
    splits=None,
    subsets=100,
    k=3,
    bank_batches=None,
    bank_origin="",
    classes=(),
    varied=None,
    cache=None,
):
    """Generate pictures from captions and score them against real ones, by one or more feature networks.

    generate: (batch cut to branch 0, key) -> floats [b, h, w, 3] in [-1, 1]; rounded to 8 bits before anything else.
    real_batches, caption_batches, bank_batches: batches as in evals.streams; lists are passed over once for each
    network (reals, bank) or again until there are enough captions, so hand in lists or re-iterable objects.
    networks: list of Network. protocol: what only the caller knows: real_origin ("shapes/test"), fake_origin,
    captions, truncation, ema; the rest is filled in here.
    fakes: number of pictures generated. reals: number of real ones, None for all. splits: of the Inception score, 10
    from 5,000 fakes on, else 1. subsets: of KID, half of the smaller set each, at most 1,000. k: balls of precision.
    bank_batches, bank_origin: real pictures among which label accuracy looks for neighbours; the reals if left out.
    classes: names of the labels' classes, for networks whose own head knows them.
    varied: (caption batches, number of pictures) of which captions come more than once, for diversity; None: none.
    cache: folder for features of real pictures.
    Returns {metric: {"value", "protocol", "line"}} as evals.protocol.record, with fakes_not_finite, the number of
    pictures that held a NaN or an infinity: they are counted there and left out of every other number.
    Raises ValueError: fewer than k + 2 finite fakes; features that are not finite; captions that end too early.
    """
    made_of, label, shape, bad, content = extract(networks, made(generate, caption_batches, fakes, seed))
    base = protocol.replace(fake_number=fakes - bad, fake_content=content, seed=seed)
    out = record({"fakes_not_finite": bad}, base.replace(fake_number=fakes))
    if fakes - bad < k + 2:
        raise ValueError(f"{bad} of {fakes} generated pictures are not finite: nothing to measure")
    splits = splits or (10 if fakes - bad >= 5000 else 1)
    origin = protocol.real_origin or "real"
    for network in networks:
        fake, logits = made_of[network.name]
        sizes, real, real_label, said = f"fake {shown(shape)}", (), None, ""
        if NEED_REALS & set(network.scores):
            real, real_label, size, said = real_features(network, real_batches, origin=origin, limit=reals, cache=cache)
            sizes = f"real {shown(size)}, {sizes}"
        resize = f"{sizes} -> {network.size} {network.resize}"
        own = base.replace(network=network.name, weights=network.sha256, resize=resize)
        own = own.replace(real_number=len(real), real_content=said)
        out |= distribution(network, real, fake, logits, own, splits=splits, subsets=subsets, k=k, seed=seed)
        if "classes" in network.scores:
            out |= head_said(network, logits, label, classes, own)
        if "labels" not in network.scores or label is None:
            continue
        bank, bank_label, among = real, real_label, {"origin": origin, "content": said}
        if bank_batches is not None:
            among["origin"] = bank_origin or "bank"
            bank, bank_label, _, among["content"] = real_features(network, bank_batches, origin=among["origin"], cache=cache)
        if bank_label is not None:
            out |= labels_said(network, fake, label, bank, bank_label, own, **among)
            if bank_batches is not None and real_label is not None:  # the same question to real pictures: the ceiling
                twin = own.replace(fake_origin=origin, fake_content=said)
                out |= labels_said(network, real, real_label, bank, bank_label, twin, prefix="real_", **among)
    looking = [network for network in networks if "diversity" in network.scores and network.maps]
    if varied is not None and looking:
        batches, number = varied
        out |= variety(looking, made(generate, batches, number, seed), base)
    return out
