"""JSON from files that anybody may have written."""

import pytest

from blendtitan.files import DamagedFileError
from blendtitan.json_files import parse_json
from blendtitan.storage.records import DocumentEnds


@pytest.mark.parametrize("kind", [dict[str, int], DocumentEnds])
@pytest.mark.parametrize(
    "data", [b"", b"{", b'{"a": "\xff"}', b'{"\xff": 1}', b"[" * 9999, b"1e999"]
)
def test_json_of_another_type_is_a_damaged_file(kind: type, data: bytes) -> None:
    with pytest.raises(DamagedFileError):
        parse_json(data, kind)
