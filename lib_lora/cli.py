"""The command line.

Exit codes: 0 success, 1 a bug, 2 wrong input or no result; 128 plus its number if a signal ended a training.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lib_lora import __version__
from lib_lora.cli_options import add_files, add_options, config_from
from lib_lora.config.groups import TrainConfig, title
from lib_lora.errors import ConfigError, TrainLoraError
from lib_lora.events import (
    BestSaved,
    Chosen,
    Encoded,
    Event,
    Finished,
    HeldOut,
    Left,
    Note,
    Phase,
    Planned,
    Sampled,
    SavedBetween,
    StateSaved,
    StepDone,
)
from lib_lora.output.written_files import left_lines
from lib_lora.paths import at_home
from lib_lora.run_control import RunControl
from lib_lora.signals import leaving


def main(argv: Sequence[str]) -> int:
    """Run one command; its result is the last line of stdout, all else goes to stderr."""
    args = _parser().parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # the console may lack a character
    try:
        command: Callable[[argparse.Namespace], object] = args.command
        result = command(args)
    except TrainLoraError as error:
        for problem in error.problems:
            _tell(problem)
        return 2
    except _SignalledError as ended:
        _tell(str(ended))
        return 128 + ended.number
    except KeyboardInterrupt:
        _tell("Ended.")
        return 128 + signal.SIGINT
    except Exception:  # noqa: BLE001 - a bug of ours: the traceback is wanted
        traceback.print_exc()
        print(f"sd-webui-train-lora {__version__}: this is a bug; please report the lines above.", file=sys.stderr)
        return 1
    print(result if isinstance(result, str) else json.dumps(result))
    return 0


class _SignalledError(Exception):
    """A signal ended a training before it had a result."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__(text)
        self.number = number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lib_lora", description="Train LoRAs of Stable Diffusion models.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    train = commands.add_parser("train", help="train a LoRA on a checkpoint file", allow_abbrev=False)
    add_options(train)
    train.set_defaults(command=_train)
    counted = commands.add_parser("estimate", help="how much memory a run needs", allow_abbrev=False)
    add_options(counted)
    counted.add_argument("--device", choices=("cuda", "cpu"), help="the device to run on; default: the one in this computer")
    counted.add_argument("--json", action="store_true", help="one JSON object, in bytes")
    counted.set_defaults(command=_estimate)
    replay = commands.add_parser("replay", help="replay a recorded sd-scripts run")
    replay.add_argument("recording", type=_file)
    replay.add_argument("--checkpoint", type=_file, required=True)
    replay.set_defaults(command=_replay)
    data = commands.add_parser("replay-data", help="compare the data path with a recorded table")
    data.add_argument("table", type=_file)
    data.add_argument("--pixels", type=_file)
    data.add_argument("--photos", type=Path)
    data.set_defaults(command=_replay_data)
    inspect = commands.add_parser("inspect", help="show what a LoRA file contains")
    inspect.add_argument("lora", type=Path)
    inspect.add_argument("--json", action="store_true")
    inspect.set_defaults(command=_inspect)
    cut = commands.add_parser("truncate", help="cut a LoRA that was trained with DyLoRA: unit down to a lower rank")
    cut.add_argument("lora", type=Path)
    cut.add_argument("--rank", type=int, required=True)
    cut.add_argument("--out", type=Path, required=True, help="the file to write")
    cut.set_defaults(command=_truncate)
    imported = commands.add_parser("import-kohya", help="show what each key of a kohya_ss or sd-scripts file becomes")
    imported.add_argument("file", type=Path)
    imported.add_argument("--json", action="store_true", help="print only one JSON object")
    imported.set_defaults(command=_import_kohya)
    exported = commands.add_parser(
        "export-kohya", help="export settings as a file for sd-scripts or kohya_ss", allow_abbrev=False
    )
    add_files(exported)
    exported.add_argument("--form", choices=("toml", "json", "dataset"), default="toml", help="sd-scripts, kohya_ss, folders")
    exported.add_argument("--out", type=Path, required=True, help="the file to write")
    exported.set_defaults(command=_export_kohya)
    tiny = commands.add_parser("tiny", help="write the embedded tiny checkpoint as a file for the webui")
    tiny.add_argument("folder", type=Path)
    tiny.set_defaults(command=_tiny)
    return parser


def _file(text: str) -> Path:
    path = Path(text).expanduser()
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"{text!r} is not a file")
    return path


def _need(config: TrainConfig, **wanted: str) -> None:
    """Refuse empty paths; `wanted`: option name -> what its argument takes."""
    empty = [f"{title(name)}: is empty; use --{name} {what}." for name, what in wanted.items() if not getattr(config.run, name)]
    if empty:
        raise ConfigError(empty)


def _train(args: argparse.Namespace) -> str:
    from lib_lora.hosts.standalone import StandaloneHost
    from lib_lora.train import train

    config = config_from(args)
    _need(config, checkpoint="FILE", out="DIR")
    full = config.precision.mixed_precision == "no"
    host = StandaloneHost(at_home(config.run.checkpoint), at_home(config.run.out), full_precision=full)
    control = RunControl()
    return str(_followed(train(config, host, control), control))


def _followed(events: Iterator[Event], control: RunControl) -> Path:
    """The path of the LoRA of a run, reported on stderr. After its plan, a signal has the run save its state and end.

    Raises:
        _SignalledError: a signal ended it before it had a result.
    """
    state: StateSaved | None = None
    _report(next(events))
    with leaving(control, _tell) as came:
        for event in events:
            _report(event)
            state = event if isinstance(event, StateSaved) else state
            if isinstance(event, Finished) and event.path is not None:
                return event.path
    told = "before its first step; there is no state to resume from"
    if state is not None:
        told = f"after step {state.step}; --resume {state.folder.name} continues from there"
    raise _SignalledError(came[0], f"The run was ended {told}.")


def _estimate(args: argparse.Namespace) -> str:
    import torch

    from lib_lora.check import look
    from lib_lora.estimate.estimate import as_json, estimate, table
    from lib_lora.hosts.standalone import StandaloneHost, default_device

    config = config_from(args)
    _need(config, checkpoint="FILE")
    device = torch.device(args.device) if args.device else default_device()
    full = config.precision.mixed_precision == "no"
    host = StandaloneHost(at_home(config.run.checkpoint), Path(), device, full_precision=full)
    found = look(config, host)
    plan = found.planned() if config.data.data else None
    for text in [f"Captions: {plan.captions}", *plan.notes] if plan else ():
        _tell(text)
    counted = estimate(found.settled, host.look(), device, plan)
    return json.dumps(as_json(counted)) if args.json else table(counted)


def _report(event: object) -> None:
    """Write an event to stderr."""
    text = _line(event)
    if text:
        _tell(text)


def _tell(text: str) -> None:
    """Write a line to stderr; errors are ignored, since a closed terminal must not end a training."""
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)


def _line(event: object) -> str | None:  # noqa: C901 - one line for each kind
    """The text for an event, or None."""
    if isinstance(event, Planned):
        plan = event.plan
        return "\n".join(filter(None, (plan.model, plan.layers, f"Captions: {plan.captions}", plan.formula)))
    if isinstance(event, (Phase, Chosen, Note)):
        return event.text
    if isinstance(event, Encoded):
        return f"encoded {event.done}/{event.total} images"
    if isinstance(event, StepDone):
        return f"step {event.step}/{event.total} epoch {event.epoch} loss {event.loss:.4f}"
    if isinstance(event, SavedBetween):
        return f"saved {event.path}"
    if isinstance(event, StateSaved):
        return f"saved the state {event.folder}"
    if isinstance(event, Sampled):
        return f"generated {len(event.paths)} samples in {event.paths[0].parent}"
    if isinstance(event, HeldOut):
        measured = f"{event.loss:.4f}" if math.isfinite(event.loss) else "is not a number"
        return f"step {event.step} validation loss {measured}"
    if isinstance(event, BestSaved):
        return f"the lowest validation loss, {event.loss:.4f}, was at step {event.step}: {event.path}"
    if isinstance(event, Left):
        return "\n".join(f"left on the disk: {line}" for line in left_lines(event.paths))
    return None


def _replay(args: argparse.Namespace) -> dict[str, Any]:
    from lib_lora.hosts.standalone import StandaloneHost
    from lib_lora.replay.step import load_recording, replay

    recording = load_recording(args.recording)
    with StandaloneHost(args.checkpoint, args.checkpoint.parent, full_precision=True).borrow_model() as base:
        return {"replay": replay(recording, base)}


def _replay_data(args: argparse.Namespace) -> dict[str, Any]:
    from lib_lora.replay.data import replay_data

    return {"replay_data": replay_data(args.table, args.pixels, args.photos)}


def _inspect(args: argparse.Namespace) -> str:
    from lib_lora.output.inspect import describe

    found = describe(args.lora)
    if args.json:
        return json.dumps(found)
    metadata = found.pop("metadata")
    lines = [f"{key}: {value}" for key, value in found.items()]
    return "\n".join([*lines, *(f"  {key} = {value}" for key, value in sorted(metadata.items()))])


def _truncate(args: argparse.Namespace) -> str:
    from lib_lora.output.truncate import truncate

    return str(truncate(args.lora.expanduser(), args.rank, args.out.expanduser()))


def _import_kohya(args: argparse.Namespace) -> str:
    from lib_lora.kohya.importing import import_file
    from lib_lora.kohya.report import import_text

    found = import_file(args.file)
    return json.dumps(found.report()) if args.json else import_text(found)


def _export_kohya(args: argparse.Namespace) -> str:
    from lib_lora.files.atomic import write_atomically
    from lib_lora.kohya.export import export_files

    for path, text in export_files(config_from(args), args.form, args.out).items():
        try:
            write_atomically(path, text.encode())
        except OSError as error:
            raise ConfigError([f"File (out): {str(path)!r} cannot be written ({error.strerror}); choose another."]) from error
    return str(args.out)


def _tiny(args: argparse.Namespace) -> str:
    from lib_lora.tiny import write_tiny

    return str(write_tiny(args.folder.expanduser()))
