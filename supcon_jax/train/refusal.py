"""What the code of a task refuses while it is traced, as the one line that a user can act on."""

from __future__ import annotations

import contextlib
import pathlib
import traceback

from supcon_jax.config import UserError

PACKAGE = str(pathlib.Path(__file__).parent.parent)


@contextlib.contextmanager
def told(name: str):
    """Inside, what this package refuses becomes a UserError of the stage `name`, with the error as its cause.

    Nets, views and losses check what they are given where the values meet, which is while they are traced, and say in one line
    what does not fit. What JAX or flax raise tells a user nothing and may be a bug: it stays as it is, with its traceback.
    """
    try:
        yield
    except UserError:
        raise
    except ValueError as error:
        if not refused_here(error):
            raise
        raise UserError(f"config.{name}: {error}") from error


def refused_here(error: Exception) -> bool:
    """Whether a `raise` of this package raised the error. That the last frame is ours is not enough: JAX hides its own,
    and those of Python's built-in functions are never there."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return last.filename.startswith(PACKAGE) and (last.line or "").startswith("raise ")
