"""What every command line shares: spellings, types, and one line with code 2 for a mistake."""

import re

import pytest

from utils.cli import (
    WORKERS,
    Parser,
    add_batches,
    add_gpu,
    add_recognition,
    comma_list,
    number,
    share,
)


@pytest.fixture
def parser() -> Parser:
    parser = Parser("What it does.\n\nHow it is called.", {"--world-size": "torchrun counts"})
    parser.add_argument("data", nargs="?")
    parser.add_argument("-b", "--batch-size", type=number(int, 1))
    parser.add_argument("--num-classes", type=number(int, 1))
    parser.add_argument("--lr", type=number(float, 0))
    parser.add_argument("--clip-grad", type=number(float, 0, exclusive=True))
    parser.add_argument("--ema", type=share)
    parser.add_argument("--seeds", type=comma_list(number(int, 0)))
    parser.add_argument("--cos-lr", action="store_true")
    return parser


def refusal(parser: Parser, capsys, words: str) -> str:
    with pytest.raises(SystemExit) as end:
        parser.parse_args(words.split())
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_help_shows_examples_and_values_alone(capsys):
    parser = Parser("What it does.\n\n    python it.py DATA --lr 1 \\\n        --seed 2\n\nMore.")
    parser.add_argument("--lr", type=float, default=0.1, help="how fast")
    parser.add_argument("--seed", help="to repeat it")
    with pytest.raises(SystemExit):
        parser.parse_args(["--help"])
    said = capsys.readouterr().out
    assert "\nWhat it does.\n" in said
    assert said.endswith("examples:\n    python it.py DATA --lr 1 \\\n        --seed 2\n")
    assert "how fast (default: 0.1)" in said
    assert "None" not in said
    assert "More." not in said
    with pytest.raises(SystemExit):
        parser.parse_args(["--version"])
    assert re.fullmatch(r"simam \d+\.\d+\.\d+\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    "words", ["--batch_size 3 --cos_lr", "--batch_size=3 --cos_lr", "-b 3 --cos-lr", "-b3 --cos-lr"]
)
def test_underscores_are_dashes_in_every_option(parser, words):
    args = parser.parse_args(words.split())
    assert (args.batch_size, args.cos_lr) == (3, True)


def test_underscores_elsewhere_stay(parser, monkeypatch):
    parser.add_argument("--ckpt")
    words = ["my_data", "--ckpt", "a_b", "--num_classes=5"]
    args = parser.parse_args(words)
    assert (args.data, args.ckpt, args.num_classes) == ("my_data", "a_b", 5)
    assert parser.parse_args(["--ckpt=--batch_size"]).ckpt == "--batch_size"
    monkeypatch.setattr("sys.argv", ["program", *words])
    assert parser.parse_args() == args


@pytest.mark.parametrize("words", ["--world-size 2", "--world_size=2", "data --world_size"])
def test_a_removed_option_names_what_replaces_it(parser, capsys, words):
    line = "error: --world-size is gone: torchrun counts (see --help)"
    assert refusal(parser, capsys, words) == line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--nope", "unrecognized arguments: --nope"),
        ("--no_pe", "unrecognized arguments: --no_pe (see"),
        ("--batch 3", "unrecognized arguments: --batch; did you mean --batch-size?"),
        ("--num_class=3", "unrecognized arguments: --num_class; did you mean --num-classes?"),
        ("--batch_size", "argument -b/--batch-size: expected one argument"),
        ("-b 0", "argument -b/--batch-size: 0 is not at least 1"),
        ("-b 1.5", "argument -b/--batch-size: invalid whole number value: '1.5'"),
        ("--lr x", "argument --lr: invalid number value: 'x'"),
        ("--lr nan", "argument --lr: nan is not at least 0"),
        ("--lr inf", "argument --lr: inf is not at least 0"),
        ("--clip-grad 0", "argument --clip-grad: 0 is not above 0"),
        ("--ema 1", "argument --ema: 1 is not at least 0 and below 1"),
        ("--ema nan", "argument --ema: nan is not at least 0 and below 1"),
        ("--seeds 1,2,1", "argument --seeds: 1,2,1 names one twice"),
        ("--seeds 1,,2", "argument --seeds: invalid list value: '1,,2'"),
        ("--seeds 1,-2", "argument --seeds: -2 is not at least 0"),
        (f"--seeds {2**63}", f"argument --seeds: {2**63} is not below {2**63}"),
    ],
)
def test_a_mistake_is_one_line(parser, capsys, words, message):
    assert refusal(parser, capsys, words).startswith(f"error: {message}")


def test_values_at_the_limits_are_taken(parser):
    words = f"-b 1 --lr 0 --clip-grad 1e-9 --ema 0 --seeds 0,{2**63 - 1}"
    args = parser.parse_args(words.split())
    assert (args.batch_size, args.lr, args.clip_grad, args.ema) == (1, 0.0, 1e-9, 0.0)
    assert args.seeds == [0, 2**63 - 1]


def test_options_that_commands_share(capsys):
    parser = Parser("What it does.")
    for add in (add_recognition, add_batches, add_gpu):
        add(parser)
    words = "-b 8 --image_size 32 --attention-type simam --attention-param 0.1 --gpu -1"
    assert vars(parser.parse_args(words.split())) == {
        **{"attention_type": "simam", "attention_param": 0.1, "image_size": 32},
        **{"batch_size": 8, "workers": WORKERS, "gpu": "-1"},
    }
    assert "--image-size: 31 is not at least 32" in refusal(parser, capsys, "--image-size 31")
