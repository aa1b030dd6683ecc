"""Names of clusters: what fits a model, what is kept, and each way of getting it wrong."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any, NoReturn

import pytest
from helpers import small_model

from uncollapse import saving
from uncollapse.errors import RunError, UserError
from uncollapse.model import Model
from uncollapse.names import (
    FILE,
    check_names,
    find_code,
    kept_names,
    merged_names,
    names_at,
    read_names,
    write_names,
)

SIZES = {"z.component": (3, 5), "c": (1, 4)}


@pytest.fixture(scope="module")
def mixture() -> Model:
    shape = ("latents.z.groups=3", "latents.z.prior.components=5")
    return small_model("gm-vae", shape)


def test_codes_may_be_text_numbers_or_tuples() -> None:
    given = {"c": {3: "music", "0": "weather"}, "z.component": {(2, 0, 4): "asks"}}
    kept = {"c": {"3": "music", "0": "weather"}, "z.component": {"2-0-4": "asks"}}
    assert check_names(given, SIZES, "names") == kept


def test_a_value_of_one_index_leaves_the_others_free() -> None:
    kept = check_names({"z.component": {"4": "polite"}, "c": {"1": "b"}}, SIZES, "names", index=1)
    assert kept == {"z.component": {"*-4-*": "polite"}, "c": {"1": "b"}}
    names = kept["z.component"] | {"2-0-4": "asks"}
    assert names_at(names, (3, 5), 1) == {"4": "polite"}
    assert names_at(names, (3, 5), 0) == {}
    assert names_at(names, (3, 5), None) == names
    assert names_at({"2": "b"}, (1, 4), 0) == {"2": "b"}


def test_spaces_of_a_name_are_put_right() -> None:
    assert check_names({"c": {1: "  asks\n the  way "}}, SIZES, "names") == {
        "c": {"1": "asks the way"}
    }


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"z.componnt": {}}, "unknown discrete variable 'z.componnt'; did you mean 'z.component'"),
        ({"c": {"4": "a"}}, "'4' is none of the values 0 … 3"),
        ({"c": {"x": "a"}}, "'x' is none of the values"),
        ({"c": {"-1": "a"}}, "'c'"),
        ({"z.component": {"2-0": "a"}}, "3 values"),
        ({"z.component": {"2-0-5": "a"}}, "'5' is none of the values 0 … 4"),
        ({"z.component": {"word": "a"}}, "a code has 3 values here"),
        ({"z.component": {"2": "a"}}, r"'2' is of one index of 3: say which, or write 2-\*-\*"),
        ({"c": {"1": "a", "2": "a"}}, "codes '1' and '2' of 'c' are both named 'a'"),
        ({"c": {"1": "a", "01": "b"}}, "code '1' of 'c' has two names"),
        ({"c": {"1": ""}}, "name of code '1' of 'c' is empty"),
        ({"c": {"1": "  "}}, "is empty"),
        ({"c": {"1": 7}}, "is int, not text"),
        ({"c": {"1": None}}, "is NoneType, not text"),
        ({"c": {"1": "2-0"}}, "looks like a code itself"),
        ({"c": ["a"]}, "the names of 'c', {code: name}, must be a mapping, not list"),
        ({"c": "a"}, "must be a mapping, not str"),
        (["a"], "{variable: {code: name}} must be a mapping, not list"),
        ({"1": "a"}, "unknown discrete variable '1'"),
        ({3: {"1": "a"}}, "unknown discrete variable '3'"),
    ],
)
def test_each_mistake_gets_one_line(given: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        check_names(given, SIZES, "my.yaml")
    assert str(caught.value).startswith("my.yaml: ")
    assert "\n" not in str(caught.value)


def test_a_model_without_variables_takes_no_names() -> None:
    with pytest.raises(UserError, match="no discrete variable"):
        check_names({"c": {"1": "a"}}, {}, "names")


def test_new_names_join_the_old() -> None:
    old = {"c": {"1": "a", "2": "b"}}
    new = {"c": {"2": "d"}, "z.component": {"0-0-0": "a"}}
    assert merged_names(old, new, "names") == {
        "c": {"1": "a", "2": "d"},
        "z.component": {"0-0-0": "a"},
    }
    with pytest.raises(UserError, match="codes '1' and '3' of 'c' are both named 'a'"):
        merged_names(old, {"c": {"3": "a"}}, "names")
    # names may change places
    swapped = merged_names(old, {"c": {"1": "b", "2": "a"}}, "names")
    assert swapped == {"c": {"1": "b", "2": "a"}}
    assert old == {"c": {"1": "a", "2": "b"}}


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    names = {"c": {"3": "no", "0": "größer: 'x' # y"}, "z.component": {"*-4-*": "polite"}}
    assert write_names(tmp_path, names) == tmp_path / FILE
    assert kept_names(tmp_path, SIZES) == names
    assert list(tmp_path.iterdir()) == [tmp_path / FILE]
    assert "größer" in (tmp_path / FILE).read_text(encoding="utf-8")


def test_a_folder_without_names_has_none(tmp_path: Path) -> None:
    assert kept_names(tmp_path, SIZES) == {}
    (tmp_path / FILE).write_text("# nothing yet\n")
    assert kept_names(tmp_path, SIZES) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("c: {1: a\nd: 2\n", "not valid YAML at line"),
        ("c:\n  1: a\n  1: b\n", "not valid YAML at line 2: a key is there twice"),
        ("z.component:\n  *-1-*: a\n", r"line 2.*codes with \* need quotes"),
        ("c: !!python/object/apply:os.system ['echo']\n", "must be a mapping, not"),
        ("c:\n  1:\n", "name of code '1' of 'c' is empty"),
        ("c:\n  1: [a, b]\n", "is list, not text"),
        ("c: {1: \x07}\n", "not valid YAML"),
        ("a name\n", "must be a mapping, not str"),
        ("c:\n  1: 12\n", "looks like a code itself"),
    ],
)
def test_a_spoilt_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        kept_names(tmp_path, SIZES)
    assert str(caught.value).startswith(str(tmp_path / FILE))
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes("c: {1: gr\xfc\xdfe}".encode("latin-1"))
    for name, message in (
        ("nowhere.yaml", r"nowhere\.yaml: No such file"),
        (".", "directory"),
        ("latin", "not UTF-8"),
    ):
        with pytest.raises(UserError, match=message):
            read_names(tmp_path / name)


def test_a_full_disk_keeps_the_names_that_were_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write_names(tmp_path, {"c": {"1": "a"}})
    monkeypatch.setattr(saving.os, "fsync", full)
    with pytest.raises(RunError, match="cannot write"):
        write_names(tmp_path, {"c": {"1": "b"}})
    assert kept_names(tmp_path, SIZES) == {"c": {"1": "a"}}
    assert list(tmp_path.iterdir()) == [tmp_path / FILE]


def test_components_are_found_by_code_and_by_name(mixture: Model) -> None:
    names = {"z.component": {"2-0-4": "asks", "*-4-*": "polite"}}

    def find(component: str | int, variable: str | None = None, index: int | None = None) -> Any:
        return find_code(mixture, names, component, variable, index)

    assert find("1-2-3") == ("z.component", (1, 2, 3))
    assert find("1-*-3") == ("z.component", (1, -1, 3))
    assert find("3", index=2) == find(3, index=2) == ("z.component", (-1, -1, 3))
    assert find("asks") == find(" asks ", "z.component") == ("z.component", (2, 0, 4))
    assert find("polite") == ("z.component", (-1, 4, -1))


def test_a_name_tells_its_variable() -> None:
    model = small_model("semi-vae", ("latents.c.groups=2", "latents.c.posterior.categories=3"))
    assert model.variable_sizes() == {"c": (2, 3)}
    assert find_code(model, {"c": {"1-2": "asks"}}, "asks", None, None) == ("c", (1, 2))
    model = small_model("dbm-vae", ("latents.z.groups=2", "latents.z.prior.components=3"))
    names = {"z": {"0-1-*-*-*-*-*-*": "x"}, "z.component": {"1-2": "asks"}}
    assert find_code(model, names, "asks", None, None) == ("z.component", (1, 2))
    with pytest.raises(UserError, match=r"hold a component of 'z\.component'"):
        find_code(model, names, "x", None, None)


@pytest.mark.parametrize(
    ("component", "variable", "index", "message"),
    [
        ("aks", None, None, "unknown component of 'z.component': 'aks'; did you mean 'asks'"),
        ("Asks", None, None, "did you mean 'asks'"),
        ("2-0-9", None, None, "'9' is none of the values 0 … 4"),
        ("2-0", None, None, "3 values"),
        ("2", None, None, "one index of 3"),
        ("9", None, 1, "'9' is none"),
        ("2-0-1", None, 7, "no 7"),
        ("asks", None, -1, "no -1"),
        ("asks", "z.compnent", None, "did you mean 'z.component'"),
        ("", None, None, "unknown component"),
    ],
)
def test_components_that_there_are_not(
    mixture: Model, component: str, variable: str | None, index: int | None, message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        find_code(mixture, {"z.component": {"2-0-4": "asks"}}, component, variable, index)
    assert "\n" not in str(caught.value)


def test_a_name_where_nothing_has_one(mixture: Model) -> None:
    with pytest.raises(UserError, match=r"no component of 'z\.component' has a name"):
        find_code(mixture, {}, "asks", None, None)
    with pytest.raises(UserError, match="no discrete variable"):
        find_code(small_model("vae"), {}, "3", None, None)
