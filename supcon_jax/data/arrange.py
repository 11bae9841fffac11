"""Bring the files of a published set, as a user has them in archives or folders, to the places that a reader knows."""

import pathlib
import tempfile
from collections import Counter

from supcon_jax.data.unpack import ENDINGS, members, sha256, write


def bring(source, target, rules, kind, say, published=None):
    """Copies every file that has a place, from folders and archives (also inside archives); what is there already with
    the same size is left.

    source, target: folders. rules: [(regular expression for the end of a path, its place in target)], the first counts.
    kind: path in target -> the word it is counted under. say: called with lines of what was found and laid out.
    published: {archive's name: its sha256}, to say whether that one is the published file.
    Raises UserError: an archive is damaged or leads out of its folder.
    """
    source, target, counts = pathlib.Path(source), pathlib.Path(target), Counter()

    def archive(path, depth=0):
        for name, opened in members(path, lenient=True):
            if name.endswith(ENDINGS) and depth < 2:
                with tempfile.TemporaryDirectory(prefix="unpack-") as scratch:
                    inner = pathlib.Path(scratch) / name.rsplit("/", 1)[-1]
                    write(opened, inner)
                    say(f"[found]    {name} inside {path.name}")
                    archive(inner, depth + 1)
            else:
                copy(name, None, opened)

    def copy(name, size, opened):
        if "__MACOSX" in name or name.rsplit("/", 1)[-1].startswith("."):
            return
        places = [match.expand(place) for rule, place in rules if (match := rule.search(name))]
        if not places:
            return
        path = target / places[0]
        there = path.exists() and size in (None, path.stat().st_size)
        if not there:
            write(opened, path)
        counts[kind(path), not there] += 1

    inside = target.resolve()
    for path in sorted(source.rglob("*")):
        if not path.is_file() or inside in path.resolve().parents:
            continue
        if path.name.endswith(ENDINGS):
            known = ""
            if path.name in (published or {}):
                same = sha256(path) == published[path.name]
                known = ", sha256 as published" if same else ", NOT the published file (sha256 differs)"
            say(f"[found]    {path.relative_to(source)}{known}")
            archive(path)
        else:
            copy(path.relative_to(source.parent).as_posix(), path.stat().st_size, lambda path=path: path.open("rb"))
    for what in sorted({what for what, _ in counts}):
        say(f"[laid out] {what}: {counts[what, True]} new, {counts[what, False]} already there")
