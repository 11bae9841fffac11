"""What a notebook uses: api.load(workdir) -> .encode_image, .encode_text, .generate."""

from supcon_jax.build.model import Model, load, sample

__all__ = ["Model", "load", "sample"]
