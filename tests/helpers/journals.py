"""Journals of searches, read and compared."""

from blockqnn.search.journal import whole_records


def read_journal(path):
    """The whole records of a journal and the number of bytes they take."""
    pairs = list(whole_records(path))
    return [record for record, _ in pairs], pairs[-1][1] if pairs else 0


def without_workers(records):
    """Records without the settings of workers, in which the two searches differ."""
    first = dict(records[0])
    settings = {key: value for key, value in first["settings"].items() if key != "workers"}
    first.update(settings=settings, crc=None)
    return [first, *records[1:]]
