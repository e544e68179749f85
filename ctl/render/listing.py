"""A table that stays readable on a narrow terminal: where its columns do not fit side by side, each row is a block."""

from collections.abc import Iterator

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

_COLUMN_LETTERS = 8
"""A column that had to become narrower could not be read. The gap comes on top."""

_PADDING = 3


class Listing(Table):
    """Its headers and cells are Text, which has passed `printable`."""

    def __init__(self) -> None:
        super().__init__(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self.fits(options.max_width):
            yield from super().__rich_console__(console, options)
        else:
            yield from self._blocks(options.max_width)

    def fits(self, width: int) -> bool:
        """Whether it is shown as columns on so many letters."""
        wanted = (_widest(column.header, *column.cells) for column in self.columns)
        return sum(min(letters, _COLUMN_LETTERS) + _PADDING for letters in wanted) <= width

    def _blocks(self, width: int) -> Iterator[RenderableType]:
        headers = [column.header for column in self.columns]
        for number, row in enumerate(zip(*(column.cells for column in self.columns), strict=True), start=1):
            block = Table.grid(padding=(0, 2))
            block.add_column(style="hint", overflow="fold", max_width=width // 2)
            block.add_column(overflow="fold")
            for header, cell in zip(headers, row, strict=True):
                block.add_row(header, cell)
            yield Text(f"{number:,}.", "bold")
            yield block


def _widest(*cells: RenderableType) -> int:
    return max(cell.cell_len for cell in cells if isinstance(cell, Text))
