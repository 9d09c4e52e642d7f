"""Writes two books for the demo: FOLDER/nature/… and FOLDER/crafts/…, Markdown, the same each time."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

PARAGRAPHS = 30
"""In a chapter."""

Words = tuple[str, str, str]
"""Who, does what, and what else is to be said."""

BOOKS: Mapping[str, tuple[str, Mapping[str, Words]]] = {
    "nature": (
        "Notes of a Naturalist",
        {
            "Bees": (
                "A forager|The young bee|An old colony|The swarm in the lime tree|A bee from the next village",
                "finds her way home by the polarised light of the sky"
                "|dances on the comb to tell of a meadow two miles away"
                "|feeds the brood with the pollen of the first willows|guards the entrance against wasps in late summer"
                "|shares her warmth in the winter cluster|fills the comb with honey from the lime trees",
                "The keeper listens at the wood and lets them be.|A cold spring costs more colonies than a hard winter."
                "|Nothing in the hive is done by one alone.",
            ),
            "Glaciers": (
                "The great glacier|Old ice|The ice cap in the north|A small glacier in the shade|The frozen river",
                "carries boulders as large as houses down the valley|grinds the bed of the valley to fine flour"
                "|buries the snow of a hundred winters|keeps air that was trapped before there were cities"
                "|feeds a lake of milky blue with its meltwater|opens a crevasse where it bends over the rock",
                "It moves a hand's breadth a day and never stops.|Each summer its tongue ends a little higher."
                "|Blue ice is snow whose air has been pressed out.",
            ),
            "Tides": (
                "The spring tide|The ebb in March|The flood after the full moon|A low neap tide|The evening tide",
                "uncovers the causeway to the island|leaves limpets behind, each on its own scar"
                "|lifts the keels of stranded boats"
                "|draws back from the mud flats and feeds a thousand knots|drowns the nets of the shrimpers"
                "|writes a line of weed and shells along the beach",
                "Twice a day the coast is another country."
                "|The tables are printed a year ahead and are right to the minute."
                "|Where the bay narrows, the water stands a house high.",
            ),
            "Swifts": (
                "The swift|A fledgling|An old pair|A screaming party at dusk|The late brood",
                "sleeps above the clouds at two thousand metres|races around the church tower"
                "|crosses the Sahara in four days|returns in May to the same gap under the tiles"
                "|drinks from the surface of a pond without landing|gathers floating spiders and flies in its throat",
                "It may not touch the ground for three years.|By August the sky is silent again."
                "|Its legs are too short for walking.",
            ),
        },
    ),
    "crafts": (
        "How Things Were Made",
        {
            "Printing presses": (
                "The printer|A compositor|The apprentice|The widow who kept the workshop|A pressman from Mainz",
                "sets movable type of lead and antimony|inks the page with two balls of leather"
                "|pulls the bar over a sheet of damp paper|reads the lines of a broadside backwards"
                "|locks the first page of a pamphlet into its frame|hangs two hundred copies up to dry",
                "What had taken a scribe a year was done in a week.|A dropped case of letters was called a pie."
                "|The press was worked by two, one to ink and one to pull.",
            ),
            "Bread": (
                "The baker|A peasant's household|The miller's wife|The monastery|The baker on the corner",
                "feeds the sourdough with rye before going to bed|lets a slow dough rise for a night in the cold"
                "|heats the bricks of the oven until morning|listens to the crust sing as it cools"
                "|makes a loaf of flour, water and salt alone|keeps some of the dough for the next day",
                "Time does what kneading cannot.|The whole village baked on the same day."
                "|Steam in the first minutes makes the crust shine.",
            ),
            "Clocks": (
                "The clockmaker|A maker of chronometers|The keeper of the tower clock|A watchmaker in Geneva|His pupil",
                "hangs the pendulum from a strip of steel|cuts a train of brass wheels by hand"
                "|files the escapement until it lets go tooth by tooth|winds up the weight that falls all day"
                "|finds the longitude of a ship by the hour at home|sets the hands by the shadow at noon",
                "Heat makes the rod longer and the clock slow.|Before the railways each town had a noon of its own."
                "|A minute hand is younger than the clock.",
            ),
            "Glass": (
                "The glassblower|A gatherer at the furnace|The lens grinder|A master from Murano|The window maker",
                "melts sand, ash and lime for three days|blows a bubble at the end of a long pipe"
                "|spins it into panes with a bull's eye|draws it out to beads for the traders of the south"
                "|grinds lenses for the first telescopes|cools green bottles as slowly as the forest allows",
                "The fire was not let out from autumn to spring.|What cools too fast breaks years later, by itself."
                "|Cobalt makes it blue and gold makes it red.",
            ),
        },
    ),
}
"""By category: the title, and what each chapter is made of."""


def paragraphs(words: Words, draw: random.Random) -> Iterator[str]:
    """Four sentences each, no two the same."""
    who, does, remarks = (each.split("|") for each in words)
    for number in range(PARAGRAPHS):
        (one, other), (first, second) = draw.sample(who, 2), draw.sample(does, 2)
        yield f"{one} {first}. {draw.choice(remarks)} {other} {second}. So it was noted on day {number + 1}."


def main(folder: Path) -> None:
    """Write both."""
    draw = random.Random(7)
    for category, (title, chapters) in BOOKS.items():
        lines = [f"# {title}"]
        for chapter, words in chapters.items():
            lines += [f"## {chapter}", *paragraphs(words, draw)]
        place = folder / category
        place.mkdir(parents=True, exist_ok=True)
        path = place / f"{title.lower().replace(' ', '-')}.md"
        path.write_text("\n\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
