"""Makes a site of what is read in the repository too: README.md is its first page, and what a page
links to outside of docs/ is named there and not linked to.
"""

import re
from pathlib import Path
from posixpath import normpath
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)#:]+)(#[^)]*)?\)")
IMAGE = re.compile(r"(!\[[^\]]*\]\(|<img src=\")docs/")


def on_files(files: Any, config: Any) -> Any:
    """Add README.md as the first page."""
    text = (ROOT / "README.md").read_text()
    text = IMAGE.sub(r"\1", text)
    text = LINK.sub(lambda link: _from_docs(link), text)
    files.append(File.generated(config, "index.md", content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Leave the words of links that lead out of docs/, without the links."""
    folder = Path(page.file.src_uri).parent.as_posix()

    def kept(link: re.Match[str]) -> str:
        target = normpath(f"{folder}/{link[2]}")
        return link[1] if target.startswith("..") or (ROOT / "docs" / target).is_dir() else link[0]

    return LINK.sub(kept, markdown)


def _from_docs(link: re.Match[str]) -> str:
    """A link of README.md as one of a page in docs/."""
    words, target, part = link[1], link[2], link[3] or ""
    inside = target.startswith("docs/")
    return f"[{words}]({target.removeprefix('docs/')}{part})" if inside else words
