"""Two streams of batches as one: what is learned from, and the labelled pictures that a probe reads beside it."""

from supcon_jax.config import UserError
from supcon_jax.data.fields import IMAGE, LABEL, PROBE_IMAGE, PROBE_LABEL


class Paired:
    """Batches of one set that also carry the pictures and labels of another one; an iterator like source.Batches.

    own, probe: source.Batches of the same batch size. Each keeps its own order and its own place.
    """

    def __init__(self, own, probe):
        self._own, self._probe, self.unknown = own, probe, own.unknown

    def __iter__(self):
        return self

    def __next__(self):
        batch, probe = next(self._own), next(self._probe)
        return {**batch, PROBE_IMAGE: probe[IMAGE], PROBE_LABEL: probe[LABEL]}

    def state(self):
        """Both places, as one dict for JSON."""
        return {**self._own.state(), "probe": self._probe.state()}

    def restore(self, state):
        """Go to a saved place. Raises UserError: it belongs to other data, or was saved without a probe's set."""
        if "probe" not in state:
            raise UserError("the saved place in the data has none in data.probe: go on with the data that the run began with")
        self._own.restore(state)
        self._probe.restore(state["probe"])

    def close(self):
        """Stop the threads of both."""
        self._own.close()
        self._probe.close()
