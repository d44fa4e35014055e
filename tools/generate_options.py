"""Write the options, parameters and documentation, from fluvio_cffi/_options.py into fluvio_cffi/_async/.

In each function of `TARGETS` the parameters behind the star are written anew, and their entries under
"Args:". Whatever else the function has stays. `--check` compares instead of writing and fails on a
difference; the drift test does the same. Run tools/generate_sync.py afterwards.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "fluvio_cffi" / "_async"
# By file: function and the name of its table.
TARGETS = {
    "client.py": {"connect": "CLIENT", "producer": "PRODUCER", "consumer": "CONSUMER"},
    "admin.py": {"create": "TOPIC"},
}
WIDTH = 110


def written(source: str, targets: dict[str, str]) -> str:
    """The text of a module with the options of `targets` written anew."""
    from fluvio_cffi import _options

    lines = source.splitlines(keepends=True)
    functions = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name in targets
    ]
    # From the bottom, so that line numbers above stay right.
    for node in sorted(functions, key=lambda node: -node.lineno):
        options = getattr(_options, targets[node.name]).options
        indent = " " * (node.col_offset + 4)
        docstring = node.body[0]
        assert docstring.end_lineno is not None
        others = {argument.arg for argument in node.args.args}
        _document(lines, docstring.lineno - 1, docstring.end_lineno, indent, options, others)
        first = next(n for n in range(node.lineno, len(lines)) if lines[n].strip() == "*,") + 1
        last = next(n for n in range(first, len(lines)) if lines[n].lstrip().startswith(")"))
        lines[first:last] = [f"{indent}{o.name}: {o.type} = {o.default},\n" for o in options]
    return "".join(lines)


def _document(
    lines: list[str], first: int, last: int, indent: str, options: tuple[object, ...], others: set[str]
) -> None:
    """Write the entries of the options under "Args:", behind those of other parameters."""
    start = next(n for n in range(first, last) if lines[n].strip() == "Args:") + 1
    end = next(n for n in range(start, last) if not lines[n].strip() or lines[n].strip() == '"""')
    kept: list[str] = []
    stays = True
    for line in lines[start:end]:
        entry = re.match(rf"{indent}    (\w+): ", line)
        if entry:
            stays = entry[1] in others
        if stays:
            kept.append(line)
    for option in options:
        text = f"{option.name}: {option.meaning}"  # type: ignore[attr-defined]
        lead = indent + "    "
        wrapped = textwrap.wrap(
            text, WIDTH, initial_indent=lead, subsequent_indent=lead + "    ", break_on_hyphens=False
        )
        kept += [line + "\n" for line in wrapped]
    lines[start:end] = kept


def generate() -> dict[str, str]:
    """The modules with options, by file name."""
    sys.path.insert(0, str(ROOT))
    return {
        name: written((FOLDER / name).read_text(encoding="utf-8"), targets)
        for name, targets in TARGETS.items()
    }


def main() -> int:
    """Command line entry."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="compare, do not write")
    arguments = parser.parse_args()
    for name, text in generate().items():
        path = FOLDER / name
        if path.read_text(encoding="utf-8") == text:
            continue
        if arguments.check:
            print(f"{name} is out of date: run python tools/generate_options.py", file=sys.stderr)
            return 1
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
