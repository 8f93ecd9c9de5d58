"""The options of every benchmark; imports nothing heavy, so that --help answers at once."""

from utils.cli import Parser, number


def bench_parser(doc: str) -> Parser:
    """A parser with --device and --json, for a script whose docstring is `doc`."""
    parser = Parser(doc)
    add = parser.add_argument
    add("--device", choices=("cpu", "cuda"), help="a GPU if there is one, where not given")
    add("--json", metavar="FILE", help="write every number here too")
    return parser


def add_networks(parser: Parser) -> None:
    """Give `parser` what benchmarks of whole networks have: which, on what, how often."""
    add = parser.add_argument
    add("archs", metavar="ARCH", nargs="+", help="networks; a wrong name lists all")
    add("-b", "--batch-size", type=number(int, 2), help="images a step (CPU: 16, CUDA: 256)")
    add("--image-size", type=number(int, 32), default=224, help="pixels a side")
    add("--rounds", type=number(int, 2), default=7, help="measured turns of each")
