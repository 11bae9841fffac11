"""What a study file says, and the plain config of each of its runs. The keys of a study are told in supcon_jax.study."""

from __future__ import annotations

import importlib.util

from etils import epath

from supcon_jax import config as configs
from supcon_jax.config import UserError
from supcon_jax.report import comparison

NEEDED = {"config", "stage", "seeds", "variants", "metrics", "reference"}
KEYS = NEEDED | {"title", "all", "axis", "axis_title", "grid", "against", "prompts", "lenient"}
ENDS = ("first", "last")  # at the beginning of a key or metric: that stage of the variant


def load(path: str, config: str | None = None) -> dict:
    """A study file: get_study() gives plain data, see above.

    config: takes the place of the study's own. The scored stage is then its last one if it has none of that name, metrics
    that it does not measure are left out, and so are the prompts.
    Raises UserError: no such file, another kind of file, a key is missing or unknown, the reference is no variant.
    """
    file = configs.find(path)
    if file.suffix != ".py":
        raise UserError(f"{file} is no study: a Python file with get_study() is; copy one of configs/studies")
    spec = importlib.util.spec_from_file_location(f"supcon_jax_study_{file.stem}", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_study"):
        raise UserError(f"{file} is no study: it has no get_study(); copy one of configs/studies")
    study = module.get_study()
    if missing := NEEDED - set(study):
        raise UserError(f"{path}: the study lacks {', '.join(sorted(missing))}")
    if unknown := set(study) - KEYS:
        raise UserError(f"{path}: {', '.join(sorted(unknown))} is no key of a study; it may have {', '.join(sorted(KEYS))}")
    if study["reference"] not in study["variants"]:
        raise UserError(f"{path}: reference={study['reference']!r} must be one of the variants {', '.join(study['variants'])}")
    placed = {"axis": {v for places in comparison.axis(study).values() for v in places}, "grid": set(study.get("grid", {}))}
    for what, names in placed.items():
        if extra := names - set(study["variants"]):
            known = ", ".join(study["variants"])
            raise UserError(f"{path}: {what} names {', '.join(sorted(extra))}, and the variants are {known}")
    study = study | ({"config": config, "lenient": True, "prompts": []} if config else {})
    return settled(study)


def settled(study: dict) -> dict:
    """The study with the stages' own names for "first", "last" and a stage that another config calls otherwise.

    Where it scores each variant's own last stage, its metrics keep "first:" and none.
    """
    own = study["stage"] == comparison.LAST
    whole = {} if own else ends(study, configs.load(worded(study, {})).stages)
    changes = {
        v: keyed(c, ends(study, configs.load(worded(study, c)).stages) if own else whole) for v, c in study["variants"].items()
    }
    return study | {
        "stage": comparison.LAST if own else whole["last"], "variants": changes, "all": keyed(study.get("all", {}), whole),
        "metrics": [named(metric, ":", whole) for metric in study["metrics"]],
        "against": [tuple(named(metric, ":", whole) for metric in pair) for pair in study.get("against", ())],
    }  # fmt: skip


def ends(study: dict, stages: tuple[str, ...]) -> dict[str, str]:
    """The first stage of those that a variant runs and the one that is scored, {"first": name, "last": name}.

    Raises UserError: the study's stage is not run.
    """
    own = study["stage"] == comparison.LAST or study.get("lenient") and study["stage"] not in stages
    last = stages[-1] if own else study["stage"]
    if last not in stages:
        raise UserError(f"study: stage {last!r} is not among those run: {', '.join(stages)}")
    return dict(zip(ENDS, (stages[0], last), strict=True))


def named(word: str, mark: str, stages: dict) -> str:
    """A key or metric with a stage's own name before the mark. stages: {"first": name, "last": name}."""
    head, found, rest = word.partition(mark)
    return stages.get(head, head) + found + rest if found else word


def keyed(changes: dict, stages: dict) -> dict:
    return {named(key, ".", stages): value for key, value in changes.items()}


def worded(study: dict, changes: dict) -> str:
    """The config of a variant with the words that it adds."""
    more = {**study.get("all", {}), **changes}.get("words", "")
    return study["config"] + ("," if ":" in study["config"] else ":") * bool(more) + more


def configured(study: dict, variant: str, seed: int, workdir: epath.Path) -> dict:
    """The plain config of one run. Raises UserError: a key or value that the config does not have."""
    changes = study["variants"][variant]
    config = configs.load(worded(study, changes))
    shared = {"cache": workdir / "features", **study["all"]}  # the reals are measured once for all runs
    if study["stage"] == comparison.LAST:
        shared = keyed(shared, ends(study, config.stages))
    settings = {key: str(value) for key, value in {**shared, **changes, "seed": seed}.items() if key != "words"}
    return configs.plain(configs.override(config, settings))
