"""Made-up names and sentences."""

from .canvas import Rng, chance, number, pick


def _listed(words: str) -> list[str]:
    return words.split(";" if ";" in words else None)


FIRST = _listed(
    "Anna Ben Clara David Elif Felix Grace Hugo Ines Jonas Kira Leon Maya Nils Olga Pavel Quentin Rosa Samir Tara "
    "Ulrich Vera Walter Xenia Yusuf Zoe Amir Bianca Carlos Dora Emil Fatima Gustav Hanna Igor Julia"
)
LAST = _listed(
    "Abbot Becker Castillo Dahl Eriksen Fontaine Garcia Holm Ivanov Jensen Keller Lindqvist Moreau Novak Okafor "
    "Petrov Quist Rossi Schmidt Tanaka Ueda Vogel Wagner Yilmaz Zeller Hartley Bloom Osborne Pryce Whitlock"
)
CITIES = _listed(
    "Lisbon Oslo Vienna Prague Dublin Athens Madrid Helsinki Zagreb Cairo Nairobi Boston Denver Lima Quito Seoul "
    "Osaka Hanoi Delhi Perth Geneva Turin Porto Krakow Bergen Malmo Leeds Cork Nice Lyon Basel Graz Riga Tallinn "
    "Vilnius Sofia Tunis Dakar Accra Havana Bogota Austin Chicago Toronto Ottawa Sydney Manila Jakarta"
)
PLACES = _listed(
    "Bridge Street;Old Market;Mill Lane;Castle Hill;Town Hall;Harbour;University;Museum;North Gate;Linden Park;Zoo;"
    "Opera;Stadium;Hospital;Airport;River Side;East Cross;King's Square;Brewery;Library;Sand Point;Glass Works;"
    "Rose Garden;Fair Ground;West End;Church Road;High Bank;Tower;Windmill;Garden City;Lake View;Iron Quay"
)
NOUNS = _listed(
    "river engine garden window teacher bottle mountain cousin violin shadow letter island dragon kitchen bicycle "
    "monkey doctor summer forest ladder neighbour sailor pepper candle elephant pillow market bridge lantern soup "
    "penguin suitcase umbrella piano volcano biscuit helmet tractor parrot blanket"
)
ADJECTIVES = _listed(
    "quiet golden broken hungry clever ancient purple silent dusty famous gentle hollow lazy modern narrow polite "
    "rapid salty tired wooden yellow brave curious frozen"
)
VERBS = _listed(
    "finds follows paints carries forgets watches sells repairs borrows hides cooks greets lifts misses orders "
    "throws visits washes wants knows"
)
ENDINGS = _listed(
    "in the morning;after the storm;without a word;on the roof;at the station;for the last time;behind the barn;"
    "before dinner;under the bridge;by mistake;in a hurry;every Sunday;with great care;all over again"
)
DISHES = _listed(
    "Tomato soup;Grilled trout;Beef stew;Mushroom risotto;Apple pie;Lemon tart;Roast duck;Pea fritters;Fish cakes;"
    "Spinach lasagne;Lamb curry;Goat cheese salad;Potato gratin;Chicken pie;Onion rings;Plum crumble;Rice pudding;"
    "Pork ribs;Prawn noodles;Leek quiche;Bean burger;Carrot cake;Oat cookies;Pumpkin gnocchi;Veal schnitzel"
)
GOODS = _listed(
    "flour;butter;sugar;eggs;milk;carrots;onions;garlic;rice;lentils;cream;honey;basil;lemons;olive oil;salt;"
    "pepper;chicken;salmon;walnuts;cinnamon;yeast;apples;potatoes;tomatoes;cheese"
)
TEAMS = _listed(
    "Lions Sharks Falcons Rovers Comets Wolves Giants Raiders Pirates Eagles Storm Titans Bears Knights Rockets "
    "Vipers Hornets Bulls Royals Dragons Hawks Tigers Saints Phantoms"
)
MONTHS = _listed("January February March April May June July August September October November December")
DAYS = _listed("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")


def name(rng: Rng) -> str:
    return f"{pick(rng, FIRST)} {pick(rng, LAST)}"


def date(rng: Rng) -> str:
    return f"{number(rng, 1, 28)} {pick(rng, MONTHS)} {number(rng, 1998, 2026)}"


def phrase(rng: Rng) -> str:
    return f"{pick(rng, ADJECTIVES)} {pick(rng, NOUNS)}"


def title(rng: Rng) -> str:
    return f"The {phrase(rng)}".title()


def sentence(rng: Rng) -> str:
    start = f"The {phrase(rng)}" if chance(rng, 0.6) else pick(rng, FIRST)
    return f"{start} {pick(rng, VERBS)} the {phrase(rng)} {pick(rng, ENDINGS)}."


def question(rng: Rng) -> str:
    starts = ("Who", "Which {}", "What kind of {}", "Whose {}")
    return f"{pick(rng, starts).format(pick(rng, NOUNS))} {pick(rng, VERBS)} the {phrase(rng)} {pick(rng, ENDINGS)}?"


def text(rng: Rng, count: int) -> str:
    return " ".join(sentence(rng) for _ in range(count))
