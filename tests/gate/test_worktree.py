"""A git ref beside the working tree: the user's files and index are never touched, and nothing is left behind."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from afftool.errors import UserError
from afftool.gate.config import parse
from afftool.gate.worktree import find_repository, plan_here, plan_worktree, targets
from afftool.interruption import terminations_raise


def git(folder, *arguments, **environment):
    done = subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@localhost", *arguments],
        cwd=folder,
        env=os.environ | environment,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout


@pytest.fixture
def repository(tmp_path):
    folder = tmp_path / "project"
    (folder / "src" / "thing").mkdir(parents=True)
    git(folder, "init", "--quiet", "--initial-branch=main")
    for text in ("one", "two"):
        (folder / "src" / "thing" / "__init__.py").write_text(f"value = {text!r}\n")
        git(folder, "add", "--all")
        git(folder, "commit", "--quiet", "-m", text)
    (folder / "src" / "thing" / "__init__.py").write_text("value = 'uncommitted'\n")
    (folder / "staged.txt").write_text("staged")
    git(folder, "add", "staged.txt")
    return folder


def state(folder):
    index = (folder / ".git" / "index").read_bytes()
    return git(folder, "status", "--porcelain=v2", "--branch"), git(folder, "stash", "list"), len(index)


def test_the_worktree_holds_the_commit_and_the_user_s_tree_and_index_stay_as_they_are(repository):
    before = state(repository)
    found = find_repository(repository)
    with found.worktree(found.resolve("HEAD~1")) as tree:
        assert (tree / "src" / "thing" / "__init__.py").read_text() == "value = 'one'\n"
        assert not (tree / "staged.txt").exists()
        assert tree.name == "project"
    assert not tree.parent.exists()
    assert git(repository, "worktree", "list").count("\n") == 1
    assert state(repository) == before


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
def test_the_worktree_goes_away_however_the_work_ends(repository, error):
    found = find_repository(repository)
    seen = []

    def work():
        with found.worktree(found.resolve("HEAD")) as tree:
            seen.append(tree)
            (tree / "left.txt").write_text("something new in it")
            raise error

    with pytest.raises(error):
        work()
    assert not seen[0].parent.exists()
    assert git(repository, "worktree", "list").count("\n") == 1


def test_hooks_of_the_repository_do_not_run(repository):
    hook = repository / ".git" / "hooks" / "post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\ntouch ran\n")
    hook.chmod(0o755)
    found = find_repository(repository)
    with found.worktree(found.resolve("HEAD")) as tree:
        assert not (tree / "ran").exists()


def test_it_works_from_within_a_git_hook(repository, monkeypatch):
    monkeypatch.setenv("GIT_DIR", str(repository / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(repository / ".git" / "index"))
    before = (repository / ".git" / "index").read_bytes()
    found = find_repository(repository)
    with found.worktree(found.resolve("HEAD~1")) as tree:
        assert (tree / "src").is_dir()
    assert (repository / ".git" / "index").read_bytes() == before


def test_an_unknown_ref_is_refused_with_a_hint(repository):
    with pytest.raises(UserError, match="no commit 'no-such-branch'") as refused:
        find_repository(repository).resolve("no-such-branch")
    assert "git log" in refused.value.hint
    with pytest.raises(UserError, match="no commit '--all'"):
        find_repository(repository).resolve("--all")


def test_a_shallow_clone_is_told_apart(repository, tmp_path):
    git(tmp_path, "clone", "--quiet", "--depth=1", f"file://{repository}", "shallow")
    with pytest.raises(UserError) as refused:
        find_repository(tmp_path / "shallow").resolve("HEAD~1")
    assert "fetch-depth: 0" in refused.value.hint


def test_a_folder_that_is_no_repository_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    (tmp_path / "plain").mkdir()
    with pytest.raises(UserError, match="not in a git repository"):
        find_repository(tmp_path / "plain")


def test_a_package_under_src_is_imported_from_the_worktree(repository, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(repository / "src"))  # as an editable install does
    plan = plan_worktree(["thing"], repository, repository, tree := make_tree(repository, tmp_path / "tree"))
    assert plan.paths == (tree, tree / "src")
    assert plan.packages == ("thing",)


def test_a_package_in_a_subdirectory_is_imported_from_the_same_place_in_the_worktree(repository, tmp_path):
    here = repository / "src"
    plan = plan_worktree(["thing"], repository, here, tree := make_tree(repository, tmp_path / "tree"))
    assert plan.paths == (tree / "src",)


def test_a_package_from_elsewhere_is_refused_since_both_sides_would_be_the_same(repository, tmp_path):
    with pytest.raises(UserError, match="'typer' is imported from") as refused:
        plan_worktree(["typer"], repository, repository, make_tree(repository, tmp_path / "tree"))
    assert "pip install -e" in refused.value.hint


def test_a_package_under_src_is_found_there_before_an_installed_copy(repository, tmp_path, monkeypatch):
    (tmp_path / "site-packages" / "thing").mkdir(parents=True)
    (tmp_path / "site-packages" / "thing" / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path / "site-packages"))
    plan = plan_worktree(["thing"], repository, repository, tree := make_tree(repository, tmp_path / "tree"))
    assert (plan.paths, plan.packages) == ((tree, tree / "src"), ("thing",))
    assert plan_here(repository, ["thing"]).paths == (repository, repository / "src")
    assert plan_here(repository, ["typer"]).paths == (repository,)


def test_a_package_that_lay_under_src_at_the_commit_and_does_no_more_is_imported_from_there(repository, tmp_path):
    tree = make_tree(repository, tmp_path / "tree")
    shutil.move(repository / "src" / "thing", tree / "src")
    shutil.copytree(tree / "src" / "thing", repository / "thing")
    assert plan_worktree(["thing"], repository, repository, tree).paths == (tree, tree / "src")


def make_tree(repository, tree):
    (tree / "src").mkdir(parents=True)
    return tree


def test_the_packages_of_fusions_and_hosts_are_found_and_afftool_s_own_are_not(tmp_path):
    found = parse(
        {"case": [{"fusion": ["a.b:C", "aff"]}, {"fusion": "add", "host": "d.e:build"}]}, tmp_path / "afftool.toml"
    )
    assert targets(found.cases) == ("a", "d")


SLOW_GIT = """#!/bin/sh
case " $* " in
*" worktree add "*)
    {git} "$@" || exit
    for word in "$@"; do tree=$last; last=$word; done
    rm "$tree/.git"
    echo initializing > "{root}/.git/worktrees/project/locked"
    touch {marker}
    sleep 60
    ;;
*) exec {git} "$@" ;;
esac
"""
WORK = """
from pathlib import Path
from afftool.gate.worktree import find_repository
found = find_repository(Path.cwd())
with found.worktree(found.resolve("HEAD")):
    print("made")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_while_git_makes_the_worktree_leaves_nothing(repository, tmp_path, number):
    programs, temporary, marker = tmp_path / "programs", tmp_path / "temporary", tmp_path / "adding"
    programs.mkdir()
    temporary.mkdir()
    slow = SLOW_GIT.format(git=shutil.which("git"), root=repository, marker=marker)
    (programs / "git").write_text(slow)
    (programs / "git").chmod(0o755)
    running = subprocess.Popen(
        [sys.executable, "-c", WORK],
        cwd=repository,
        env=os.environ | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not marker.exists() and running.poll() is None:
        time.sleep(0.02)
    running.send_signal(number)
    out, told = running.communicate(timeout=60)
    assert "KeyboardInterrupt" in told, (out, told)
    assert "made" not in out
    assert list(temporary.iterdir()) == []
    assert git(repository, "worktree", "list").count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_termination_ends_the_work_unless_it_was_started_to_ignore_it(number):
    """`nohup afftool check --against main &` goes on when the terminal closes."""
    found = signal.signal(number, signal.SIG_IGN)
    try:
        with terminations_raise():
            signal.raise_signal(number)
        signal.signal(number, signal.SIG_DFL)
        with pytest.raises(KeyboardInterrupt), terminations_raise():
            signal.raise_signal(number)
    finally:
        signal.signal(number, found)
