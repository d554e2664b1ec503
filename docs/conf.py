"""The site: these pages as they are, and an API reference made from the docstrings. `make docs` builds it."""

from __future__ import annotations

import os
import re
from pathlib import Path

from sphinx.application import Sphinx

import dlkit

HERE = Path(__file__).parent

project = "dlkit"
author = copyright = "The dlkit authors"  # noqa: A001 (Sphinx's own name)
version = release = dlkit.__version__

root_doc = "README"
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
templates_path = ["_templates"]
html_static_path = ["_static"]
html_css_files = ["site.css"]
exclude_patterns = ["_templates"]
html_theme = "pydata_sphinx_theme"
html_title = f"dlkit {version}"
html_theme_options = {
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "footer_start": ["dlkit-version", "copyright", "sphinx-version"],
}
html_context: dict[str, object] = {"default_mode": "auto"}  # the theme of the reader's system, light or dark
html_favicon = "images/icon.svg"
html_additional_pages = {"index": "start.html"}  # what a server shows for the folder

# Where this build is published: /dlkit/0.1.0/ or, for main, /dlkit/latest/. The list of versions is in /dlkit/, written
# by tools/site_versions.py, so a build that is not published has no menu of versions.
if _AT := os.environ.get("DLKIT_DOCS_AT"):
    _root, _folder = _AT.rstrip("/").rsplit("/", 1)
    html_context["dlkit_unreleased"] = _folder == "latest"
    html_theme_options |= {
        "switcher": {"json_url": f"{_root}/switcher.json", "version_match": _folder},
        "check_switcher": False,  # it would be read from the disk, and it is not there yet
        "navbar_end": ["version-switcher", "theme-switcher", "navbar-icon-links"],
        "show_version_warning_banner": True,
    }
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

myst_heading_anchors = 3
nb_execution_mode = "off"  # the tests run the notebooks

default_role = "py:obj"  # a name in backticks is a link where there is something to link to, else code
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_use_ivar = True
napoleon_use_rtype = False

# The inventories of the others come from the network, so they are asked for only where the site is published.
_ELSEWHERE = {
    "numpy": ("https://numpy.org/doc/stable", None),
    "sklearn": ("https://scikit-learn.org/stable", None),
    "pandas": ("https://pandas.pydata.org/docs", None),
    "python": ("https://docs.python.org/3", None),
    "torch": ("https://docs.pytorch.org/docs/stable", None),
    "torchvision": ("https://docs.pytorch.org/vision/stable", None),
}
#: What scikit-learn adds to each estimator, and describes by links into its own pages.
suppress_warnings = [] if os.environ.get("DLKIT_DOCS_ONLINE") else ["ref.term", "ref.ref"]
intersphinx_mapping = _ELSEWHERE if os.environ.get("DLKIT_DOCS_ONLINE") else {}


def _menu(room: Path, text: str) -> str:
    """The pages of a room in the order in which its map links to them, as Sphinx's menu."""
    linked = dict.fromkeys(re.findall(r"\]\(([\w./-]+)\.(?:md|ipynb)\b", text))
    pages = [page for page in linked if page != "README" and ".." not in page and any(room.glob(f"{page}.*"))]
    api = ["```{toctree}", ":caption: Every public name", ":maxdepth: 1", ":glob:", "", "api/*", "```", ""]
    hidden = ["", "```{toctree}", ":hidden:", "", *pages, "```", ""]
    return "\n".join([*hidden, *(api if (room / "api").is_dir() else [])])


def _add_menu(_: Sphinx, page: str, source: list[str]) -> None:
    """The maps stay plain Markdown, which is read on GitHub as well; Sphinx's own words are added here."""
    if page.endswith("README"):
        source[0] += _menu((HERE / page).parent, source[0])


def _without_private_bases(_: Sphinx, name: str, obj: type, options: object, bases: list[type]) -> None:
    """A private base class is written down as what it is made of."""
    bases[:] = [each for base in bases for each in (base.__bases__ if base.__name__.startswith("_") else (base,))]


def setup(app: Sphinx) -> None:
    """What Sphinx calls when it starts."""
    app.connect("source-read", _add_menu)
    app.connect("autodoc-process-bases", _without_private_bases)
