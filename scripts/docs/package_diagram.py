"""Draw the packages of src/convae and their imports into docs/architecture.md, in Mermaid.

python -m scripts.docs.package_diagram      # tests/docs/test_architecture.py finds a stale drawing

An arrow leads from a package to one that it imports. Arrows that follow from others are left out:
where A imports B and C, and B imports C, the drawing shows A to B to C.
"""

from __future__ import annotations

import grimp

from scripts.project import ROOT, write_between

PAGE = ROOT / "docs/architecture.md"
BEGIN, END = "<!-- written by scripts/docs/package_diagram.py -->", "<!-- end -->"


def package_imports() -> dict[str, set[str]]:
    """Return the packages that each package imports; the modules of the root are one, `root`."""
    graph = grimp.build_graph("convae", cache_dir=None)
    packages = {name for name in graph.find_children("convae") if graph.find_children(name)}

    def package_of(module: str) -> str:
        name = ".".join(module.split(".")[:2])
        return name.removeprefix("convae.") if name in packages else "root"

    imports: dict[str, set[str]] = {package_of(name): set() for name in sorted(packages)}
    imports["root"] = set()
    # These two offer the public names and the command line; nothing builds on them.
    for module in graph.modules - {"convae", "convae.__main__"}:
        package = package_of(module)
        imported = {package_of(name) for name in graph.find_modules_directly_imported_by(module)}
        imports[package] |= imported - {package}
    return imports


def reduce_transitively(imports: dict[str, set[str]]) -> dict[str, set[str]]:
    """Leave out each import of a package that another of its imports reaches."""

    def reach(package: str) -> set[str]:
        return imports[package].union(*(reach(name) for name in imports[package]))

    return {
        package: names - set().union(*(reach(name) for name in names))
        for package, names in imports.items()
    }


def page() -> str:
    """Return the page with the drawing of today."""
    arrows = [
        f"    {package} --> {name}"
        for package, names in reduce_transitively(package_imports()).items()
        for name in sorted(names)
    ]
    drawing = "\n".join(["```mermaid", "flowchart TD", *arrows, "```"])
    return write_between(PAGE.read_text(encoding="utf-8"), BEGIN, drawing, END)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
