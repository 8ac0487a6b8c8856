"""Texts made up from a list of words, of syllables and of numbers, in several scripts.

Every maker takes a generator and the name of a script, and returns a short text.
"""

# ruff: noqa: RUF001 - letters of other scripts are meant

from collections.abc import Mapping
from typing import NamedTuple

from .dice import Rng, between, chance, count, pick

WORDS = """
able about above accept account across action active actual adapt address adult advice after again against age agent
agree ahead airport album alert alive allow almost alone along already also always amount anchor ancient angle animal
annual answer apple april arch area arena around arrive art artist ask asset attic august aunt author autumn average
avoid award away baby back bacon badge bag baker balance ball band bank bar barn base basic basket bath battery beach
bean bear beauty because bed before begin behind believe bell below bench benefit best better between beyond bicycle
big bird birth bitter black blade blank blind block blood board boat body bone bonus book border born borrow both bottle
bottom bowl box branch brave bread break breath brick bridge brief bright bring broad bronze brother brown brush bucket
budget build bundle burn bus business busy butter button buy cabin cable cake call calm camera camp canal candle canvas
capital captain car carbon card care carry case cash castle casual catch cause cave centre century certain chain chair
chalk chance change chapter charge cheap check cheese cherry chest chicken chief child choice church circle citizen city
claim class clay clean clear clever client cliff clinic clock close cloth cloud club coach coal coast coat coffee coin
cold collar colour column come comfort common company concert cook cool copper copy corn corner cost cotton council
count country county couple course court cousin cover craft cream create credit crew crisp cross crowd crown cruise cup
curious current curtain curve custom cycle daily dance danger dark data daughter dawn day deal dear debate decade decide
deep deer degree delay deliver demand dense deposit depth desert design desk detail develop device dial diary diet
dinner direct dirty discount dish distance divide doctor document dollar door double doubt down dozen draft dragon draw
dream dress drink drive drop dry duck during dust duty each eager early earn earth east easy echo edge edit effect
effort eight either elbow elder elegant empty end enemy energy engine enjoy enough enter entry equal error escape
estate evening event every evil exact example except exchange exit expect expert extra eye fabric face fact factor fade
fair faith fall family famous fancy far farm fashion fast father fault favour feather fence festival few field fifth
figure file film final find fine finger finish fire first fish five flag flame flash flat flavour flight float floor
flour flower fly focus fog follow food foot force forest forget fork formal fortune forward four fox frame free fresh
friend frog front frost fruit full fun future gain gallery game garage garden garlic gate gentle giant gift ginger girl
glad glass globe glory glove goal gold good grain grand grape grass great green grey grid ground group grow guard guess
guest guide guitar habit half hall hammer hand happy harbour hard harvest hat hazel health heart heat heavy height help
herb hero hidden high hill history hobby hold hole holiday home honest honey hope horse hospital hotel hour house hub
human humble hundred hungry hunt ice idea image impact income index inside invite iron island item ivory jacket jam
january jazz jewel job join joint journey juice july jump june junior jury just keen keep kettle key kind king kitchen
knee knife knot label labour ladder lake lamp land language large laser late laugh laundry law layer leader leaf learn
leather leave left legal lemon length lesson letter level liberty library life light lime limit line lion list little
live local lock logic lonely long loose lottery loud lounge love loyal lucky lunch machine magic mail main major make
manage mango manual maple marble march margin market master match matter meadow meal measure meat medal medium meet
melon member memory menu mercy message metal method middle might mile milk mill mind mineral minor mint minute mirror
mission mist mixed model modern moment money monkey month moon moral morning most mother motion motor mountain mouse
mouth move movie much museum music mutual myth narrow nation nature near neck needle nephew nerve nest never next night
nine noble noise normal north note notice novel number nurse oak object ocean offer office often olive once onion only
open opera option orange orbit order organ other outer oven owner oxygen package page paint pair palace panel paper
parcel parent park part party pass past patch path patient pattern payment peace peach pearl pencil people pepper
perfect permit person phone photo piano picnic piece pilot pink pipe pitch place plain planet plant plate player please
plenty pocket poem point polar police policy pond pony pool popular port post potato pottery powder power praise prefer
present press pretty price pride print prison prize problem process profit project promise proof proper proud public
pulse pupil purple purpose puzzle quality quarter queen question quick quiet rabbit race radio rail rain range rapid
rare raw reach ready real reason recent recipe record red reform region relax remain remote rent repair report rescue
rest result return reward rhythm ribbon rice rich ride right ring river road rock roof room root rope rose rough round
route royal rubber rule rural sad safe sail salad salmon salt same sand sauce scale scarf scene school science score
screen sea season seat second secret section seed select senior sense series serve seven shade shadow shape share sharp
sheep shelf shell shift ship shirt shoe shop shore short shoulder show shower side sign signal silent silk silver simple
since sister six size skill skin sky sleep slice slow small smart smile smoke smooth snow soap social soft soil solar
solid some song soon sound soup source south space spare special speed spice spirit spoon sport spring square stable
staff stage stair stamp star start state station steam steel stick still stone store storm story strange stream street
strong studio style sugar suit summer sun supper supply sure sweet swim switch table tailor talent talk tall task taste
taxi tea teacher team tennis term test text thank theory thick thin third thought three thunder ticket tide tiger timber
time tiny title toast today tomato tone tool topic total touch tour tower town toy track trade train travel tree trend
trial trip trouble truck true trust truth tulip tunnel turn twelve twice twin type uncle under union unique unit upper
urban urgent useful usual valley value van vanilla velvet venue very view village violin visit vital voice vote voyage
wagon walk wall walnut warm wash water wave wealth weather wedding week weight welcome west wheat wheel white whole wide
wild win window wine winter wire wise wish within wolf wonder wood wool word work world worth yard year yellow young
"""
VOCABULARY = tuple(WORDS.split())
_SMALL = "the a of and to in for with on at by from is was are that this it we you not or as but our will"
SMALL = tuple(_SMALL.split())


class Script(NamedTuple):
    consonants: str
    vowels: str


SCRIPTS: Mapping[str, Script] = {
    "latin": Script("b c d f g h j k l m n p r s t v w z br ch dr fl gr kl pr sh st th tr", "a e i o u ai ea io ou"),
    "accented": Script("b č d f g h j k l ł m n ñ p r š s t v z ž ß br st tr kr", "a á à e é è ê i í o ö ó ø u ü å ä"),
    "greek": Script("β γ δ ζ θ κ λ μ ν ξ π ρ σ τ φ χ ψ στ πρ", "α ε η ι ο υ ω ά έ ί ό αι ου"),
    "cyrillic": Script("б в г д ж з к л м н п р с т ф х ц ч ш щ ст пр", "а е и о у ы э ю я й"),
    "armenian": Script("բ գ դ զ թ ժ լ խ ծ կ հ ձ ղ մ ն շ պ ջ ռ ս վ տ", "ա ե է ը ի ո ու"),
    "georgian": Script("ბ გ დ ვ ზ თ კ ლ მ ნ პ ჟ რ ს ტ ფ ქ ღ ყ შ ჩ", "ა ე ი ო უ"),
    "arabic": Script("ب ت ج ح د ر س ش ص ع ف ق ك ل م ن ه", "ا و ي"),
    "hebrew": Script("ב ג ד ה ז ח ט כ ל מ נ ס ע פ צ ק ר ש ת", "א ו י"),
}
CURRENCIES = ("", "$", "kr ", "EUR ", "GBP ", "CHF ")
_MONTHS = "January February March April May June July August September October November December"
MONTHS = tuple(_MONTHS.split())


def invented(rng: Rng, script: str, low: int = 1, high: int = 4) -> str:
    consonants, vowels = (letters.split() for letters in SCRIPTS[script])
    made = "".join(pick(rng, consonants) + pick(rng, vowels) for _ in range(count(rng, low, high)))
    return made + (pick(rng, consonants) if chance(rng, 0.3) else "")


def word(rng: Rng, script: str) -> str:
    """A word that means something by itself."""
    return pick(rng, VOCABULARY) if script == "latin" and chance(rng, 0.85) else invented(rng, script)


def phrase(rng: Rng, script: str, low: int = 2, high: int = 4) -> str:
    """A heading: a few words, the first one with a capital."""
    made = " ".join(word(rng, script) for _ in range(count(rng, low, high)))
    return made[:1].upper() + made[1:]


def title(rng: Rng, script: str, low: int = 2, high: int = 5) -> str:
    return " ".join(_capital(word(rng, script)) for _ in range(count(rng, low, high)))


def sentence(rng: Rng, script: str, low: int = 4, high: int = 16) -> str:
    made: list[str] = []
    for _ in range(count(rng, low, high)):
        small = script == "latin" and chance(rng, 0.35)
        made.append(pick(rng, SMALL) if small else word(rng, script))
        if chance(rng, 0.06):
            made[-1] += ","
    if chance(rng, 0.12):
        made[count(rng, 0, len(made) - 1)] = digits(rng, script, 1, 4)
    text = " ".join(made).rstrip(",")
    return text[:1].upper() + text[1:] + ("." if chance(rng, 0.85) else pick(rng, "?!"))


def name(rng: Rng, script: str) -> str:
    parts = [_capital(invented(rng, script, 1, 3)) for _ in range(count(rng, 2, 3))]
    if len(parts) == 3 and chance(rng, 0.6):
        parts[1] = parts[1][0] + "."
    return " ".join(parts)


def company(rng: Rng, script: str) -> str:
    first = _capital(invented(rng, script, 2, 3) if chance(rng, 0.5) else word(rng, script))
    forms = ("{} & {}", "{} {}", "{}", "{} {} Ltd", "{} {} Group", "{} {} Co")
    return pick(rng, forms if script == "latin" else forms[1:3]).format(first, _capital(word(rng, script)))


def street(rng: Rng, script: str) -> str:
    kind = pick(rng, ("Street", "Road", "Lane", "Avenue", "Square", "Way")) if script == "latin" else ""
    return f"{count(rng, 1, 299)} {_capital(word(rng, script))} {kind}".strip()


def place(rng: Rng, script: str) -> str:
    return f"{digits(rng, script, 4, 5)} {_capital(invented(rng, script, 2, 3))}"


def digits(rng: Rng, script: str, low: int = 4, high: int = 8) -> str:
    return str(count(rng, 1, 9)) + "".join(str(count(rng, 0, 9)) for _ in range(count(rng, low, high) - 1))


def amount(rng: Rng, script: str, most: float = 200) -> str:
    return f"{between(rng, 0.02, 1) ** 2 * most + 0.1:.2f}"


def date(rng: Rng, script: str) -> str:
    day, month, year = count(rng, 1, 28), count(rng, 1, 12), count(rng, 1998, 2026)
    return pick(
        rng, (f"{year}-{month:02}-{day:02}", f"{day:02}.{month:02}.{year}", f"{day} {MONTHS[month - 1]} {year}")
    )


def clock(rng: Rng, script: str) -> str:
    return f"{count(rng, 0, 23):02}:{count(rng, 0, 59):02}"


def email(rng: Rng, script: str) -> str:
    return (
        f"{invented(rng, 'latin', 1, 2)}.{word(rng, 'latin')}@{word(rng, 'latin')}.{pick(rng, ('com', 'org', 'net'))}"
    )


def url(rng: Rng, script: str) -> str:
    return f"www.{word(rng, 'latin')}{invented(rng, 'latin', 1, 2)}.{pick(rng, ('com', 'org', 'net', 'eu'))}"


def phone(rng: Rng, script: str) -> str:
    return "+" + " ".join(digits(rng, script, low, low) for low in (2, 2, 3, 4))


def identifier(rng: Rng, script: str) -> str:
    letters = "".join(pick(rng, "ABCDEFGHJKLMNPRSTUVWXYZ") for _ in range(count(rng, 1, 3)))
    return f"{letters}{pick(rng, ('-', ' ', ''))}{digits(rng, script, 4, 8)}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
