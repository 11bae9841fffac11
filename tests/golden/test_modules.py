"""Networks against the published PyTorch codes: outputs, gradients, running averages, through the converters alone."""

import dataclasses
import functools
import json
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from golden import families, galip, onestage, stacked, towers, unimodal
from golden.cases import read_cases
from golden.nets import flat, summary
from supcon_jax.convert import rename, tensors

NETS = {**galip.NETS, **onestage.NETS, **stacked.NETS, **towers.NETS, **unimodal.NETS}


@functools.cache
def compiled(module, run, summed, train, graded):
    """(objective, (outputs, state)) of a network, with gradients by parameters and inputs if the file has some."""

    def objective(params, moving, rest, still):
        outputs, state = run(module, {"params": params, **rest}, moving | still, train)
        return sum(jnp.square(outputs[n]).mean() for n in summed), (outputs, state)

    return jax.jit(jax.value_and_grad(objective, (0, 1), has_aux=True) if graded else objective)


def output_names(expected):
    """Names of the outputs that one mode of a file holds, samples counted under the whole array's name."""
    heads = {name.removesuffix("_shape") for name in expected if name.endswith("_shape")}
    derived = {f"{head}_{tail}" for head in heads for tail in ("s2", "s4", "s8", "stats", "shape")}
    plain = {n for n in expected if n not in derived and not n.startswith("after/") and n != "objective"}
    return tuple(sorted(n for n in plain | heads if not n.startswith("grad_")))


class Tolerance(NamedTuple):
    rtol: float    # outputs
    atol: float
    grad: float    # gradients, relative to the largest entry
    scalar: float
    stored: float  # outputs and gradients that the file holds in float32


SINGLE = Tolerance(1e-4, 1e-5, 1e-3, 1e-3, 1e-4)
DOUBLE = Tolerance(1e-7, 1e-10, 1e-7, 1e-7, 1e-6)
ROUNDED = Tolerance(1e-6, 1e-7, 1e-5, 1e-6, 1e-6)

# How far float32 may move the gradients through Inception's trunk. Of 1.1 million values before a ReLU about two lie
# so near to zero that float32's rounding puts them on the other side, not the same ones on each version of XLA; at a
# sixteenth of the width one of them moves a norm by a per cent. Float64 moves as far when the weights change by 6e-8 of
# themselves, and has float32's gradients to 3e-5 when made to take its sides. So float64 judges these gradients, and
# float32 is held to about twice the most that such changes did (in brackets).
FLIPS_NORM = 5e-2    # each parameter's norm, of the largest one (2.1e-2)
FLIPS_MEDIAN = 1e-2  # the median parameter's norm, of itself (4.2e-3)
FLIPS_ENTRY = 2e-2   # entries of one parameter's gradient, of its largest (9.7e-3)
FLIPS_MEAN = 4e-3    # mean over the picture, of the largest entry / sqrt(entries) (1.5e-3)
HEADS = ("params/regions/", "params/code/")  # no ReLU between them and the outputs: float32 keeps their gradients


def compare(got, expected, name, tol, gradient=False, of_largest=False):
    """One array, whole or as the file samples it (every k-th entry of the last two axes, and four numbers of all)."""
    got = np.asarray(got)
    found = False
    for key, a in expected.items():
        if key == name or key in (f"{name}_s2", f"{name}_s4", f"{name}_s8"):
            step = 1 if key == name else int(key[-1])
            mine = got if step == 1 else got[..., ::step, ::step]
        elif key == f"{name}_stats":
            mine = summary(got.astype(np.float64))
        elif key == f"{name}_shape":
            assert got.shape == tuple(a), key
            continue
        else:
            continue
        found = True
        assert mine.shape == a.shape, key
        stored = a.dtype == np.float32 and tol is not SINGLE
        if gradient:
            scale = np.abs(a).max()
            rtol, atol = 0, (tol.stored if stored else tol.grad) * scale + min(1e-6, tol.atol)
        else:
            rtol = tol.stored if stored else tol.rtol if np.ndim(a) else tol.scalar
            atol = max(tol.atol, rtol * np.abs(a).max()) if of_largest else tol.atol if np.ndim(a) else 0
        np.testing.assert_allclose(mine, a, rtol=rtol, atol=atol, err_msg=key)
    assert found, f"the file has no {name}"


def compare_loosely(got, expected, name, tol):
    """A gradient that ties may move between neighbours: its sum stays, its norm about."""
    got = np.asarray(got, np.float64)
    shape, stats = ((expected[name].shape, summary(expected[name])) if name in expected
                    else (tuple(expected[f"{name}_shape"]), expected[f"{name}_stats"]))
    mean, _, largest, norm = stats
    atol = (FLIPS_MEAN if tol is SINGLE else tol.grad) * largest / np.sqrt(got.size)
    np.testing.assert_allclose(got.mean(), mean, rtol=tol.grad, atol=atol, err_msg=name)
    np.testing.assert_allclose(np.linalg.norm(got), norm, rtol=0.1, err_msg=name)
    assert got.shape == shape


def leaf(tree, path):
    for part in path.split("/"):
        tree = tree[part]
    return tree


def check_mode(net, variables, arrays, mode, tol, held, graded):
    expected = {k.removeprefix(f"{mode}/"): a for k, a in arrays.items() if k.startswith(f"{mode}/")}
    inputs = {k.removeprefix("in/"): a for k, a in arrays.items() if k.startswith("in/")}
    names = output_names(expected)
    graded = graded and "grad_names" in expected
    moving = {k for k in inputs if any(e == f"grad_{k}" or e.startswith(f"grad_{k}_") for e in expected)}
    summed = (net.objective,) if net.objective in names else tuple(n for n in names if n.startswith(net.objective))
    fn = compiled(net.module, net.run, summed, mode == "train", graded)
    width = np.float64 if tol is not SINGLE else np.float32
    cast = {k: a.astype(width) if a.dtype.kind == "f" else a.astype(np.int32) if a.dtype.kind == "i" else a
            for k, a in inputs.items()}
    still = {k: a for k, a in cast.items() if k not in moving}
    with jax.default_matmul_precision("highest"):
        rest = {"batch_stats": {}} | {k: v for k, v in variables.items() if k != "params"}
        out = fn(variables["params"], {k: cast[k] for k in moving}, rest, still)
    (value, (outputs, state)), grads = out if graded else (out, None)
    close = tol._replace(atol=max(tol.atol, net.atol)) if tol is SINGLE else tol
    for name in names:
        compare(outputs[name], expected, name, close, of_largest=net.deep and tol is SINGLE)
    after = {name.removeprefix("after/"): a for name, a in expected.items() if name.startswith("after/")}
    for name, a in net.fold({**held, **after}).items():
        if name in after:
            path, layout = rename.place(name, net.table)
            stats, _, inner = path.partition("/")
            np.testing.assert_allclose(leaf(state[stats], inner), layout(a), tol.rtol, tol.atol, err_msg=name)
    if "objective" in expected:
        np.testing.assert_allclose(value, expected["objective"], rtol=tol.scalar, err_msg="objective")
    if graded:
        for name in moving:
            if net.deep and flat(inputs[name]) and (tol is SINGLE or f"grad_{name}" not in expected):
                compare_loosely(grads[1][name], expected, f"grad_{name}", tol)
            else:
                compare(grads[1][name], expected, f"grad_{name}", tol, gradient=True)
        check_parameters(net.table, grads[0], expected, tol, net.deep and tol is SINGLE)


def check_parameters(table, grads, expected, tol, flips):
    """Every parameter's gradient by its norm, one in full; where values flip, as FLIPS_* say."""
    placed = {name: rename.place(name, table) for name in expected["grad_names"].tolist()}
    mine = {name: [leaf(grads, p.removeprefix("params/")) for p in ([path] if isinstance(path, str) else path)]
            for name, (path, _) in placed.items()}
    norms = np.array([np.sqrt(sum(np.square(part).sum() for part in parts)) for parts in mine.values()])
    theirs = expected["grad_norms"]
    for (name, (path, _)), a, b in zip(placed.items(), norms, theirs, strict=True):
        loose = flips and not str(path).startswith(HEADS)
        rtol, atol = (0, FLIPS_NORM) if loose else (tol.grad, 1e-3 * tol.grad)
        np.testing.assert_allclose(a, b, rtol, atol * theirs.max(), err_msg=name)
    assert not flips or np.median(np.abs(norms / theirs - 1)) < FLIPS_MEDIAN
    assert sum(map(len, mine.values())) == len(jax.tree.leaves(grads)), "a parameter without a reference gradient"
    one = str(expected["grad_param_name"])
    tol = tol._replace(grad=FLIPS_ENTRY) if flips else tol
    for part, (_, a) in zip(mine[one], rename.pieces(*placed[one], expected["grad_param"]), strict=True):
        compare(part, {"grad_param": a}, "grad_param", tol, gradient=True)


def modes_of(case):
    with np.load(case.folder / case.file) as data:
        return [m for m in ("eval", "train") if any(name.startswith(f"{m}/") for name in data.files)]


def check(case, bits, graded=True, modes=None):
    """The modes given, or else all that the file has."""
    arrays = case.arrays()
    config = json.loads(str(arrays["config"]))
    net, like = network(case.file, ruled(case, arrays, bits))
    modes = modes_of(case) if modes is None else modes
    assert modes and config
    with jax.enable_x64(bits == 64):
        tol, kind = (ROUNDED if net.rounded else DOUBLE, jnp.float64) if bits == 64 else (SINGLE, jnp.float32)
        held = tensors.read(case.weights)
        variables = rename.load(net.fold(held), net.table, jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, kind), like))
        for mode in modes:
            check_mode(net, variables, arrays, mode, tol, held, graded)


@pytest.mark.golden(*sorted(families.LIGHT))
def test_module(case):
    check(case, 64)


@pytest.mark.golden(*sorted(families.QUICK))
def test_outputs_of_deep_ones(case):
    """Training in float64; evaluation in float32 where the file has both, as convolutions in float64 are slow."""
    check_outputs(case)


@pytest.mark.golden("fid_inception_w16", "simsiam_resnet18_w16", kept="slow")  # the first file has outputs alone
def test_outputs_of_other_deep_ones(case):
    check_outputs(case)


def check_outputs(case):
    *single, double = modes_of(case)
    check(case, 64, graded=False, modes=[double])
    if single:
        check(case, 32, graded=False, modes=single)


@pytest.mark.golden(*sorted(families.DEEP - {"fid_inception_w16"}), kept="slow")
def test_deep_module(case):
    check(case, 64)


@pytest.mark.golden(*sorted(families.TOKENS))
def test_outputs_in_single_precision(case):
    check(case, 32, graded=False, modes=["eval"])


@pytest.mark.golden(*sorted(families.BY_HAND), kept="long")
def test_module_by_hand(case):
    check(case, 64)


@pytest.mark.golden(*sorted(families.MODULES), kept="long")
def test_module_in_single_precision(case):
    check(case, 32)


def ruled(case, arrays, bits):
    """The case with a rule for padding. Captions without any must give their numbers by either: each precision takes one."""
    padded = arrays.get("in/mask", np.zeros(())).any()
    return dataclasses.replace(case, entry={"mask": "compat" if bits == 64 and not padded else "correct"} | case.entry)


NETWORKS = {}


def network(file, case):
    """The same (Net, its variables in shape) for the same file, so that its compiled functions are found again."""
    key = case.folder, file, case.entry["mask"]
    if key not in NETWORKS:
        arrays = case.arrays()
        net = NETS[case.family](case, json.loads(str(arrays["config"])), arrays)
        NETWORKS[key] = net, shapes(net, arrays)
    return NETWORKS[key]


def shapes(net, arrays):
    """What the network's variables look like: `init` traced on the file's inputs, through the same run function."""
    inputs = {k.removeprefix("in/"): a for k, a in arrays.items() if k.startswith("in/")}

    class Initial:
        def apply(self, _, *args, mutable=None, **options):
            found.append(jax.eval_shape(lambda key: net.module.init(key, *args, **options), jax.random.key(0)))
            raise StopIteration

    found = []
    with pytest.raises(StopIteration):
        jax.eval_shape(lambda x: net.run(Initial(), None, x, False), inputs)
    return found[0]


def test_every_family_has_its_test(request):
    cases = read_cases(request.config.getoption("--fixtures") or request.path.parent)
    assert cases, "a directory without a case"
    unknown = sorted({case.family for case in cases} - families.KNOWN)
    assert not unknown, f"no test for {unknown}: write one, or enter them in families.py"
    assert set(NETS) == families.MODULES
