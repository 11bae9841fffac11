"""The peers of benchmarks/unimodal.py, in a Python of their own: lightly's training steps, and views of lightly and kornia.

It reads one JSON line for each request and answers with one: {"do": "step" | "views", ...} builds, {"do": "run", "steps": n}
takes n steps and tells their seconds. Written against lightly 1.6, kornia 0.9 and torch 2.13; torchvision's transforms are
Python, its compiled operators are not needed.
"""

import copy
import importlib.metadata
import importlib.util
import json
import pathlib
import re
import sys
import time

import torch
from torch import nn
from torch.nn import functional as F


def declare_operators():
    """Names torchvision's operators where its library, built for CUDA, does not load beside a torch without it: their
    Python side registers itself at import and fails otherwise. None of them is called here."""
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        root = pathlib.Path(importlib.util.find_spec("torchvision").origin).parent
        source = "".join(file.read_text() for file in root.rglob("*.py"))
        kept = torch.library.Library("torchvision", "FRAGMENT")
        for name in set(re.findall(r'register_(?:meta|fake)\("(?:torchvision::)?(\w+)"', source)):
            kept.define(f"{name}(Tensor x) -> Tensor")
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        return kept


KEPT = declare_operators()  # it forgets the names with the object

# ---- networks


class Block(nn.Module):
    """relu(x + two 3 x 3 convolutions)."""

    def __init__(self, inputs, width, stride):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.norm2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.short = nn.Identity()
        if stride > 1 or inputs != width:
            self.short = nn.Sequential(nn.Conv2d(inputs, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x):
        h = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)), inplace=True)))
        return F.relu(h + self.short(x), inplace=True)


def resnet18():
    """With the stem of small pictures: one 3 x 3 convolution."""
    layers, inputs = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True)], 64
    for width in (64, 128, 256, 512):
        for stride in (1 if width == 64 else 2, 1):
            layers.append(Block(inputs, width, stride))
            inputs = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), 512


def conv_trunk(width=32, depth=3):
    layers, inputs = [], 3
    for i in range(depth):
        out = width * 2**i
        layers += [nn.Conv2d(inputs, out, 3, 2, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU(inplace=True)]
        inputs = out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), inputs


# ---- steps: each is given two views and gives the loss


def supcon_loss(z, label, temperature):
    """Khosla et al. 2020, arXiv 2004.11362, eq. 2, which lightly lacks. z: rows of unit length."""
    s = (z @ z.T / temperature).masked_fill(torch.eye(len(z), dtype=torch.bool), -torch.inf)
    same = (label[:, None] == label[None]).fill_diagonal_(False)
    log_p = torch.log_softmax(s, 1).masked_fill(~same, 0.0)
    return -(log_p.sum(1) / same.sum(1)).mean()


class Method(nn.Module):
    """The encoder with the heads of a method. about: "net", "method", "args" and "nets" as our config has them."""

    def __init__(self, about):
        from lightly import loss as losses
        from lightly.models import modules
        from lightly.models.modules.heads import ProjectionHead

        super().__init__()
        self.kind, args = about["method"], about["args"]
        self.trunk, f = {"resnet18": resnet18, "conv": conv_trunk}[about["net"]]()
        own, last = ({"dim": 0, "hidden": 0} | about["nets"].get(name, {}) for name in ("project", "predict"))
        dim, hidden, temperature = own["dim"], own["hidden"] or f, args.get("temperature")

        def mlp(*widths, biases, last=None):
            """Linear layers with norm and ReLU between them, for heads that lightly has in another size alone."""
            ends = list(zip(widths, widths[1:], biases))
            blocks = [(a, b, nn.BatchNorm1d(b), nn.ReLU(), bias) for a, b, bias in ends[:-1]]
            return ProjectionHead([*blocks, (*ends[-1][:2], last, None, ends[-1][2])])

        if self.kind in ("simclr", "dcl"):
            self.project = modules.SimCLRProjectionHead(f, hidden, dim)
            self.loss = (losses.DCLLoss if self.kind == "dcl" else losses.NTXentLoss)(temperature=temperature)
        elif self.kind == "supcon":
            self.project, self.temperature = modules.MoCoProjectionHead(f, hidden, dim), temperature
        elif self.kind == "moco_v2":
            self.project = modules.MoCoProjectionHead(f, hidden, dim)
            self.loss = losses.NTXentLoss(temperature=temperature, memory_bank_size=(args["queue"], dim))
        elif self.kind == "byol":
            self.project = modules.BYOLProjectionHead(f, hidden, dim)
            self.predict = modules.BYOLPredictionHead(dim, last["hidden"], dim)
            self.loss = losses.NegativeCosineSimilarity()
        elif self.kind == "simsiam":
            self.project = mlp(f, hidden, dim, biases=(False, False), last=nn.BatchNorm1d(dim, affine=False))
            self.predict = modules.SimSiamPredictionHead(dim, last["hidden"], dim)
            self.loss = losses.NegativeCosineSimilarity()
        elif self.kind == "swav":
            self.project = modules.SwaVProjectionHead(f, hidden, dim)
            self.prototypes = modules.SwaVPrototypes(dim, args["prototypes"])
            self.loss = losses.SwaVLoss(temperature, args["rounds"], args["eps"])
        elif self.kind == "barlow":
            self.project = modules.BarlowTwinsProjectionHead(f, hidden, dim)
            self.loss = losses.BarlowTwinsLoss(lambda_param=args["off"])
        else:
            self.project = mlp(f, hidden, hidden, dim, biases=(True, True, False))
            self.loss = losses.VICRegLoss(args["invariance"], args["variance"], args["covariance"])
        self.momentum, self.teacher = args.get("momentum"), None
        if self.kind in ("moco_v2", "byol"):
            self.teacher = copy.deepcopy(nn.ModuleList([self.trunk, self.project])).requires_grad_(False)

    def code(self, x):
        return self.project(self.trunk(x))

    @torch.no_grad()
    def target(self, x):
        return self.teacher[1](self.teacher[0](x))

    def follow(self):
        """The teacher moves before the forward pass, as in lightly's examples."""
        from lightly.models.utils import update_momentum

        for own, other in zip((self.trunk, self.project), self.teacher):
            update_momentum(own, other, self.momentum)

    def forward(self, a, b, label):
        from lightly.models.utils import batch_shuffle, batch_unshuffle

        if self.teacher is not None:
            self.follow()
        if self.kind == "moco_v2":
            mixed, order = batch_shuffle(b)
            return self.loss(self.code(a), batch_unshuffle(self.target(mixed), order))
        if self.kind == "byol":
            one, two = self.predict(self.code(a)), self.predict(self.code(b))
            return (self.loss(one, self.target(b)) + self.loss(two, self.target(a))) / 2
        one, two = self.code(a), self.code(b)
        if self.kind == "simsiam":
            return (self.loss(self.predict(one), two.detach()) + self.loss(self.predict(two), one.detach())) / 2
        if self.kind == "swav":
            self.prototypes.normalize()
            return self.loss([self.prototypes(F.normalize(z)) for z in (one, two)], []).sum()
        if self.kind == "supcon":
            return supcon_loss(F.normalize(torch.cat([one, two])), label.repeat(2), self.temperature)
        return self.loss(one, two)


def stepper(about):
    """(a function of a count that takes so many training steps, what there is to tell)."""
    method = Method(about).train()
    learned = [p for p in method.parameters() if p.requires_grad]
    options = about["optim"]
    tx = torch.optim.SGD(learned, options["lr"], options["momentum"], weight_decay=options["weight_decay"])
    layout = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}[about["layout"]]
    method = method.to(memory_format=layout)
    n, size = about["batch"], about["size"]
    views = [torch.randn(n, 3, size, size).contiguous(memory_format=layout) for _ in range(2)]
    label = torch.tensor(about["label"])

    def run(steps):
        for _ in range(steps):
            tx.zero_grad()
            value = method(*views, label)
            value.backward()
            tx.step()
        return value.item()

    return run, {"parameters": sum(p.numel() for p in learned)}


# ---- views


def kornia_views(about):
    """Our recipe in kornia's operations, on whole batches; each view of the recipe is one pipeline."""
    from kornia import augmentation as K

    def one(view):
        low, high = view["sigma"]
        steps = [
            K.RandomResizedCrop((about["size"],) * 2, tuple(view["scale"]), tuple(view["ratio"]),
                                resample={"cubic": "bicubic", "linear": "bilinear"}[view["kernel"]]),
            K.RandomHorizontalFlip(p=view["flip"]),
            K.ColorJitter(*view["jitter"], p=view["jitter_p"]),
            K.RandomGrayscale(p=view["gray"]),
            K.RandomGaussianBlur((view["taps"],) * 2, (low, high), p=view["blur"]),
        ]  # fmt: skip
        if view["solarize"]:
            steps.append(K.RandomSolarize(thresholds=0.0, additions=0.0, p=view["solarize"]))
        mean, deviation = (torch.tensor(x) for x in about["norm"])
        return nn.Sequential(*steps, K.Normalize(mean, deviation))

    pipelines = [one(view) for view in about["views"]]
    images = torch.randint(0, 256, (about["batch"], 3, about["side"], about["side"]), dtype=torch.uint8)

    def run(steps):
        with torch.no_grad():
            for _ in range(steps):
                out = [pipeline(images.float() / 255) for pipeline in pipelines]
        return float(out[0].mean())

    return run, {}


class Pictures(torch.utils.data.Dataset):
    """Views of random Pillow pictures, as lightly's data sets give them."""

    def __init__(self, change, side, count):
        from PIL import Image

        drawn = torch.randint(0, 256, (64, side, side, 3), dtype=torch.uint8).numpy()
        self.change, self.count, self.images = change, count, [Image.fromarray(x) for x in drawn]

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        return self.change(self.images[i % len(self.images)])


def lightly_views(about):
    """lightly's own transform of the method, torchvision on Pillow pictures, one by one in a worker process for each core."""
    from lightly import transforms as T

    size = about["size"]
    change = {
        "simclr": lambda: T.SimCLRTransform(input_size=size),
        "moco_v2": lambda: T.MoCoV2Transform(input_size=size),
        "byol": lambda: T.BYOLTransform(T.BYOLView1Transform(input_size=size), T.BYOLView2Transform(input_size=size)),
    }[about["recipe"]]()
    loaders = {}

    def run(steps):
        if steps not in loaders:
            data = Pictures(change, about["side"], about["batch"] * steps)
            loaders[steps] = torch.utils.data.DataLoader(data, about["batch"], num_workers=2, persistent_workers=True)
        return [float(out[0][0, 0, 0, 0]) for out in loaders[steps]][-1]

    return run, {}


MADE = {"step": stepper, "kornia": kornia_views, "lightly": lightly_views}


def version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def main():
    torch.set_num_threads(int(sys.argv[1]))
    torch.manual_seed(0)
    run = None
    for line in sys.stdin:
        said = json.loads(line)
        if said["do"] == "run":
            began = time.perf_counter()
            value = run(said["steps"])
            answer = {"seconds": time.perf_counter() - began, "value": value}
        elif said["do"] == "versions":
            answer = {name: version(name) for name in ("torch", "torchvision", "lightly", "kornia")}
        else:
            run, answer = MADE[said["do"]](said)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
