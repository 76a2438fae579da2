"""Check that every name in an ``__all__`` exists and is documented where it is defined."""

from __future__ import annotations

import ast
import sys
from pathlib import Path


def exported(tree: ast.Module) -> list[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(
            isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets
        ):
            return list(ast.literal_eval(node.value))
    return []


def documented(tree: ast.Module) -> dict[str, bool]:
    """Map each name defined or imported at the top of a module to whether it is documented there."""
    names: dict[str, bool] = {}
    body = tree.body
    for node, following in zip(body, [*body[1:], None], strict=True):
        has_doc = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names[node.name] = bool(ast.get_docstring(node))
        elif isinstance(node, ast.Assign):
            names.update({t.id: has_doc for t in node.targets if isinstance(t, ast.Name)})
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names[node.target.id] = has_doc
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names.update({(a.asname or a.name).split(".")[0]: True for a in node.names})
        elif isinstance(node, (ast.If, ast.Try, ast.With)):
            names.update(documented(ast.Module(body=node.body, type_ignores=[])))
    return names


def problems(path: Path) -> list[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = documented(tree)
    is_lazy = (
        "__getattr__" in names
    )  # a package that imports on first use documents its names at their origin
    out = []
    for name in exported(tree):
        if name not in names:
            if not is_lazy and not (path.parent / f"{name}.py").exists():
                out.append(f"{path}: {name} is in __all__ but not defined")
        elif not names[name] and name != "__version__":
            out.append(f"{path}: {name} is in __all__ but has no docstring")
    return out


def main(packages: list[str]) -> int:
    found = [
        line
        for package in packages
        for path in sorted(Path(package).rglob("*.py"))
        for line in problems(path)
    ]
    print("\n".join(found) or f"every name in __all__ of {', '.join(packages)} is documented")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
