"""What statements tell of: names, nouns and little stories."""

from dataclasses import dataclass

NAMES = ("Mira", "Tom", "Ada", "Jonas", "Lena", "Ravi", "Nora", "Emil", "Yuki", "Omar", "Ines")
INT_STORIES = (
    ("{name} weighs parcels and writes down their weights.", "weights"),
    ("{name} notes the scores of a game.", "scores"),
    ("{name} measures the heights of the plants in a garden.", "heights"),
    ("A shop lists the prices of its goods, and {name} reads them.", "prices"),
    ("{name} keeps a record of the daily temperatures.", "temperatures"),
    ("{name} has cards with numbers on them.", "numbers"),
    ("{name} finds numbers on the doors of a street.", "numbers"),
    ("{name} writes down how many minutes each lesson takes.", "times"),
    ("{name} counts the birds at a lake day by day.", "counts"),
    ("A machine reports its readings to {name}.", "readings"),
    ("{name} pulls numbered balls out of a bag.", "numbers"),
)
SHAPE_STORIES = {
    "text": ("{name} finds a note with one line of text.", "A parrot tells {name} a line of text."),
    "words": ("{name} collects words.", "{name} reads the words on the signs of a street."),
    "texts": ("{name} and a friend each write down a word: s and t.",),
    "pairs": ("{name} writes down n pairs of numbers x and y.",),
    "intervals": ("{name} plans n meetings, each from time x to time y.",),
    "matrix": ("{name} fills a table with integers.",),
    "number": ("{name} thinks of a number n.", "{name} finds the number n on a ticket."),
    "numbers": ("{name} rolls two numbers x and y.",),
    "lists": ("{name} and a friend have equally long lists of numbers, a and b.",),
}
PLAIN_NOUNS = ("integers", "numbers", "values")
SIGNED_NOUNS = frozenset({"scores", "temperatures", "numbers", "readings"})


@dataclass(frozen=True, slots=True)
class Scene:
    """A story of a list of natural numbers.

    Args:
        tells: sentences; `{ne}` stands for "n days" or "some days".
        items: the noun of the numbers.
        owners: what each number belongs to, in the plural.
        unit: what it counts, in the plural.
        relatives: what joins owners and an amount, as in "boxes that hold 3 coins".
        kinds: the numbers are names, not amounts.
    """

    tells: tuple[str, ...]
    items: str
    owners: str
    unit: str
    relatives: tuple[str, ...] = ("with",)
    kinds: bool = False


SCENES = (
    Scene(
        (
            "Over {ne}, a kiosk counts how many papers it sells each day.",
            "A kiosk wrote down how many papers it sold on each of {ne}.",
        ),
        "sales",
        "days",
        "papers",
        ("with", "on which it sells", "on which it sold"),
    ),
    Scene(
        (
            "A farmer measures the snow of every night in centimetres.",
            "For {ne}, a farmer notes how many centimetres of snow fall.",
        ),
        "amounts",
        "nights",
        "centimetres",
        ("with", "that bring", "that brought"),
    ),
    Scene(
        ("A library counts its visitors on each of {ne}.", "For {ne} the visitors are counted."),
        "counts",
        "days",
        "visitors",
        ("with", "on which there are"),
    ),
    Scene(
        ("The heights of {ne} are measured in millimetres.", "There are {ne} of known height."),
        "heights",
        "trees",
        "millimetres",
        ("with a height of", "that measure"),
    ),
    Scene(
        ("On a table stand {ne} with coins in them.", "It is known how many coins {ne} hold."),
        "amounts",
        "boxes",
        "coins",
        ("with", "that hold"),
    ),
    Scene(
        ("A bus counts the passengers at each of {ne}.",),
        "counts",
        "stops",
        "passengers",
        ("with", "at which it carries"),
    ),
    Scene(
        ("The prices of {ne} are written down in cents.", "{ne} are for sale."),
        "prices",
        "books",
        "cents",
        ("that cost", "with a price of"),
    ),
    Scene(
        ("The weights of {ne} are given in grams.", "Someone weighs {ne}, one by one."),
        "weights",
        "stones",
        "grams",
        ("that weigh", "with a weight of"),
    ),
    Scene(
        ("A team plays {ne} and notes how many points it makes in each.",),
        "scores",
        "games",
        "points",
        ("with", "in which it makes", "in which it made"),
    ),
    Scene(
        ("A hiker notes how high {ne} along the path lie, in metres.",),
        "heights",
        "places",
        "metres",
        ("at", "with a height of"),
    ),
    Scene(
        ("{name} reads a few pages on each of {ne}.", "{name} reads for {ne}."),
        "counts",
        "evenings",
        "pages",
        ("with", "of"),
    ),
    Scene(
        ("For a race, {ne} are timed in seconds.", "The times of {ne} in a race are known."),
        "times",
        "runners",
        "seconds",
        ("that need", "who took"),
    ),
    Scene(
        ("Every card in a box has a number for its colour.", "A box holds {ne} of many colours."),
        "colours",
        "cards",
        "",
        kinds=True,
    ),
    Scene(
        ("Each ticket in a drawer carries the number of its kind.", "A drawer holds {ne}."),
        "kinds",
        "tickets",
        "",
        kinds=True,
    ),
    Scene(
        (
            "{ne} lie in a row; each has a number for its kind.",
            "A tray carries {ne} of some kinds.",
        ),
        "kinds",
        "cakes",
        "",
        kinds=True,
    ),
)
TERMS = ("quiet", "busy", "special", "lucky", "good", "chosen", "bright", "lonely")
SPELLS = ("calm spell", "streak", "good phase", "bright period", "lucky phase")
NETS = (
    ("node", "edge", "A graph has n nodes, numbered from 1, and m edges between them."),
    ("town", "road", "There are n towns, numbered from 1, and m roads between them."),
    ("station", "track", "A railway has n stations, numbered from 1, and m tracks between them."),
    ("room", "corridor", "A castle has n rooms, numbered from 1, and m corridors between them."),
    ("harbour", "ferry line", "Between n harbours, numbered from 1, there are m ferry lines."),
)
