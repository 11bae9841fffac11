"""The word list of captions.pickle, which the loaders of AttnGAN and its descendants write beside their captions.

Encoders that were trained with it know words by its ids, which no other run of those loaders gives again. A pickle can
run any code: this reader admits lists, dictionaries, strings and numbers, and imports nothing that a file names.
"""

import pickle

from supcon_jax import storage
from supcon_jax.config import UserError


class Plain(pickle.Unpickler):
    """Unpickler that refuses every name of a class or function, and everything outside the file."""

    def find_class(self, module, name):
        raise UserError(f"it asks for {module}.{name}, and only lists, dictionaries, strings and numbers are read")

    def persistent_load(self, token):
        raise UserError("it refers to something outside itself, and only lists, dictionaries, strings and numbers are read")


def words(path) -> list[str]:
    """The words in the order of their ids, from [train captions, test captions, {id: word}, {word: id}].

    Raises UserError: a damaged file, one that asks for code, or one whose two tables do not say the same.
    """
    try:
        with storage.local(path) as file, open(file, "rb") as raw:
            tree = Plain(raw, encoding="latin1").load()  # files of Python 2 too
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except Exception as error:  # a damaged file fails anywhere in the pickle machine
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path} is damaged or no pickle ({reason}): fetch it again") from None
    if not (isinstance(tree, list | tuple) and len(tree) == 4 and all(isinstance(table, dict) for table in tree[2:])):
        raise UserError(f"{path} is no captions.pickle, which is a list of two lists of captions and two tables of words")
    by_id, by_word = tree[2:]
    if set(by_id) != set(range(len(by_id))) or not all(isinstance(word, str) for word in by_id.values()):
        raise UserError(f"{path}: its ids are not 0 to {len(by_id) - 1}, or a word is no string: fetch it again")
    found = [by_id[i] for i in range(len(by_id))]
    if by_word != {word: i for i, word in enumerate(found)}:
        raise UserError(f"{path}: its two tables of words contradict each other: fetch it again")
    return found
