"""Compile ``protos/*.proto`` into ``extproc/pb/``: Python modules and their type stubs.

``python protos/generate.py`` writes the checked-in code; with a directory as argument it
writes there, which is how a test notices that somebody forgot. The include path is mapped to
``extproc/pb``, so a file's name in the descriptor pool is ours alone, and the generated
modules would import each other by their real names.
"""

# ruff: noqa: INP001 -- a script beside its data, not a package

import sys
from importlib import resources
from pathlib import Path

from grpc_tools import protoc

PROTOS = Path(__file__).resolve().parent
PACKAGE = "extproc/pb"


def generate(root: Path) -> None:
    """Write ``root/extproc/pb/*_pb2.py`` and ``.pyi``; raises RuntimeError when protoc fails."""
    names = sorted(path.name for path in PROTOS.glob("*.proto"))
    # grpc_tools ships no types.
    status: int = protoc.main(  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        [
            "protoc",
            f"-I{PACKAGE}={PROTOS}",
            f"-I{resources.files('grpc_tools') / '_proto'}",
            f"--plugin=protoc-gen-mypy={Path(sys.executable).parent / 'protoc-gen-mypy'}",
            f"--python_out={root}",
            f"--mypy_out=quiet:{root}",
            *(f"{PACKAGE}/{name}" for name in names),
        ]
    )
    if status != 0:
        raise RuntimeError(f"protoc ended with status {status}")


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else PROTOS.parent)
