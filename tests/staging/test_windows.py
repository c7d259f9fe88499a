"""Windows that are staged alone take room until their last read."""

from blendtitan.staging.windows import StagedWindows, Window

FIRST, SECOND = Window(0, 0, 34), Window(0, 34, 34)


def test_windows_are_dropped_in_the_order_of_reading() -> None:
    windows = StagedWindows(capacity=68)
    assert windows.add(FIRST, 8, 34)
    assert windows.add(SECOND, 16, 68)

    assert not windows.has_room(Window(1, 0, 34))
    assert list(windows.done(16)) == [(FIRST, 34, True)]
    assert windows.num_bytes == 34
    assert windows.has_room(Window(1, 0, 34))
    assert list(windows.done(17)) == [(SECOND, 68, True)]
    assert windows.num_bytes == 0


def test_a_window_that_is_read_again_is_kept_and_not_fetched_again() -> None:
    windows = StagedWindows(capacity=34)
    assert windows.add(FIRST, 8, 34)
    assert windows.has_room(FIRST)
    assert not windows.add(FIRST, 40, 34)

    assert windows.expects(FIRST, 40)
    assert list(windows.done(41)) == [(FIRST, 34, False), (FIRST, 34, True)]
