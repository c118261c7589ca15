"""``tfcseg export`` and ``tfcseg convert``: masks of a finished run, and models, for other programs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from tfcseg.cli import options
from tfcseg.cli.console import print_line, print_warning, progress
from tfcseg.cli.groups import Without, grouped, names_of
from tfcseg.errors import UsageError
from tfcseg.exports import FORMATS
from tfcseg.files import claimed_files
from tfcseg.runs.options import ResultOptions
from tfcseg.spelling import visible

_OTHER_RESULTS = {*names_of(ResultOptions)} - {"classes", "exclude", "palette"}


@grouped
def command(
    *,
    folder: Annotated[Path, typer.Argument(metavar="RUN_FOLDER", help="Folder of a finished run with masks.")],
    to: Annotated[
        list[str] | None, options.some_of("format", FORMATS, f"What to write: {', '.join(FORMATS)}.", default="all")
    ] = None,
    results: Annotated[ResultOptions, Without(*_OTHER_RESULTS)],
    source: Annotated[
        str | None, typer.Option(help="The video, for mattes.", show_default="where the run read it, or source.mp4")
    ] = None,
    fps: options.FrameRate = None,
    overwrite: options.Overwrite = False,
    printing: Annotated[options.Printing, Without("as_json")],
) -> None:
    """Write a finished run's masks for other programs.

    Example: tfcseg export half_a_second --to coco,yolo
    """
    from tfcseg.runs.exporting import export_run

    with progress(shown=not printing.quiet) as on_progress:
        wanted = replace(results, export=to or FORMATS)
        exported = export_run(folder, wanted, source=source, frame_rate=fps, overwrite=overwrite, on_frame=on_progress)
    for note in exported.notes:
        print_warning(note)
    for name in exported.files.values():
        print(visible(str(folder / name)))


ConvertSource = Annotated[
    str,
    typer.Argument(
        help="A Hugging Face folder, a .safetensors or .pth file, or ORG/NAME[@REVISION]; for ONNX any model.",
        callback=options.on_disk,
    ),
]
ConvertOutput = Annotated[Path, typer.Argument(metavar="OUT", help="File to write, .safetensors or .onnx.")]
Name = Annotated[str | None, typer.Option(help="Name of the model in its card.", show_default="the source's")]
Licence = Annotated[str | None, typer.Option(help="Licence of the weights in the card.", show_default="the source's")]
FrameSize = Annotated[
    Any,  # typer would take a tuple for two arguments
    typer.Option(
        help="ONNX: size of the frames that are to be segmented.",
        show_default="1280x720",
        parser=options.frame_size,
        metavar="WIDTHxHEIGHT",
    ),
]
Size = Annotated[
    int | None,
    typer.Option(help="ONNX: short side of the network's input.", min=32, max=4096, show_default="the model's"),
]


@grouped
def convert_command(
    *,
    source: ConvertSource,
    output: ConvertOutput,
    name: Name = None,
    licence: Licence = None,
    frame_size: FrameSize = None,
    size: Size = None,
    allow_network: options.AllowNetwork = False,
    overwrite: options.Overwrite = False,
    printing: Annotated[options.Printing, Without("as_json")],
) -> None:
    """Write a SegFormer as one weights file, or a model as ONNX.

    OUT.onnx is for keyframes, OUT.non_keyframe.onnx for the frames between them.

    Example: tfcseg convert segformer-b0 segformer-b0.safetensors
    """
    options.check_weights_name(output, ".onnx")
    if output.suffix == ".onnx":
        if name is not None or licence is not None:
            raise UsageError("--name and --licence are for .safetensors; ONNX graphs have those of the model")
        from tfcseg.inference.onnx_graphs import non_keyframe_path, write_onnx

        second = non_keyframe_path(output)
        with claimed_files(output.parent, [output.name, second.name], inputs=[source], overwrite=overwrite):
            agreement = write_onnx(source, output, frame_size or (720, 1280), size)
        if not printing.quiet:
            print_line(f"{agreement:.2%} of the labels in a test are those of PyTorch (one side, no sparse attention)")
        print(visible(str(output)))
        print(visible(str(second)))
        return
    if frame_size is not None or size is not None:
        raise UsageError("--frame-size and --size are for .onnx; a weights file takes frames of any size")
    from tfcseg.weights.loading import convert

    with claimed_files(output.parent, [output.name], inputs=[source], overwrite=overwrite):
        card = convert(source, output, name=name, licence=licence)
    if not printing.quiet:
        print_line(f"{card.name}: {card.description}; {len(card.labels)} classes; licence: {card.licence}")
    print(visible(str(output)))
