"""The type of what ``add_subparsers`` returns, which argparse keeps to itself."""

import argparse
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    Subparsers: TypeAlias = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - see above
else:
    Subparsers = object
