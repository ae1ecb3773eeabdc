"""How modules of the user's own are imported: each by its file, while the path of everything else stays untouched.

The current folder may be one that was received, so it is never on `sys.path`: what Python, afftool and the installed
packages import, at any time, they find where they would without it. A module that the user names is found by its file,
before an installed one of that name; and what its code imports in turn, in its `forward` too, is looked for beside it
first, as a script would. No folder stands in for a module of Python's, or for what afftool is built on.
"""

from __future__ import annotations

import dis
import importlib
import importlib.util
import os
import re
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import FrameType, ModuleType

from afftool.errors import LoadError

AFFTOOL = Path(__file__).parent
_LIBRARY = Path(sysconfig.get_path("stdlib"))

_roots: dict[Path, None] = {}
"""The folders whose code is the user's own, in the order in which they are looked through."""
_places: list[Path] = []
"""Where named modules lie, besides the current folder."""
_named: dict[str, Path] = {}
"""The top-level name that is being imported because the user named it, and the folder it lies in."""
_loaded: dict[Path, str] = {}
"""The names under which files were imported."""
_found: dict[str, Path] = {}
"""Where the neighbours lie, top-level modules, that code of the user's own has imported so far."""
_apart: set[tuple[Path, int]] = set()
"""The modules that were found to have no twin among so many."""


def is_own(path: Path) -> bool:
    """Whether a file is the user's own: of no installed package, nor Python's, nor afftool's."""
    return not is_installed(path) and not path.is_relative_to(_LIBRARY) and not path.is_relative_to(AFFTOOL)


def is_installed(path: Path) -> bool:
    """Whether a file belongs to an installed package: an environment may lie inside of the user's folder."""
    return "site-packages" in path.parts or "dist-packages" in path.parts


def look_in(*folders: Path) -> None:
    """Have named modules, entry points among them, found in these folders too, right after the current one."""
    _places[:] = [Path(os.path.abspath(folder)) for folder in folders]


def import_named(name: str, *, installed: bool = False) -> ModuleType:
    """The module of this dotted name: of the user's folder if it has one, unless it is an `installed` package's."""
    here = Path.cwd()
    places = [*([] if installed else [here]), *_places]
    _own(*places, *([] if installed else _own_root(here, name)))
    place = find(name, places)
    if place is not None:
        _refuse_twins(place.joinpath(*name.split(".")))
    with _naming(name, place):
        return importlib.import_module(name)


def import_file(file: Path) -> ModuleType:
    """The module of a file: of its package where it lies in one, else under a name that is no other module's."""
    name, root = name_and_root(file)
    if "." not in name:
        module = sys.modules.get(_loaded.get(file, "")) or _alone(file)
    else:
        top, here = name.partition(".")[0], Path.cwd()
        twins = [here / top, here / f"{top}.py"] if root != here else []
        _own(root)
        _refuse_twins(file)
        with _naming(name, root):
            module = importlib.import_module(name)
        if any(path.exists() for path in twins) or not _is_of(module, file):
            raise LoadError(
                f"{file} cannot be imported: {top!r} is another package here",
                hint="rename one of the two, or run afftool in the folder that holds this one",
            )
    _loaded[file] = module.__name__
    return module


def name_of(file: Path) -> str:
    """The name that a file was imported under, or would be."""
    return _loaded.get(file) or name_and_root(file)[0]


def name_and_root(file: Path) -> tuple[str, Path]:
    """The dotted name of a file in the outermost package around it, and the folder that this lies in."""
    root, parts = file.parent, [file.stem] if file.stem != "__init__" else []
    while (root / "__init__.py").is_file() and root != root.parent:
        parts.append(root.name)
        root = root.parent
    return ".".join(reversed(parts)), root


def find(name: str, places: Sequence[Path]) -> Path | None:
    """The first of the folders that holds the top-level module of `name`; None if that comes from elsewhere."""
    top = name.partition(".")[0]
    return next((place for place in places if _spec_in(place, top)), None)


def is_known(top: str) -> bool:
    """Whether there is a top-level module of this name that the user could mean; nothing is imported."""
    return place_of(top) is not None


def place_of(top: str) -> Path | None:
    """Where the top-level module is that the user means by this name, a file or a folder; nothing is imported."""
    place = find(top, [Path.cwd(), *_places])
    spec = _spec_in(place, top) if place else PathFinder.find_spec(top)
    if spec is None:
        return None
    return _place(spec)


def neighbour(top: str) -> Path | None:
    """Where the user's own module lies that code of the user's own has imported by this name, and no package's."""
    place, file = _found.get(top), getattr(sys.modules.get(top), "__file__", None)
    return place if place and file and Path(file).is_relative_to(place) else None


def places() -> list[Path]:
    """What `look_in` was told last."""
    return list(_places)


def _place(spec: ModuleSpec) -> Path:
    return Path([*(spec.submodule_search_locations or []), spec.origin or ""][0])


def _spec_in(folder: Path, top: str) -> ModuleSpec | None:
    """Where a top-level module lies in a folder that may stand in for what is installed.

    A folder without `__init__.py` is a package only where nothing installed has its name, as everywhere in Python.
    """
    if top in sys.stdlib_module_names:
        return None
    spec = PathFinder.find_spec(top, [str(folder), *sys.path])
    if spec is None:
        return None
    found = [*(spec.submodule_search_locations or [])] or [spec.origin or ""]
    if not any(Path(place).parent == folder for place in found):
        return None
    return None if top == AFFTOOL.name or (PathFinder.find_spec(top) and top in _built_on()) else spec


@cache
def _built_on() -> frozenset[str]:
    """The top-level modules of all that afftool always requires, as far as it is installed.

    What only some features need may be somebody's own folder: many a project has a `datasets`.
    """
    from importlib import metadata

    def plain(name: str) -> str:
        return re.sub(r"[-_.]+", "-", name).lower()

    required: set[str] = set()
    waiting = [AFFTOOL.name]
    while waiting:
        package = waiting.pop()
        try:
            needs = metadata.requires(package) or []
        except metadata.PackageNotFoundError:
            continue
        always = (need for need in needs if "extra ==" not in need)
        names = {plain(found[0]) for need in always if (found := re.match(r"[\w.-]+", need))}
        waiting += names - required
        required |= names
    modules = metadata.packages_distributions().items()
    return frozenset(top for top, packages in modules if not required.isdisjoint(map(plain, packages)))


class _Neighbours(MetaPathFinder):
    """Finds what the user has named, and what code of the user's own asks for, in the folder around that code."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module's place if it is one of these; None leaves it to Python."""
        if path is not None or fullname in sys.stdlib_module_names:
            return None
        roots = [_named[fullname]] if fullname in _named else _roots_around(sys._getframe(1))
        spec = next((spec for root in roots if (spec := _spec_in(root, fullname))), None)
        if spec is not None and fullname not in _named:
            _found[fullname] = _place(spec)
        return spec


_NEIGHBOURS = _Neighbours()


def _own(*folders: Path) -> None:
    """Let the code in these folders find its neighbours from now on: a function may import whenever it is called."""
    _roots.update(dict.fromkeys(folders))
    if _NEIGHBOURS not in sys.meta_path:
        sys.meta_path.insert(0, _NEIGHBOURS)


@contextmanager
def _naming(name: str, place: Path | None) -> Iterator[None]:
    """In the block, the top-level module of `name` is the one in this folder, if there is one."""
    top = name.partition(".")[0]
    before = dict(_named)
    if place is not None:
        _named[top] = place
    try:
        yield
    finally:
        _named.clear()
        _named.update(before)


def _roots_around(frame: FrameType | None) -> list[Path]:
    """The user's folders around the code that asks for an import, if it is the user's own.

    A library that imports by a name it was given asks for its caller; one that has an import statement, for itself.
    """
    while frame is not None:
        file = _file_of(frame)
        if roots := [root for root in _roots if file.is_relative_to(root) and _is_own_below(file, root)]:
            return [*roots, *_places]
        if file.is_relative_to(AFFTOOL) or _is_import_statement(frame):
            return []
        frame = frame.f_back
    return []


def _file_of(frame: FrameType) -> Path:
    code = frame.f_code
    if frame.f_globals.get("__name__") == "torch._dynamo.symbolic_convert":  # torch.compile, for the code it traces
        code = getattr(frame.f_locals.get("self"), "f_code", code)
    named = code.co_filename if not code.co_filename.startswith("<") else frame.f_globals.get("__file__")
    return Path(named or "<unknown>")


def _is_own_below(file: Path, root: Path) -> bool:
    return is_own(file) or (is_installed(root) and not is_installed(file.relative_to(root)))


def _is_import_statement(frame: FrameType) -> bool:
    return not frame.f_code.co_filename.startswith("<") and (
        frame.f_code.co_code[frame.f_lasti] == dis.opmap["IMPORT_NAME"]
    )


def _alone(file: Path) -> ModuleType:
    """A module under a name made of its whole path: its own may be that of a neighbour, or of Python's."""
    name = re.sub(r"\W", "_", str(file.with_suffix("")))
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    _own(file.parent)
    _refuse_twins(file)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _refuse_twins(code: Path) -> None:
    """Raise `LoadError` where this module's neighbour has the name of one that another folder's code has imported.

    Python keeps one module of a name: this one would get the other folder's, and be another module without a word.
    """
    if (code, len(_found)) in _apart:
        return
    around = [root for root in _roots if code.is_relative_to(root)]
    for name, place in _found.items():
        spec = next((spec for root in around if (spec := _spec_in(root, name))), None) if name in sys.modules else None
        if spec is not None and _place(spec) != place:
            raise LoadError(
                f"{code.with_suffix('')} cannot be imported beside {place}: its own {name!r} lies at {_place(spec)}, "
                "and Python keeps one module of a name",
                hint=f"run them one after the other, or rename one {name!r}",
            )
    _apart.add((code, len(_found)))


def _is_of(module: ModuleType, file: Path) -> bool:
    own = getattr(module, "__file__", None)
    return own is not None and os.path.realpath(own) == os.path.realpath(file)


def _own_root(here: Path, name: str) -> list[Path]:
    """The folder below the current one that a module's neighbours are imported from, if it has a file there."""
    file = here.joinpath(*name.split(".")).with_suffix(".py")
    root = name_and_root(file)[1]
    return [root] if file.is_file() and root != here and root.is_relative_to(here) else []
