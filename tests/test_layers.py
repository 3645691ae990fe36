"""The floors of the house: a module imports from its own floor or below; train, evaluation, export never each other."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1] / "zhtune"
FLOOR = {
    "__version__": 0, "errors": 0, "config": 0, "artifact": 0, "building": 0, "digests": 0, "references": 0, "assets": 0, "records": 0, "text": 0, "log": 0, "page": 0, "parallel": 0,
    "corpus": 1, "vocabulary": 1, "graph": 1, "synthesis": 1, "templates": 1, "tokenizers": 1,
    "models": 2, "train": 3, "evaluation": 3, "export": 3, "serving": 4, "stages": 5, "cli": 6, "__main__": 7,
}
TORCH = ("torch", "transformers", "peft", "trl", "accelerate")


def imports(path):
    """Every module named by an import in a file, in functions too."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the floor"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names if node.module == "zhtune")


def required(path):
    """Libraries that a file asks for by name: `require("torch", "train")`, `import_module("torch")`."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) in ("require", "import_module"):
            yield from (a.value for a in node.args[:1] if isinstance(a, ast.Constant))


def part(module):
    return module.split(".")[1] if "." in module else ""


def test_every_module_has_a_floor():
    own = {p.name.removesuffix(".py") for p in ROOT.iterdir() if (p.suffix == ".py" or (p / "__init__.py").exists())}
    assert own - set(FLOOR) == {"__init__"}                 # which holds the lazy table of the public names, nothing else


def test_imports_go_down_only():
    wrong = []
    for path in sorted(ROOT.rglob("*.py")):
        own = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if own == "__init__":
            continue
        for module in imports(path):
            if module.split(".")[0] != "zhtune" or module == "zhtune":
                continue
            other = part(module)
            if FLOOR.get(other, 9) > FLOOR[own] or (FLOOR.get(other) == 3 and FLOOR[own] == 3 and other != own):
                wrong.append(f"{path.relative_to(ROOT)} imports {module}")
    # a recipe names verbs, so `run` reads the table of the CLI
    assert [w for w in wrong if not w.startswith("stages/run.py imports zhtune.cli")] == []


def test_floors_0_and_1_need_no_torch():
    low = [p for p in ROOT.rglob("*.py") if FLOOR.get(p.relative_to(ROOT).parts[0].removesuffix(".py"), 9) <= 1]
    assert len(low) > 20
    assert [(p.name, m) for p in low for m in (*imports(p), *required(p)) if m.split(".")[0] in TORCH] == []
