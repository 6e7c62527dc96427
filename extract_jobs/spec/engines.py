"""What can run the splits of a table."""

from typing import Literal

Engine = Literal["auto", "processes", "spark"]
