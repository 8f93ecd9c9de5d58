"""The options of every benchmark; imports nothing heavy, so that --help answers at once."""

from utils.cli import Parser


def bench_parser(doc: str) -> Parser:
    """A parser with --device and --json, for a script whose docstring is `doc`."""
    parser = Parser(doc)
    add = parser.add_argument
    add("--device", choices=("cpu", "cuda"), help="a GPU if there is one, where not given")
    add("--json", metavar="FILE", help="write every number here too")
    return parser
