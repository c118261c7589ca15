"""Compare modes on one video, each as `run` runs it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from tfcseg.comparison.frame_by_frame import PICTURE_PATTERN, ClassMasks, FrameComparer
from tfcseg.comparison.page import write_page
from tfcseg.comparison.plan import MAX_SAMPLE, Plan, Run, known_folders
from tfcseg.comparison.result import COMPARE_HTML, COMPARE_JSON, Comparison, Difference, common_facts
from tfcseg.files import claimed_files, write_json
from tfcseg.inference.segmented import SegmentedFrame
from tfcseg.media.frames import Frame, FrameSource, Image, VideoInfo, prefetch_frames
from tfcseg.media.reader import open_frames
from tfcseg.media.source import Given, Source
from tfcseg.options import OnProgress
from tfcseg.report.schema import Report
from tfcseg.runs.outputs import OutputDir, claimed_output, default_output
from tfcseg.runs.pipeline import run
from tfcseg.runs.result_options import ResultOptions
from tfcseg.weights.device import DeviceOptions
from tfcseg.weights.loading import LoadedModel, open_model

SIDE_BY_SIDE, DIFFERENCES = "side_by_side.mp4", "differences"
_FLOP_SAMPLES = 3
"""Number of intervals, spread over the video, on which FLOPs are counted."""


def compare_video(
    source: Given,
    output: str | Path | None = None,
    model: str | Path | LoadedModel = "default",
    plan: Plan | None = None,
    *,
    start_s: float | None = None,
    end_s: float | None = None,
    device: DeviceOptions = DeviceOptions(),
    overwrite: bool = False,
    allow_network: bool = False,
    on_progress: OnProgress = lambda task, done, total: None,
) -> Comparison:
    """Run the modes of ``plan`` on a video or a folder of frames, one after the other, and compare what they give.

    output: folder, by default ``<stem>_compare`` in the current one. It gets ``compare.json``, ``compare.html``,
    ``side_by_side.mp4``, pictures of the greatest differences, and a folder per run with all that `run` writes. Every
    run is warmed up before its clock starts. Any failure raises a TfcsegError with one line.
    """
    plan = plan or Plan()
    source = Source.of(source, allow_network=allow_network)
    source.check()
    source.check_readable_again("every mode reads the video")
    folder = Path(output) if output is not None else default_output(source, "compare")
    inputs = [*source.places, *([] if plan.baseline is None else [Path(plan.baseline)])]
    with claimed_files(folder, _result_names(folder), inputs=inputs, overwrite=overwrite) as clear:
        with _claimed_runs(folder, plan, inputs, overwrite=overwrite):
            loaded = open_model(model, device)
            clip = _Clip(source, start_s, end_s, on_progress)
            wanted = plan.without_doubles(loaded)
            job = _VideoComparison(clip, folder, wanted, loaded, wanted.runs(loaded))
            opening = clip.read(max(each.options.keyframe_interval for each in job.runs))
            baseline = job.measure_baseline()
        clear()
        for unused in set(plan.network_modes) - {each.mode for each in job.runs}:
            with suppress(OSError):  # it is not empty, and not ours
                (folder / unused).rmdir()
        result = job.result(baseline, [job.run(each, opening) for each in job.runs])
        write_page(folder / COMPARE_HTML, result)
        write_json(folder / COMPARE_JSON, result)
    return result


@dataclass(frozen=True, slots=True)
class _Clip:
    """The compared part of a video; it is read once per run, and a few more times."""

    source: Source
    start_s: float | None
    end_s: float | None
    on_progress: OnProgress

    def open(self, skip_s: float = 0.0) -> FrameSource:
        start_s = (self.start_s or 0.0) + skip_s if skip_s else self.start_s
        return open_frames(self.source, start_s=start_s, end_s=self.end_s)

    def read(self, count: int, skip_s: float = 0.0) -> list[Image]:
        """The first ``count`` frames, or as many as a sample may have."""
        with self.open(skip_s) as frames:
            return [frame.image for frame in itertools.islice(frames, min(count, MAX_SAMPLE))]

    def frame_at(self, time_s: float) -> Frame:
        with open_frames(self.source, start_s=time_s) as frames:
            return next(frames)

    def with_progress(self, task: str, frames: Iterable[Frame], total: int | None) -> Iterator[Frame]:
        for done, frame in enumerate(frames):
            self.on_progress(task, done, total)
            yield frame


@dataclass(frozen=True, slots=True)
class _VideoComparison:
    clip: _Clip
    folder: Path
    plan: Plan
    model: LoadedModel
    runs: Sequence[Run]

    def measure_baseline(self) -> dict[str, float | None] | None:
        """Stability of the other program's masks, if any; DataError unless they match the video."""
        if self.plan.baseline is None:
            return None
        masks = ClassMasks(self.plan.baseline)
        with self.clip.open() as source:
            frames = self.clip.with_progress("baseline", source, source.info.frames_declared)
            return masks.measure(frames, self.model.labels, flow_consistency=self.plan.flow_consistency)

    def run(self, each: Run, opening: Sequence[Image]) -> Report:
        """Warm up, then run everything that the command does: this is the speed that users get."""
        each.warm_up(self.model, opening)

        def on_frame(frame: SegmentedFrame, info: VideoInfo) -> None:
            self.clip.on_progress(each.mode, frame.index + 1, info.frames_declared)

        return run(
            self.clip.source,
            self.folder / each.mode,
            self.model,
            start_s=self.clip.start_s,
            end_s=self.clip.end_s,
            results=ResultOptions(flow_consistency=self.plan.flow_consistency),
            on_frame=on_frame,
            **asdict(each.options),
        )

    def result(self, baseline: Mapping[str, float | None] | None, reports: Sequence[Report]) -> Comparison:
        agreement, differences = self._compare_frames(reports[0])
        facts = common_facts(
            plan=self.plan,
            model=self.model,
            runs=self.runs,
            numbers=list(map(_numbers, reports)),
            baseline=baseline,
            samples=self._samples(reports[0]),
            outputs={"side_by_side": SIDE_BY_SIDE} | ({"differences": DIFFERENCES} if differences else {}),
        )
        for mode, numbers in facts["modes"].items():
            numbers["agreement"] = agreement.get(f"{self.plan.pair[0]}|{mode}")
        source = reports[0].input
        return Comparison(
            kind="video",
            input={
                "path": source.path,
                "frames": source.frames_decoded,
                "frame_rate": source.frame_rate,
                "start_s": self.clip.start_s,
                "end_s": self.clip.end_s,
            },
            agreement=agreement,
            differences=differences,
            warnings=reports[0].warnings,
            **facts,
        )

    def _samples(self, report: Report) -> list[list[Image]]:
        count = max(each.options.longest_interval for each in self.runs)
        starts = {report.input.frames_decoded * part // _FLOP_SAMPLES for part in range(_FLOP_SAMPLES)}
        return [self.clip.read(count, start / float(report.input.frame_rate)) for start in sorted(starts)]

    def _compare_frames(self, report: Report) -> tuple[dict[str, float], tuple[Difference, ...]]:
        """Agreement of the modes' masks, and pictures of where reference and candidate differ."""
        masks = {mode: ClassMasks(OutputDir(self.folder / mode).masks) for mode in self.plan.network_modes}
        if self.plan.baseline is not None:
            masks = {"image": ClassMasks(self.plan.baseline), **masks}
        shown = list(dict.fromkeys(self.plan.pair))
        titles = ["baseline" if mode == "image" and self.plan.baseline is not None else mode for mode in shown]
        comparer = FrameComparer(self.model.labels, masks, shown, titles)
        with self.clip.open() as source:
            frames = self.clip.with_progress("side by side", prefetch_frames(source), report.input.frames_decoded)
            found = comparer.compare(frames, source.info, self.folder / SIDE_BY_SIDE)
        return found.agreement(), comparer.draw_greatest(found, self.clip.frame_at, self.folder / DIFFERENCES)


def _numbers(report: Report) -> dict[str, float | None]:
    """Numbers of one run, shares as percentages."""
    shares = {
        name: getattr(report.stability, name) for name in ("flow_consistency", "label_change", "updated_fraction")
    }
    percentages = {name: None if share is None else 100 * share for name, share in shares.items()}
    speeds = ("fps", "model_fps", "keyframe_ms", "non_keyframe_ms")
    return percentages | {name: getattr(report.speed, name) for name in speeds}


@contextmanager
def _claimed_runs(folder: Path, plan: Plan, inputs: Sequence[Path], *, overwrite: bool) -> Iterator[None]:
    """Refuse folders of runs that are not empty; if the block fails, newly created ones are removed.

    With ``overwrite`` existing runs are removed after the block, also those of an earlier plan.
    """
    earlier = set(known_folders(folder) if overwrite else ()) - set(plan.network_modes)
    with ExitStack() as undo:
        outputs: list[OutputDir] = []
        for name in [*earlier, *plan.network_modes]:
            with claimed_output(folder / name, inputs=inputs, overwrite=overwrite) as output:
                outputs.append(output)
            if output.is_new:
                undo.callback(output.discard)
        yield
        for output in outputs:
            if output.path.name in earlier:
                OutputDir(output.path, is_new=True).discard()
            else:
                output.remove_results()
        undo.pop_all()


def _result_names(folder: Path) -> list[str]:
    pictures = [f"{DIFFERENCES}/{path.name}" for path in (folder / DIFFERENCES).glob(PICTURE_PATTERN)]
    return [COMPARE_JSON, COMPARE_HTML, SIDE_BY_SIDE, *pictures]
