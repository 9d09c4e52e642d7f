"""Checks that docs and code agree; called by scripts/check. Every disagreement is a line, and exit code 1.

- The files that scripts/reference.py makes are what it would make now.
- Relative links in Markdown lead somewhere, headings included.
- Every command, table, error, source and exit code is mentioned in a page written by hand, every setting in any page.
- Every `fetcher COMMAND` and `--option` in the code of a Markdown page exists.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import unquote

sys.path.insert(0, str(Path(__file__).resolve().parent))

import reference

import fetcher
from fetcher.cli import cli
from fetcher.service.settings import ServiceSettings
from fetcher.settings import Settings
from fetcher.texts.settings import TextSettings

Pages = Mapping[str, str]
"""Markdown pages: path below the project's folder, and text."""

_FENCE = re.compile(r"^ *(```+|~~~+) *([\w-]*)[^\n]*\n(.*?)^ *\1 *$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"(`+)(.+?)\1", re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(\s*<?([^)\s>]+)>?[^)]*\)|^\[[^\]]+\]: +(\S+)", re.MULTILINE)
_CALL = re.compile(r"(?:^|[$/:;&|(=] *|-m +)fetcher(?: +([\w-]+))?((?: +[^|;&#\n]*)?)")
_OPTION = re.compile(r"(?<![\w-])(--?[a-zA-Z][\w-]*)")
_OURS = {"setup": {"--quiet"}}
"""Options of our own scripts, which pages may name alone."""


def markdown(root: Path) -> Pages:
    """Every Markdown page of the project, without hidden folders and what tools make."""
    found = {}
    for path in sorted(root.rglob("*.md")):
        parts = path.relative_to(root).parts
        if not any(part.startswith(".") or part.endswith(".egg-info") or part in ("build", "dist") for part in parts):
            found["/".join(parts)] = path.read_text(encoding="utf-8")
    return found


def stale_files(root: Path) -> Iterator[str]:
    """Files made from the code that are not as it is now."""
    for name, text in reference.files().items():
        path = root / name
        if not path.exists():
            yield f"{name}: is missing: run scripts/reference.py"
        elif path.read_text(encoding="utf-8") != text:
            yield f"{name}: is not what the code says now: run scripts/reference.py"
    for path in sorted((root / "docs/reference").glob("*")):
        if f"docs/reference/{path.name}" not in reference.files():
            yield f"docs/reference/{path.name}: is not made by scripts/reference.py: move or remove it"


def dead_links(root: Path, pages: Pages) -> Iterator[str]:
    """Relative links to files or headings that do not exist."""
    for name, text in pages.items():
        bare = _INLINE.sub(lambda found: "x" * len(found[0]) if "](" in found[0] else found[0], _without_fences(text))
        for found in _LINK.finditer(bare):
            link = found[1] or found[2]
            if re.match(r"[a-z][a-z+.-]*:", link):
                continue
            target, _, heading = unquote(link).partition("#")
            path = ((root / name).parent / target).resolve() if target else root / name
            if not path.exists():
                yield f"{name}: link to {link}: there is no such file"
            elif heading and path.suffix == ".md" and heading not in _anchors(path.read_text(encoding="utf-8")):
                yield f"{name}: link to {link}: there is no such heading"


def unmentioned(pages: Pages) -> Iterator[str]:
    """What the program has and no page tells of."""
    made = reference.files()
    told = {name: text for name, text in pages.items() if _for_users(name)}
    by_hand = {name: text for name, text in told.items() if name not in made and name != "CHANGELOG.md"}
    public, sources = fetcher.__all__, reference.sources()
    models = [Settings, TextSettings, ServiceSettings, *(kind.Options for kind in sources.values())]
    by_hand_wanted = [
        *(("command", f"fetcher {name}") for name in reference.commands()),
        *(("source", name) for name in sources),
        *(("table", name.rpartition(".")[2]) for name in reference.TABLES if not name.startswith("_")),
        *(("error", name) for name in reference.error_classes() if name in public),
    ]
    wanted = [
        *(("error", name) for name in reference.error_classes() if name not in public),
        *(("setting", name.upper()) for model in models for name in model.model_fields),
    ]
    for each, where, which in ((by_hand_wanted, by_hand, " written by hand"), (wanted, told, "")):
        code = "\n".join(span for text in where.values() for span in _code(text))
        for kind, name in each:
            if not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", code):
                yield f"{kind} {name}: is mentioned in the code of no page{which}"
    for number in reference.exit_codes():
        if not re.search(rf"^\| *`?{number}`? *\|", pages.get("README.md", ""), re.MULTILINE):
            yield f"README.md: exit code {number} is not in its table"


def unknown_words(pages: Pages) -> Iterator[str]:
    """Commands and options of ours that pages name and that do not exist."""
    options = {name: _options(command) for name, command in reference.commands().items()}
    any_option = set().union(_options(cli), *options.values(), *_OURS.values())
    for name, text in pages.items():
        for code in _code(text):
            for line in re.sub(r"\\\n\s*", " ", code).splitlines():
                for call in _CALL.finditer(line):
                    yield from (f"{name}: {each} (in: {line.strip()})" for each in _wrong(call, options))
            alone = re.fullmatch(r"(--[a-z][\w-]*|-[a-zA-Z])(?:[ =]\S+)?", code.strip())
            if alone and alone[1] not in any_option and _for_users(name):
                yield f"{name}: there is no option {alone[1]}"


def _wrong(call: re.Match[str], options: Mapping[str, set[str]]) -> Iterator[str]:
    command, rest = call[1], call[2]
    if command is None or command.startswith("-"):
        given, known, whole = _OPTION.findall(f"{command or ''} {rest}"), _options(cli), "fetcher"
    elif command in options:
        given, known, whole = _OPTION.findall(rest), options[command], f"fetcher {command}"
    elif command.isupper() or command == "import":
        return
    else:
        yield f"there is no command fetcher {command}"
        return
    yield from (f"{whole} has no option {each}" for each in given if each not in known and not each.startswith("-vv"))


def _options(command: reference.click.Command) -> set[str]:
    found = {each for option in command.params for each in (*option.opts, *option.secondary_opts)}
    return {each for each in found if each.startswith("-")} | {"-h", "--help"}


def _for_users(page: str) -> bool:
    return page.startswith("docs/") or "/" not in page


def _without_fences(text: str) -> str:
    return _FENCE.sub("", text)


def _code(text: str) -> Iterator[str]:
    """The code of a page: each fenced block but those of Python, and each inline span."""
    for found in _FENCE.finditer(text):
        if found[2] not in ("python", "pycon"):
            yield found[3]
    for found in _INLINE.finditer(_without_fences(text)):
        yield found[2]


def _anchors(text: str) -> set[str]:
    """The headings of a page as links name them, the way GitHub makes them."""
    headings = re.findall(r"^#+ +(.+?) *#*$", _without_fences(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def main(root: Path = reference.ROOT) -> int:
    """Print what is wrong; 1 if there is anything."""
    pages = markdown(root)
    wrong = [*stale_files(root), *dead_links(root, pages), *unmentioned(pages), *unknown_words(pages)]
    for each in wrong:
        print(each)
    if not wrong:
        print(f"{len(pages)} pages agree with the code.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
