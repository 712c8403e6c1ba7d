"""The published numbers, as printed."""

import csv
from pathlib import Path

import pytest

import evaluation
from evaluation.published import published, published_on


def by_name(data, classes):
    return {row.network: row for row in published_on(data, classes)}


def test_the_papers_own_results():
    c10, c100 = by_name("cifar10", 10), by_name("cifar100", 100)
    for name, error10, error100, depth, parameters in [
        ("Block-QNN-A, N=4", 3.60, 18.64, 25, None),
        ("Block-QNN-B, N=4", 3.80, 18.72, 37, None),
        ("Block-QNN-S, N=2", 4.38, 20.65, 19, 6_100_000),
        ("Block-QNN-S, more filters", 3.54, 18.06, 22, 39_800_000),
    ]:
        for row, error in ((c10[name], error10), (c100[name], error100)):
            assert (row.error, row.depth, row.parameters) == (error, depth, parameters)
    assert c10["Block-QNN-S, more filters"].gpu_days == 32 * 3
    assert c10["NAS v3, more filters"].gpu_days == 800 * 28
    assert c10["MetaQNN (top model)"].gpu_days == 10 * 10
    assert c10["BlockQNN (journal version)"].error == 2.35
    imagenet = by_name("imagenet", 1000)
    assert (imagenet["Block-QNN-B, N=3"].error, imagenet["Block-QNN-B, N=3"].top5_error) == (
        24.3,
        7.40,
    )
    assert (imagenet["Block-QNN-S, N=3"].error, imagenet["Block-QNN-S, N=3"].top5_error) == (
        22.6,
        6.46,
    )
    journal = imagenet["BlockQNN (journal version)"]
    assert (100 - journal.error, 100 - (journal.top5_error or 0)) == (82.0, 96.0)


def test_later_comparators_keep_their_spread():
    rows = by_name("cifar10", 10)
    found = [
        (rows[name].error, rows[name].error_std, rows[name].gpu_days)
        for name in ("DARTS (second order)", "Hierarchical", "AmoebaNet-A")
    ]
    assert found == [(2.76, 0.09, 4), (3.75, 0.12, 300), (3.34, 0.06, 3150)]


def test_every_number_has_its_source_and_can_be_one():
    for row in published():
        assert row.source and row.place
        assert 2 < row.error < 30
        assert row.top5_error is None or row.top5_error < row.error
        assert (row.top5_error is None) == (row.data != "imagenet")
    assert len({(r.data, r.network, r.depth) for r in published()}) == len(published()) == 52


@pytest.mark.parametrize(("name", "classes"), [("digits", 10), ("imagenet", 10), ("cifar10", 2)])
def test_other_data_has_none(name, classes):
    assert published_on(name, classes) == ()


def test_the_file_is_a_whole_table():
    path = Path(evaluation.__file__).parent / "published.csv"
    with path.open(newline="", encoding="utf-8") as file:
        assert all(None not in row and None not in row.values() for row in csv.DictReader(file))
