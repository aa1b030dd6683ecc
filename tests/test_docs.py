"""The site builds without a warning, its lists are the program's, its commands run as written."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest
from test_readme import reviews  # noqa: F401 (a fixture)

from uncollapse import cli
from uncollapse.config import LatentConfig, Section
from uncollapse.errors import UserError
from uncollapse.evaluation.mixtures import ACCURACY, ORDER
from uncollapse.evaluation.standard import IVAE, STANDARD, TWR
from uncollapse.evaluation.suite import PROBES
from uncollapse.extending import add_piece
from uncollapse.recipes import load_recipe, recipe_names

DOCS = Path(__file__).parents[1] / "docs"


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def commands(name: str) -> list[list[str]]:
    """What a page shows to type, a list of words each."""
    scripts = re.findall(r"^```bash\n(.*?)^```", page(name), re.M | re.S)
    return [shlex.split(line) for script in scripts for line in script.splitlines() if line]


@pytest.fixture
def generator(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(DOCS / "_ext"))
    return importlib.import_module("generated_pages")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_site_builds_without_a_warning_or_the_network(tmp_path: Path) -> None:
    built = tmp_path / "html"
    build = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    unreachable = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), "http://127.0.0.1:9")
    done = subprocess.run(
        [*build, "-d", tmp_path / "trees", DOCS, built],
        env=os.environ | unreachable,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    plain = (built / "families" / "plain.html").read_text(encoding="utf-8")
    assert "<math" in plain
    assert 'id="lstm-lm"' in plain
    for written in built.rglob("*.html"):  # nothing is fetched by a reader either
        text = written.read_text(encoding="utf-8")
        assert not re.search(r'<(script|link|img)[^>]*(src|href)="(https?:)?//', text), written


def test_every_recipe_has_one_page(generator: ModuleType) -> None:
    pages = generator.recipe_settings.families(DOCS / "families")
    shown = Counter(name for names in pages.values() for name in names)
    assert shown == Counter(recipe_names())
    contents = page("families/index.md")
    for name in pages:
        assert f"\n{name.removesuffix('.md')}\n" in contents, name


def test_settings_are_those_of_the_recipe(generator: ModuleType) -> None:
    text = generator.recipe_settings.settings(["bn-vae", "vae"])
    assert "### `bn-vae`" in text
    assert load_recipe("bn-vae").source in text
    assert "batch_norm: {scale: 0.7}" in text
    assert "latents.z.posterior.batch_norm.scale: 0.7" in text  # resolved, with its origin
    assert "On other corpora: `bn-vae@short-yelp`" in text


def test_every_figure_is_explained() -> None:
    pages = page("numbers.md") + page("probes.md")
    figures = {*STANDARD, *TWR, *IVAE, *ORDER, f"{ACCURACY}COLUMN"}
    for name in (*figures, *(name for members in PROBES.values() for name in members)):
        assert f"`{name}`" in pages, name


def test_every_verb_is_in_the_reference(generator: ModuleType) -> None:
    text = generator.command_line.reference()
    typed = [name for name, _ in generator.command_line.verbs()]
    assert {"train", "data check", "rate score"} <= set(typed)
    for name, command in generator.command_line.verbs():
        section = text.split(f"## `uncollapse {name}`\n")[1].split("\n## ")[0]
        assert command.help.split("\n")[0].split("*")[0] in section
        for parameter in command.params:
            if parameter.param_type_name == "option":
                assert all(f"`{option}`" in section for option in parameter.opts), name


def test_every_key_is_in_the_reference(generator: ModuleType) -> None:
    text = generator.recipe_keys.reference()
    for place in ("The recipe", "`latents.NAME.posterior`, kind `gaussian`", "`data`"):
        assert f"## {place}\n" in text
    assert re.search(r"^Also:.* `training\.plateau`", text, re.M)
    for name in LatentConfig.model_fields:
        assert f"| `{name}` |" in text


@pytest.mark.parametrize("name", ["choosing.md", "start.md", "index.md"])
def test_recipes_that_are_named_exist(name: str) -> None:
    known = set(recipe_names())
    endings = {"vae", "cvae", "lm"}
    for named in re.findall(r"`([a-z0-9-]+)`", page(name)):
        if named.rpartition("-")[2] in endings and "--" not in named:
            assert named in known, named


@pytest.mark.slow
@pytest.mark.usefixtures("reviews")
def test_start_runs_as_written(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = [command for command in commands("start.md") if command[0] == "uncollapse"]
    assert len(ours) == len(commands("start.md")) - 1  # the other one is the installation
    for command in ours:
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        assert not stopped.value.code, command
    (script,) = re.findall(r"^```python\n(.*?)^```", page("start.md"), re.M | re.S)
    exec(compile(script, "start.md", "exec"), {})


@pytest.mark.slow
def test_extending_runs_as_written(reviews: Path) -> None:  # noqa: F811
    for name in ("laplace.py", "laplace-vae.yaml"):
        shutil.copy(DOCS / "examples" / name, reviews)
    for command in commands("extending.md"):
        assert command[0] == "python"
        done = subprocess.run(
            [sys.executable, *command[1:]], cwd=reviews, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        if command[2] == "evaluate":
            assert re.search(r"^nll +\d", done.stdout, re.M)
            assert re.search(r"^kl .*10 posterior samples", done.stdout, re.M)
    # who does not know the piece is told which kinds there are
    program = [sys.executable, "-m", "uncollapse", "sample", "runs/laplace"]
    done = subprocess.run(program, cwd=reviews, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("uncollapse: unknown latents.z.posterior.kind 'laplace'")


class Nameless(Section):
    size: int = 1


@pytest.mark.parametrize(
    ("axis", "config", "message"),
    [
        ("posteriors", Nameless, "unknown axis 'posteriors'; did you mean 'posterior'?"),
        ("posterior", Nameless, 'Nameless needs a kind: Literal["…"]'),
        (
            "posterior",
            type(load_recipe("bn-vae").latents["z"].posterior),
            "there is a posterior of kind gaussian already",
        ),
    ],
)
def test_wrong_pieces_are_refused(axis: str, config: type[Section], message: str) -> None:
    with pytest.raises(UserError) as refused:
        add_piece(axis, config, lambda *_: None)
    assert str(refused.value) == message
