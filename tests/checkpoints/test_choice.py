"""Which checkpoint a run resumes from."""

import pytest

from blendtitan.checkpoints import Choice, choose_step
from blendtitan.errors import ConfigError, ResumeError


def choose(
    damage: dict[int, str | None], *, asked: int | None = None, fallback: bool = False
) -> Choice:
    return choose_step(damage, damage.get, folder="out", asked=asked, fallback=fallback)


def test_the_latest_whole_checkpoint_is_chosen() -> None:
    assert choose({2: None, 10: None, 4: "cut"}) == Choice(10, {})


def test_a_damaged_one_is_an_error_that_names_the_newest_whole_one() -> None:
    with pytest.raises(ResumeError) as error:
        choose({2: None, 4: None, 6: "b is empty.", 8: "a is cut."})
    assert str(error.value) == (
        "Cannot resume from step-8. a is cut. The newest intact checkpoint before it is step-4. "
        "Copy step-8 again, or set checkpoint.fallback = true to resume from step-4."
    )


def test_with_fallback_the_newest_whole_one_is_chosen() -> None:
    assert choose({2: None, 4: None, 6: "b", 8: "a"}, fallback=True) == Choice(4, {8: "a", 6: "b"})


def test_a_requested_step_is_never_replaced_by_a_later_one() -> None:
    damage = {2: None, 4: "cut", 6: None}

    assert choose(damage, asked=4, fallback=True) == Choice(2, {4: "cut"})
    assert choose(damage, asked=6) == Choice(6, {})


@pytest.mark.parametrize("fallback", [False, True])
def test_without_a_whole_one_it_is_an_error(fallback: bool) -> None:
    with pytest.raises(ResumeError, match=r"from step-4. a is cut. No older checkpoint is intact"):
        choose({2: "b is cut.", 4: "a is cut."}, fallback=fallback)


def test_a_step_without_a_complete_checkpoint_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"load_step is 3, expected .* in out: 2, 4\."):
        choose({2: None, 4: None}, asked=3)
