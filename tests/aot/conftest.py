"""What is compiled for machines that are not here is compiled as users do."""

import jax
import pytest


@pytest.fixture(autouse=True)
def as_users_compile():
    """Memory and collectives are those of an optimised program, whatever the other tests are compiled with."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
