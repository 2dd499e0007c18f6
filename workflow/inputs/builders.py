"""Builders: callables of the user's that give a network, by `path/to/file.py:builder` or `package.module:builder`.

They are code, which runs when a network is built. To find their source, and to hash it, runs nothing, so that planning
stays quick.
"""

import ast
import difflib
import hashlib
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from readout import StudyError
from readout.named import TIMM

if TYPE_CHECKING:
    from torch import nn

BUILDER = re.compile(r"(?P<source>.+):(?P<name>[A-Za-z_]\w*)")
MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
INSTALLED = ("site-packages", "dist-packages")
"""Folders of installed packages, which are known by their versions: of these only the builder's own counts."""


def is_builder(model: str) -> bool:
    """Whether the name of a model is that of a callable of the user's."""
    return BUILDER.fullmatch(model) is not None and not model.startswith(TIMM)


def _parts(model: str) -> tuple[str, str]:
    """The source of a builder, a file or a module, and its name there."""
    found = BUILDER.fullmatch(model)
    return found["source"], found["name"]


_beside: list[str] = []
"""Folders of builders' files, which Python looks in for what the files import: no places of other builders."""


def _search() -> list[str]:
    """Where modules are looked for: among the installed packages, then in the folder of the run."""
    here = str(Path.cwd())
    return [*(place for place in sys.path if place not in ("", here, *_beside)), here]


def _reach(*folders: Path) -> None:
    """Let Python look for modules there, and behind that in the folders of builders' files before."""
    *installed, here = _search()
    sys.path[:] = dict.fromkeys([*installed, *map(str, folders), here, *_beside])


def file(model: str) -> Path:
    """The file that a builder is in; StudyError where there is none. Nothing is imported."""
    source, _ = _parts(model)
    if source.endswith(".py"):
        path = Path(source).expanduser()
        if not path.is_file():
            raise StudyError(f"model {model}: {path}: no such file; paths start from the folder of the run")
        return path
    if not MODULE.fullmatch(source):
        raise StudyError(f"model {model}: {source} is neither a file that ends in .py nor the name of a module")
    search = _search()
    for part in source.split("."):
        spec = PathFinder.find_spec(part, search)
        if spec is None:
            raise StudyError(
                f"model {model}: there is no module {source}, neither among the installed packages nor in the folder "
                f"of the run; {part} is missing"
            )
        search = spec.submodule_search_locations or []
    if not spec.origin or not spec.origin.endswith(".py"):
        raise StudyError(f"model {model}: {source} has no source in Python; give the module that has the builder")
    return Path(spec.origin)


def _root(model: str) -> Path:
    """The folder where what a builder imports is looked for by name."""
    source, _ = _parts(model)
    path = file(model)
    if source.endswith(".py"):
        # Beside the file that a link leads to, as Python has it for a program.
        return path.resolve().parent
    return path.parents[len(source.split(".")) - (path.name != "__init__.py")]


def _roots(model: str) -> tuple[Path, ...]:
    """The folders where what a builder imports is looked for by name, but for those of other installed packages."""
    root = _root(model)
    return (root,) if root.name in INSTALLED else (root, Path.cwd())


def _imported(path: Path, base: Path, roots: Sequence[Path]) -> Iterator[tuple[Path, Path]]:
    """The modules below some folders that a module imports, at the top or inside a function, each with its folder.

    `base` is the module's own, in which its relative imports are.
    """
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [(None, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level > len(path.parents):
                continue
            start = path.parents[node.level - 1] if node.level else None
            of = f"{node.module}." if node.module else ""
            names = [(start, f"{of}{alias.name}") for alias in node.names] + [(start, node.module or "")]
        else:
            continue
        for start, name in names:
            steps = [part for part in name.split(".") if part]
            # Python takes the first folder that has something of the name.
            has = (root for root in roots if (root / steps[0]).is_dir() or (root / f"{steps[0]}.py").is_file())
            top = start or next(has, roots[0])
            # A package runs its own __init__.py before its modules.
            for i in range(1, len(steps) + 1):
                place = top.joinpath(*steps[:i])
                for found in (place.with_suffix(".py"), place / "__init__.py"):
                    if found.is_file():
                        yield found, base if start else top


def sources(model: str) -> dict[Path, Path]:
    """The builder's file and the modules that it imports, directly or not, each with the folder that it is named from.

    They are those beside a builder's file, or beside its package, and those in the folder of the run; of an installed
    package its own.
    """
    source, _ = _parts(model)
    root, roots = _root(model), _roots(model)
    inside = [root / source.split(".")[0]] if root.name in INSTALLED else roots
    first = root / file(model).resolve().name if source.endswith(".py") else file(model)
    packages = [] if source.endswith(".py") else [p for p in first.parents if p.is_relative_to(root) and p != root]
    seen = {}
    queue = [(first, root), *((path, root) for p in packages if (path := p / "__init__.py").is_file())]
    while queue:
        path, base = queue.pop()
        if path not in seen:
            seen[path] = base
            queue += [each for each in _imported(path, base, roots) if any(map(each[0].is_relative_to, inside))]
    return dict(sorted(seen.items()))


def digest(model: str) -> str:
    """Hash of the source of a builder (`sources`), 16 hexadecimal digits."""
    content = hashlib.sha256()
    for name, path in sorted((str(path.relative_to(base)), path) for path, base in sources(model).items()):
        content.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return content.hexdigest()[:16]


def _check_modules(model: str) -> None:
    """Refuse modules of other places under the names of those that the hash is of, as two builders' `utils`."""
    # A builder's file is imported by another name.
    first = file(model).resolve() if _parts(model)[0].endswith(".py") else None
    for path, base in sources(model).items():
        name = ".".join(path.relative_to(base).with_suffix("").parts).removesuffix(".__init__")
        found = getattr(sys.modules.get(name), "__file__", None)
        if found and path != first and Path(found).resolve() != path.resolve():
            raise StudyError(
                f"model {model}: imports {name} from {found} and not from {path}, since the former was there first; "
                "rename one of them"
            )


@cache
def _loaded(path: Path, digest: str) -> ModuleType:
    """The module in a file, of the content that the hash is of."""
    # What it imports lies beside it.
    if str(path.parent) not in sys.path:
        _beside.append(str(path.parent))
    _reach(path.parent)
    spec = importlib.util.spec_from_file_location(f"builder_{path.stem}_{digest}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def told(model: str, error: BaseException) -> str:
    """An error in the user's code, in one line: its kind, its words and the line at which it was raised."""
    own = {str(path.resolve()) for path in sources(model)}
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if str(Path(frame.filename).resolve()) in own
    ]
    if isinstance(error, SyntaxError):
        where = f" ({error.filename}, line {error.lineno})"
    else:
        where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())}{where}"


def load(model: str) -> Callable[[int], "nn.Module"]:
    """The builder itself. StudyError where its module cannot be imported or has no such callable."""
    source, name = _parts(model)
    path = file(model)
    try:
        if source.endswith(".py"):
            module = _loaded(path.resolve(), digest(model))
        else:
            _reach()
            module = importlib.import_module(source)
            _check_modules(model)
    except StudyError:
        raise
    # A module may exit, too.
    except (Exception, SystemExit) as error:
        raise StudyError(f"model {model}: {path} cannot be imported: {told(model, error)}") from error
    found = getattr(module, name, None)
    if not callable(found):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        close = difflib.get_close_matches(name, known, n=1)
        raise StudyError(
            f"model {model}: {path} has no callable {name}"
            + (f"; did you mean {close[0]}?" if close else f"; it has {', '.join(known) or 'none'}")
        )
    return found


def build(model: str, outputs: int) -> "nn.Module":
    """What the builder gives for so many outputs, in evaluation mode. StudyError where it raises or gives no module."""
    from torch import nn
    from torch.nn.parameter import is_lazy

    builder = load(model)
    try:
        inspect.signature(builder).bind(outputs)
        network = builder(outputs)
    except StudyError:
        raise
    except (Exception, SystemExit) as error:
        raise StudyError(f"model {model}: builder({outputs}) raised {told(model, error)}") from error
    if not isinstance(network, nn.Module):
        raise StudyError(
            f"model {model}: gives {type(network).__name__} for {outputs} outputs, and no torch.nn.Module; return the "
            "network"
        )
    _check_modules(model)
    lazy = [name for name, value in network.state_dict(keep_vars=True).items() if is_lazy(value)]
    if lazy:
        raise StudyError(
            f"model {model}: {lazy[0]} has no weights until it has seen an image; run it once in the builder, or "
            "say its size"
        )
    return network.eval()
