"""Class names of public data sets, in the order of their indices."""

from __future__ import annotations


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.replace("\n", " ").split(","))


VSPW = _names("""
    wall, ceiling, door, stair, ladder, escalator, Playground_slide, handrail_or_fence, window, rail, goal, pillar,
    pole, floor, ground, grass, sand, athletic_field, road, path, crosswalk, building, house, bridge, tower, windmill,
    well_or_well_lid, other_construction, sky, mountain, stone, wood, ice, snowfield, grandstand, sea, river, lake,
    waterfall, water, billboard_or_Bulletin_Board, sculpture, pipeline, flag, parasol_or_umbrella,
    cushion_or_carpet, tent, roadblock, car, bus, truck, bicycle, motorcycle, wheeled_machine, ship_or_boat, raft,
    airplane, tyre, traffic_light, lamp, person, cat, dog, horse, cattle, other_animal, tree, flower, other_plant,
    toy, ball_net, backboard, skateboard, bat, ball, cupboard_or_showcase_or_storage_rack, box,
    traveling_case_or_trolley_case, basket, bag_or_package, trash_can, cage, plate, tub_or_bowl_or_pot,
    bottle_or_cup, barrel, fishbowl, bed, pillow, table_or_desk, chair_or_seat, bench, sofa, shelf, bathtub, gun,
    commode, roaster, other_machine, refrigerator, washing_machine, Microwave_oven, fan, curtain, textiles, clothes,
    painting_or_poster, mirror, flower_pot_or_vase, clock, book, tool, blackboard, tissue, screen_or_television,
    computer, printer, Mobile_phone, keyboard, other_electronic_product, fruit, food, instrument, train
""")
"""VSPW's 124 classes; a raw mask value is the index + 1."""

CITYSCAPES19 = _names("""
    road, sidewalk, building, wall, fence, pole, traffic light, traffic sign, vegetation, terrain, sky, person, rider,
    car, truck, bus, train, motorcycle, bicycle
""")
"""Cityscapes' 19 classes by train id."""

VOC21 = _names("""
    background, aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, diningtable, dog, horse, motorbike,
    person, pottedplant, sheep, sofa, train, tvmonitor
""")
"""Pascal VOC's 20 classes and background."""

ADE150 = _names("""
    wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk, person, earth, door,
    table, mountain, plant, curtain, chair, car, water, painting, sofa, shelf, house, sea, mirror, rug, field, armchair,
    seat, fence, desk, rock, wardrobe, lamp, bathtub, railing, cushion, base, box, column, signboard, chest of drawers,
    counter, sand, sink, skyscraper, fireplace, refrigerator, grandstand, path, stairs, runway, case, pool table,
    pillow, screen door, stairway, river, bridge, bookcase, blind, coffee table, toilet, flower, book, hill, bench,
    countertop, stove, palm, kitchen island, computer, swivel chair, boat, bar, arcade machine, hovel, bus, towel,
    light, truck, tower, chandelier, awning, streetlight, booth, television receiver, airplane, dirt track, apparel,
    pole, land, bannister, escalator, ottoman, bottle, buffet, poster, stage, van, ship, fountain, conveyer belt,
    canopy, washer, plaything, swimming pool, stool, barrel, basket, waterfall, tent, bag, minibike, cradle, oven, ball,
    food, step, tank, trade name, microwave, pot, animal, bicycle, lake, dishwasher, screen, blanket, sculpture, hood,
    sconce, vase, traffic light, tray, ashcan, fan, pier, crt screen, plate, monitor, bulletin board, shower, radiator,
    glass, clock, flag
""")
"""ADE20K's 150 classes of the scene parsing benchmark, by their usual short names."""

COCO133 = _names("""
    person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop sign,
    parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella,
    handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard,
    surfboard, tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange,
    broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv, laptop,
    mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors,
    teddy bear, hair drier, toothbrush, banner, blanket, bridge, cardboard, counter, curtain, door-stuff, floor-wood,
    flower, fruit, gravel, house, light, mirror-stuff, net, pillow, platform, playingfield, railroad, river, road,
    roof, sand, sea, shelf, snow, stairs, tent, towel, wall-brick, wall-stone, wall-tile, wall-wood, water-other,
    window-blind, window-other, tree-merged, fence-merged, ceiling-merged, sky-other-merged, cabinet-merged,
    table-merged, floor-other-merged, pavement-merged, mountain-merged, grass-merged, dirt-merged, paper-merged,
    food-other-merged, building-other-merged, rock-merged, wall-other-merged, rug-merged
""")
"""COCO's 133 panoptic categories, 80 things and 53 kinds of stuff, in the order of their ids (which have gaps)."""

MSRC23 = _names("""
    building, grass, tree, cow, horse, sheep, sky, mountain, aeroplane, water, face, car, bicycle, flower, sign, bird,
    book, chair, road, cat, dog, body, boat
""")
"""MSRC v2's 23 classes by their usual ids, from 1."""

FACADES8 = _names("building, car, door, pavement, road, sky, vegetation, window")
"""The 8 classes of the LabelMe facades."""
