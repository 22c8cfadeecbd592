"""Formulas: of docstrings to Markdown's dollars, and of pages to MathML, which browsers show without a script."""

from __future__ import annotations

import html
import re
import textwrap
from typing import Any

import griffe
from latex2mathml.converter import convert

ROLE = re.compile(r":math:`([^`]+)`")
BLOCK = re.compile(r"^([ ]*)\.\. math:: *((?:.+\n?)+?)(?=\n|\Z)", re.M)
SHOWN = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.S)

# A sign with an index has no size of its own in MathML; a pair around what it encloses has.
FENCES = (
    (r"\\[bB]ig\(", r"\\left("),
    (r"\\[bB]ig\)", r"\\right)"),
    (r"\\lVert(?![a-zA-Z])", r"\\left\\lVert "),
    (r"\\rVert(?![a-zA-Z])", r"\\right\\rVert "),
)
WORD = re.compile(r'(?:<mi mathvariant="normal">\w</mi>){2,}')


class Maths(griffe.Extension):
    """Lets the docstrings' formulas, which are written as Sphinx reads them, be those of Markdown."""

    def on_instance(self, *, obj: griffe.Object | griffe.Alias, **kwargs: Any) -> None:
        """Rewrite a docstring before it is parsed."""
        if obj.docstring is not None:
            obj.docstring.value = in_dollars(obj.docstring.value)


def in_dollars(text: str) -> str:
    """Return a docstring with `$...$` and `$$...$$` in place of Sphinx's roles and directives."""

    def block(found: re.Match[str]) -> str:
        formula = " ".join(line.strip() for line in found[2].splitlines())
        return textwrap.indent(f"$$\n{formula}\n$$\n", found[1])

    return BLOCK.sub(block, ROLE.sub(r"$\1$", text))


def in_mathml(page: str) -> str:
    """Return a page's HTML with MathML in the place of TeX.

    Raises:
        ValueError: for a command that has no counterpart.
    """
    return SHOWN.sub(_formula, page)


def _formula(found: re.Match[str]) -> str:
    tex = html.unescape(found[3]).strip()
    kind = "inline" if found[2] == "(" else "block"
    made = WORD.sub(_word, str(convert(_fenced(tex), display=kind)))
    if "\\" in made:
        raise ValueError(f"a formula has a command that MathML has not: {tex}")
    # Who reads the source, or copies, gets the TeX.
    return f'<{found[1]} class="arithmatex" title="{html.escape(tex)}">{made}</{found[1]}>'


def _fenced(tex: str) -> str:
    for sign, fence in FENCES:
        tex = re.sub(sign, fence, tex)
    return tex


def _word(found: re.Match[str]) -> str:
    letters = re.findall(r">(\w)<", found[0])
    return f'<mi mathvariant="normal">{"".join(letters)}</mi>'
