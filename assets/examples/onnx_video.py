"""Segment a video with ONNX Runtime: python onnx_video.py MODEL.onnx VIDEO FOLDER writes a PNG of labels per frame.

MODEL.onnx and MODEL.non_keyframe.onnx are from: tfcseg convert default MODEL.onnx --frame-size WIDTHxHEIGHT
"""

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import onnxruntime


def labels_of(logits: np.ndarray, size_wh: tuple[int, int]) -> np.ndarray:
    """Class of each pixel: the greatest of the logits (1, K, h, w), resized one class after the other."""
    best = cv2.resize(logits[0, 0], size_wh)
    labels = np.zeros(best.shape, np.uint8)
    for index, logit in enumerate(logits[0, 1:], 1):
        resized = cv2.resize(logit, size_wh)
        labels[resized > best] = index
        best = np.maximum(best, resized)
    return labels


def inputs_of(session: onnxruntime.InferenceSession, frame: np.ndarray) -> dict[str, np.ndarray]:
    """The frame at the size of each input that is a picture; like tfcseg, halve large ones first, which is fast."""
    inputs = {}
    for each in (each for each in session.get_inputs() if each.type == "tensor(uint8)"):
        picture, size = frame, np.array(each.shape[1:3])
        how = cv2.INTER_AREA if min(frame.shape[:2]) > min(size) else cv2.INTER_LINEAR
        while not np.any(np.mod(picture.shape[:2], 2)) and np.all(picture.shape[:2] >= 2 * size):
            picture = cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=how)
        inputs[each.name] = cv2.resize(picture, size[::-1].tolist(), interpolation=how)[None]
    return inputs


model, video, folder = map(Path, sys.argv[1:4])
folder.mkdir(parents=True, exist_ok=True)
keyframe = onnxruntime.InferenceSession(model)
non_keyframe = onnxruntime.InferenceSession(model.with_suffix(".non_keyframe.onnx"))
facts = json.loads(keyframe.get_modelmeta().custom_metadata_map["tfcseg"])
source, number = cv2.VideoCapture(str(video)), 0
while (read := source.read())[0]:
    frame = cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB)
    if number % facts["keyframe_interval"] == 0:
        outputs = keyframe.run(None, inputs_of(keyframe, frame))
        memory = dict(zip([each.name for each in keyframe.get_outputs()], outputs, strict=True))
    else:
        outputs = non_keyframe.run(None, inputs_of(non_keyframe, frame) | memory)
    cv2.imwrite(str(folder / f"{number:08d}.png"), labels_of(outputs[0], frame.shape[1::-1]))
    number += 1
print(f"{number} frames; classes: {', '.join(facts['classes'])}")
