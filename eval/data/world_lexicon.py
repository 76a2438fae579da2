"""Words the embedded world is made of. Invented throughout, save for the well-known people and capitals."""

from __future__ import annotations

__all__ = [
    "AWARD_KINDS",
    "CAPITALS",
    "COLOURS",
    "CREATURES",
    "DISHES",
    "FIRST_ENDINGS",
    "FIRST_STEMS",
    "HOBBIES",
    "LAST_ENDINGS",
    "LAST_STEMS",
    "MONTHS",
    "PROFESSIONS",
    "TITLE_NOUNS",
    "TITLE_QUALITIES",
    "TOWN_ENDINGS",
    "TOWN_STEMS",
    "WELL_KNOWN",
]


def _listed(text: str) -> tuple[str, ...]:
    return tuple(text.split("|"))


def _pairs(text: str) -> tuple[tuple[str, str], ...]:
    return tuple((left, right) for left, _, right in (pair.partition("=") for pair in text.split("|")))


FIRST_STEMS = _listed(
    "Al|Bren|Cor|Dae|El|Fen|Gwil|Hes|Il|Jor|Kel|Lys|Mav|Nim|Or|Pel|Quin|Rov|Sev|Tam|Ul|Ver|Wyn|Yl|Zor"
)
"""Beginnings of first names."""
FIRST_ENDINGS = _listed("adra|anno|dric|eth|iane|isk|ka|linde|mir|nessa|ovan|raya|ric|sola|ven")
"""Endings of first names."""
LAST_STEMS = _listed(
    "Abra|Bick|Cald|Dorn|Ember|Farr|Gant|Hollo|Inger|Jass|Karn|Lomb|Merri|Nold|Ost|Pend|Quill|Rusk|Stell|"
    "Thorn|Ulver|Vance|Whist|Yarr|Zell"
)
"""Beginnings of family names."""
LAST_ENDINGS = _listed(
    "aby|acott|arde|ascoe|bane|combe|dale|enko|farrow|garth|holm|ingle|kova|low|mere|nick|otte|quist|rand|sby|"
    "tane|vick|wright|yard"
)
"""Endings of family names."""
TOWN_STEMS = _listed(
    "Ard|Bel|Cray|Dun|Ever|Fal|Gris|Hal|Ist|Kirr|Lun|Mor|Nor|Ol|Pra|Ril|Sarn|Tor|Und|Vel|Wen|Yor"
)
"""Beginnings of invented towns."""
TOWN_ENDINGS = _listed("avik|bury|cross|dova|ester|fell|gate|haven|issa|mouth|orra|port|stead|vale")
"""Endings of invented towns."""
MONTHS = _listed("January|February|March|April|May|June|July|August|September|October|November|December")
"""Months of birth dates."""
PROFESSIONS = _listed(
    "lighthouse keeper|bridge engineer|court translator|deep-sea diver|glass blower|mountain surgeon|"
    "railway architect|puppet maker|harbour pilot|field botanist|opera librettist|map engraver|clock restorer|"
    "night-school teacher|forest ranger|theatre painter|river geologist|chess columnist|bell founder|"
    "organ tuner|textile chemist|prison chaplain|desert astronomer|dairy farmer|radio playwright|"
    "tram conductor|stone mason|folk archivist|speech therapist|silk merchant|flute teacher|kite designer|"
    "ice cartographer|war photographer|salt trader|village notary|bird illustrator|paper conservator|"
    "ferry captain|canal inspector"
)
"""Occupations, with their article."""
HOBBIES = _listed(
    "carving chess pieces from driftwood|racing homing pigeons|keeping bees on the roof|"
    "restoring old pinball machines|collecting railway timetables|growing giant pumpkins|"
    "mending broken violins|brewing nettle beer|folding paper dragons|tracing family crests|"
    "walking barefoot marathons|painting thimbles|recording birdsong at dawn|building ships in bottles|"
    "knitting striped scarves|solving sliding puzzles|diving for lost anchors|breeding spotted newts|"
    "pressing alpine flowers|baking braided loaves|juggling lit torches|photographing rusty gates|"
    "learning extinct languages|throwing clay whistles|sketching empty stations|fencing with wooden swords|"
    "climbing frozen waterfalls|binding pocket diaries|training sheepdogs|skating on flooded meadows|"
    "hunting for meteorites|tuning antique radios|singing in a miners' choir|weaving willow baskets|"
    "flying box kites|polishing fossil shells|playing the hurdy-gurdy|planting crooked hedges|"
    "repairing stopped watches|cycling over high passes"
)
"""Pastimes."""
DISHES = _listed(
    "smoked plum dumplings|barley soup with dill|roast quince and walnuts|fried river trout|saffron bean stew|"
    "pickled herring pie|chestnut pancakes|lamb with sour cherries|cold beet broth|honeyed turnip cakes|"
    "mussels in cider|rye bread with goose fat|lentils and burnt onion|baked apples with thyme|"
    "peppered rabbit|buckwheat noodles|stuffed cabbage rolls|oyster omelette|leek and potato tart|"
    "poppy seed strudel|grilled eel on toast|rice with wild garlic|almond milk pudding|venison sausages|"
    "pumpkin gnocchi|salted cod fritters|mushroom barley risotto|fig and goat cheese salad|black pudding hash|"
    "red lentil curry|sorrel and egg soup|caramel rice crackers|duck with juniper|crab and corn chowder|"
    "spiced pear porridge|tomato and anchovy rolls"
)
"""Favourite dishes."""
COLOURS = _listed("Silver|Golden|Crimson|Ivory|Copper|Azure|Emerald|Amber|Scarlet|Violet")
"""First word of an award."""
CREATURES = _listed("Heron|Otter|Falcon|Badger|Salmon|Lynx|Raven|Stag|Turtle|Moth")
"""Second word of an award."""
AWARD_KINDS = _listed("Prize|Medal|Ribbon|Cup")
"""What an award is called last."""
TITLE_QUALITIES = _listed(
    "Ninth|Hollow|Patient|Burning|Forgotten|Crooked|Gentle|Northern|Paper|Sleeping|Borrowed|Winter|Silent|"
    "Broken|Distant|Hidden|Lonely|Restless|Wooden|Velvet"
)
"""First word of a book title."""
TITLE_NOUNS = _listed(
    "Orchard|Lantern|Bridge|Harvest|Compass|Staircase|Orchestra|Garden|Letter|Mirror|Island|Window|Kettle|"
    "Shadow|Anchor|Ladder|Meadow|Feather|Candle|Cathedral"
)
"""Last word of a book title."""

WELL_KNOWN: tuple[tuple[str, str, str], ...] = (
    ("William Shakespeare", "England", "plays"),
    ("Marie Curie", "Poland", "radioactivity"),
    ("Leonardo da Vinci", "Italy", "painting"),
    ("Albert Einstein", "Germany", "relativity"),
    ("Frida Kahlo", "Mexico", "self-portraits"),
    ("Ludwig van Beethoven", "Germany", "symphonies"),
    ("Mahatma Gandhi", "India", "peaceful protest"),
    ("Leo Tolstoy", "Russia", "novels"),
    ("Nelson Mandela", "South Africa", "ending apartheid"),
    ("Isaac Newton", "England", "gravity"),
    ("Frederic Chopin", "Poland", "piano music"),
    ("Vincent van Gogh", "the Netherlands", "sunflowers"),
    ("Hans Christian Andersen", "Denmark", "fairy tales"),
    ("Nikola Tesla", "Croatia", "alternating current"),
    ("Pablo Picasso", "Spain", "cubism"),
    ("Galileo Galilei", "Italy", "telescopes"),
    ("Carl Linnaeus", "Sweden", "naming species"),
    ("Edvard Grieg", "Norway", "Peer Gynt"),
    ("Charles Darwin", "England", "evolution"),
    ("Miguel de Cervantes", "Spain", "Don Quixote"),
    ("Confucius", "China", "philosophy"),
    ("Sigmund Freud", "Austria", "psychoanalysis"),
    ("Simon Bolivar", "Venezuela", "independence"),
    ("Victor Hugo", "France", "Les Miserables"),
)
"""Name, country of birth (today's borders), what the person is known for."""

CAPITALS: tuple[tuple[str, str], ...] = _pairs(
    "France=Paris|Japan=Tokyo|Egypt=Cairo|Italy=Rome|Spain=Madrid|Germany=Berlin|Norway=Oslo|Peru=Lima|"
    "Greece=Athens|Kenya=Nairobi|Cuba=Havana|Chile=Santiago|Poland=Warsaw|Austria=Vienna|Portugal=Lisbon|"
    "Sweden=Stockholm|Finland=Helsinki|Ireland=Dublin|Hungary=Budapest|Denmark=Copenhagen|Thailand=Bangkok|"
    "Iran=Tehran|Iraq=Baghdad|Canada=Ottawa|Russia=Moscow|Belgium=Brussels|Jordan=Amman|Nepal=Kathmandu|"
    "Colombia=Bogota|Vietnam=Hanoi|Senegal=Dakar|Ghana=Accra|Romania=Bucharest|Bulgaria=Sofia|Serbia=Belgrade|"
    "Croatia=Zagreb|Latvia=Riga|Estonia=Tallinn|Iceland=Reykjavik|Mongolia=Ulaanbaatar"
)
"""Country and capital: the world facts."""
