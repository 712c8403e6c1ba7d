"""What classes are called for people, by ImageNet's own list."""

from evaluation.class_names import readable_classes


def test_numbers_of_wordnet_are_words():
    assert readable_classes(["n01440764", "n02102040", "cat"]) == [
        "tench",
        "English springer",
        "cat",
    ]


def test_classes_that_are_called_the_same_stay_apart():
    cranes = ["n02012849", "n03126707"]  # a bird and a machine
    assert readable_classes(cranes) == ["crane (n02012849)", "crane (n03126707)"]
    assert readable_classes(["n03710637", "n03710721"]) == ["maillot", "maillot, tank suit"]


def test_what_is_no_such_number_stays_as_it_is():
    assert readable_classes(["dogs", "n1", "3"]) == ["dogs", "n1", "3"]
    assert readable_classes(["n99999999"]) == ["n99999999"]
