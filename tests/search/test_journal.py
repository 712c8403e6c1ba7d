"""The journal: what was appended is there, what a crash tore is dropped, damage is refused."""

import json
import resource
import signal
import subprocess
import sys
import textwrap

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from journals import read_journal
from tiny_search import small_disk

from blockqnn.errors import SearchError
from blockqnn.search.journal import Journal, without_times

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, width=32)
)
FINITE = SCALARS.filter(lambda value: value not in (float("inf"), float("-inf")))
VALUES = st.recursive(
    FINITE,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
RECORDS = st.dictionaries(st.text().filter(lambda name: name != "crc"), VALUES, max_size=4)

FIRST = {"type": "begin", "settings": {"seed": 0}, "time": 1.5}
SECOND = {
    "type": "outcome",
    "number": 0,
    "outcome": {"seconds": 2.5, "reason": "größer"},
    "time": 2.5,
}
THIRD = [{"type": "proposal", "number": number, "time": 3.5} for number in range(3)]


def written(path, *appends):
    """A journal file of several appends; returns its bytes and where each append ended."""
    journal = Journal(path)
    ends = []
    for records in appends:
        journal.append(records)
        ends.append(path.stat().st_size)
    journal.close()
    return path.read_bytes(), ends


def reopened(path):
    records = []
    Journal(path, records.append).close()
    return records


def test_what_was_appended_is_read_back_in_order(tmp_path):
    path = tmp_path / "journal.jsonl"
    written(path, [FIRST], [SECOND], THIRD)
    assert reopened(path) == [FIRST, SECOND, *THIRD]
    assert read_journal(path) == ([FIRST, SECOND, *THIRD], path.stat().st_size)


@given(appends=st.lists(st.lists(RECORDS, max_size=3), max_size=4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_records_come_back(tmp_path, appends):
    path = tmp_path / "journal.jsonl"
    path.unlink(missing_ok=True)
    written(path, *appends)
    assert reopened(path) == [record for records in appends for record in records]


def test_a_new_journal_is_empty_and_on_disk(tmp_path):
    path = tmp_path / "journal.jsonl"
    assert reopened(path) == []
    assert path.read_bytes() == b""


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_json_does_not_know_is_refused_before_anything_is_written(tmp_path, value):
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    journal.append([FIRST])
    before = path.read_bytes()
    with pytest.raises(ValueError):
        journal.append([SECOND, {"reward": value}])
    assert path.read_bytes() == before
    journal.append([SECOND])
    journal.close()
    assert reopened(path) == [FIRST, SECOND]


def test_a_tail_torn_at_any_byte_is_dropped_kept_aside_and_can_be_appended_again(tmp_path):
    whole, ends = written(tmp_path / "whole.jsonl", [FIRST], [SECOND], THIRD)
    lines = whole.count(b"\n", 0, ends[1])
    path = tmp_path / "journal.jsonl"
    for cut in range(ends[1], ends[2]):
        path.write_bytes(whole[:cut])
        kept = whole[:cut].count(b"\n")  # whole lines of the torn append stay
        expected = [FIRST, SECOND, *THIRD][:kept]
        records, size = read_journal(path)
        assert records == expected
        assert path.read_bytes() == whole[:cut]  # reading changes nothing
        taken = []
        journal = Journal(path, taken.append)
        assert taken == expected
        assert path.stat().st_size == size
        if size < cut:
            assert path.with_suffix(".torn").read_bytes() == whole[size:cut]
        journal.append(THIRD[kept - lines :])
        journal.close()
        assert path.read_bytes() == whole


def test_the_first_record_torn_at_any_byte_leaves_an_empty_journal(tmp_path):
    whole, _ = written(tmp_path / "whole.jsonl", [FIRST])
    path = tmp_path / "journal.jsonl"
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        assert reopened(path) == []


@pytest.mark.parametrize("tail", [b"\0" * 300, b"\0" * 300 + b"\n", b"\xff\xfe", b"{}", b"\n"])
def test_what_a_power_loss_leaves_at_the_end_is_dropped(tmp_path, tail):
    path = tmp_path / "journal.jsonl"
    whole, _ = written(path, [FIRST], [SECOND])
    path.write_bytes(whole + tail)
    assert reopened(path) == [FIRST, SECOND]
    assert path.read_bytes() == whole


def refused(path, damaged):
    """Opening and reading a damaged journal: one sentence, twice the same, and nothing changed."""
    path.write_bytes(damaged)
    with pytest.raises(SearchError) as reading:
        read_journal(path)
    with pytest.raises(SearchError) as opening:
        Journal(path)
    assert path.read_bytes() == damaged
    assert not path.with_suffix(".torn").exists()
    assert str(reading.value) == str(opening.value)
    return str(reading.value)


def test_damage_in_the_middle_is_refused_at_every_byte_and_nothing_is_changed(tmp_path):
    path = tmp_path / "journal.jsonl"
    whole, ends = written(path, [FIRST], [SECOND], THIRD)
    records = [FIRST, SECOND, *THIRD]
    accepted = 0
    for offset in range(ends[1]):
        damaged = bytearray(whole)
        damaged[offset] ^= 0x10
        path.write_bytes(damaged)
        try:
            found, _ = read_journal(path)
        except SearchError:
            message = refused(path, bytes(damaged))
            line = 1 if offset < ends[0] else 2
            assert f"line {line} of {path} is damaged" in message
            assert "\n" not in message
        else:  # a digit of a time: the only thing a checksum does not cover
            assert without_times(found) == without_times(records)
            accepted += 1
    assert accepted < 12


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda line: b"", id="emptied"),
        pytest.param(lambda line: b"\0" * len(line), id="zeroed"),
        pytest.param(lambda line: line[: len(line) // 2], id="cut short"),
        pytest.param(lambda line: line + line, id="doubled in place"),
        pytest.param(lambda line: b"[" * 100_000, id="nested beyond measure"),
        pytest.param(lambda line: b'{"type":"outcome","number":0}', id="without a checksum"),
        pytest.param(lambda line: line.replace(b'"number":0', b'"number":1'), id="edited by hand"),
    ],
)
def test_a_line_damaged_in_the_middle_is_named(tmp_path, damage):
    path = tmp_path / "journal.jsonl"
    whole, _ = written(path, [FIRST], [SECOND], THIRD)
    lines = whole.split(b"\n")
    lines[1] = damage(lines[1])
    assert f"line 2 of {path} is damaged" in refused(path, b"\n".join(lines))


def test_the_advice_given_for_damage_works(tmp_path):
    path = tmp_path / "journal.jsonl"
    whole, _ = written(path, [FIRST], [SECOND], THIRD)
    damaged = whole.replace(b'"number":1', b'"number":9')
    command = refused(path, damaged).rpartition("before it: ")[2]
    subprocess.run(command, shell=True, check=True)
    assert reopened(path) == [FIRST, SECOND, THIRD[0]]
    assert path.with_suffix(".jsonl.damaged").read_bytes() == damaged


def test_a_file_that_is_no_journal_is_refused_and_not_emptied(tmp_path):
    path = tmp_path / "journal.jsonl"
    assert "line 1" in refused(path, b"dear diary,\nnothing happened today\n")
    assert "line 1" in refused(path, b"dear diary,\n")


def test_more_than_one_damaged_line_at_the_end_is_no_torn_append(tmp_path):
    path = tmp_path / "journal.jsonl"
    whole, _ = written(path, [FIRST], [SECOND], THIRD)
    assert "line 4" in refused(
        path, whole.replace(b'"number":1', b'"number":8').replace(b":2,", b":7,")
    )


def test_the_checksum_leaves_out_times_and_nothing_else(tmp_path):
    def checksum(record):
        whole, _ = written(tmp_path / "one.jsonl", [record])
        (tmp_path / "one.jsonl").unlink()
        return json.loads(whole)["crc"]

    record = {"time": 1.0, "outcome": {"seconds": 1.0, "curve": [{"seconds": 1.0, "loss": 1.0}]}}
    later = {"time": 2.0, "outcome": {"seconds": 2.0, "curve": [{"seconds": 2.0, "loss": 1.0}]}}
    other = {"time": 1.0, "outcome": {"seconds": 1.0, "curve": [{"seconds": 1.0, "loss": 1.5}]}}
    assert checksum(record) == checksum(later)
    assert checksum(record) != checksum(other)
    assert checksum(record) == checksum(dict(reversed(record.items())))


def test_without_times_reaches_into_everything():
    assert without_times({"time": 1, "a": [{"seconds": 2, "b": 3}], "c": {"time": 4}}) == {
        "a": [{"b": 3}],
        "c": {},
    }


FILL = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from blockqnn.search.journal import Journal

    journal = Journal(Path(sys.argv[1]))
    for number in range(1000):
        before = Path(sys.argv[1]).read_bytes()
        try:
            journal.append([{"number": number, "text": "x" * length} for length in (700, 70)])
        except OSError as error:
            assert Path(sys.argv[1]).read_bytes() == before, "a torn line was left"
            print(number, error.strerror)
            break
    journal.append([]) # usable still
    journal.close()
    """
)


def test_a_file_that_may_not_grow_leaves_the_journal_as_it_was(tmp_path):
    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))

    path = tmp_path / "journal.jsonl"
    told = subprocess.run(
        [sys.executable, "-c", FILL, path], capture_output=True, text=True, preexec_fn=limit
    )
    assert told.stdout.strip() == "11 File too large", told.stderr
    assert len(reopened(path)) == 22


def test_a_full_disk_leaves_the_journal_as_it_was(tmp_path):
    with small_disk(tmp_path / "disk", 64) as disk:
        path = disk / "journal.jsonl"
        told = subprocess.run([sys.executable, "-c", FILL, path], capture_output=True, text=True)
        number, reason = told.stdout.strip().split(" ", 1)
        assert reason == "No space left on device", told.stderr
        assert len(reopened(path)) == 2 * int(number)
