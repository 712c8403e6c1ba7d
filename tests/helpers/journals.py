"""Journals of two searches, compared."""


def without_workers(records):
    """Records without the settings of workers, in which the two searches differ."""
    first = dict(records[0])
    settings = {key: value for key, value in first["settings"].items() if key != "workers"}
    first.update(settings=settings, crc=None)
    return [first, *records[1:]]
