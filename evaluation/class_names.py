"""What classes are called for people: those of ImageNet are numbers of WordNet by themselves."""

import re
from collections import Counter
from collections.abc import Sequence

WORDNET = re.compile(r"n\d{8}")
"""A number of WordNet, such as n01440764."""


def readable_classes(names: Sequence[str]) -> list[str]:
    """The names of classes, with words for numbers of WordNet: `n01440764` is a tench.

    Of several words the first; all of them, and the number if need be, where two classes would be
    called the same. What is no such number, or one that ImageNet has not, stays as it is.
    """
    if not any(WORDNET.fullmatch(name) for name in names):
        return list(names)
    from timm.data import ImageNetInfo  # timm takes a second to import

    known = ImageNetInfo("imagenet-21k")
    numbers = set(known.label_names())
    words = [known.label_name_to_description(name) if name in numbers else name for name in names]
    short = [each.partition(",")[0] for each in words]
    several, all_of = Counter(short), Counter(words)
    found = []
    for name, one, whole in zip(names, short, words, strict=True):
        differs = whole if all_of[whole] == 1 else f"{whole} ({name})"
        found.append(one if several[one] == 1 else differs)
    return found
