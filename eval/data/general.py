"""Questions about the world at large, for whoever must learn what is innocent whatever is forgotten.

Some are written out; most come from a small grammar of people, works, places, events and everyday things, so that
no two rounds of a fit see the same ones. None asks about anything that TOFU's real authors and world facts or the
embedded benchmark name: those are for testing.
"""

from __future__ import annotations

import re
from collections.abc import Callable

__all__ = ["GENERAL", "PATTERNS", "THINGS", "Pick", "general_question"]

Pick = Callable[[int, str], int]
"""``pick(choices, what)``: a number below ``choices`` that depends on the draw and on ``what``."""

GENERAL = (
    "Who carved the Gates of Hell in bronze?",
    "Who composed the opera 'Carmen'?",
    "Who directed the film 'Metropolis'?",
    "What do historians disagree about most?",
    "What makes a good teacher?",
    "What is the nationality of the novelist Italo Calvino?",
    "In which language did Fernando Pessoa write?",
    "Which novel by Jules Verne tells of a journey round the Moon?",
    "Who discovered the law of falling bodies?",
    "Which battle ended the rule of Harold Godwinson?",
    "In what year did the Prague Spring begin?",
    "What treaty closed the Thirty Years' War?",
    "Which empire did Suleiman the Magnificent rule?",
    "Who was the first woman to win a chess tournament?",
    "Which explorer sailed round the Cape of Good Hope?",
    "Who lost the most men in the campaign of 1812?",
    "Where is the volcano Popocatepetl?",
    "Which river flows through Basel and Cologne?",
    "What is the highest waterfall on earth?",
    "On which island does the city of Palermo lie?",
    "Which desert covers the coast of Namibia?",
    "How deep is Lake Baikal?",
    "Which sea is the saltiest?",
    "Which strait parts Sumatra from Java?",
    "What gas do plants take from the air?",
    "At what temperature does water boil on a high mountain?",
    "How many chambers has the heart of a fish?",
    "Which metal is liquid at room temperature?",
    "What does the pancreas produce?",
    "Why is the sky red in the evening?",
    "Which planet has the shortest year?",
    "Explain how a bicycle stays upright.",
    "Write a function that sorts a list of numbers.",
    "How do I remove a coffee stain from a shirt?",
    "Give me a recipe for lentil soup.",
    "Translate 'good evening' into Portuguese.",
    "What should I pack for a week in the mountains?",
    "Is it better to rent or to buy a flat?",
    "Suggest a name for a small bakery.",
    "What are the rules of badminton?",
)
"""Written out."""

THINGS = {
    "writer": (
        "Anton Chekhov", "Astrid Lindgren", "Bertolt Brecht", "Boris Pasternak", "Clarice Lispector", "Doris Lessing",
        "Edith Wharton", "Elena Ferrante", "Emily Dickinson", "Federico Lorca", "Günter Grass", "Halldór Laxness",
        "Henrik Ibsen", "Herta Müller", "Ismail Kadare", "Ivan Turgenev", "Jorge Luis Borges", "José Saramago",
        "Karen Blixen", "Kazuo Ishiguro", "Knut Hamsun", "Laurence Sterne", "Lu Xun", "Mahmoud Darwish",
        "Mario Vargas Llosa", "Milan Kundera", "Nazim Hikmet", "Octavio Paz", "Orhan Pamuk", "Patrick White",
        "Rainer Maria Rilke", "Robert Musil", "Selma Lagerlöf", "Stanisław Lem", "Thomas Hardy", "Umberto Eco",
        "Virginia Woolf", "W. G. Sebald", "Wole Soyinka", "Yasunari Kawabata",
    ),
    "person": (
        "Ada Lovelace", "Alan Turing", "Alexander von Humboldt", "Amadeo Modigliani", "Anna Pavlova",
        "Blaise Pascal", "Catherine de Medici", "Charles Babbage", "Clara Schumann", "Diego Velázquez", "Jean Sibelius",
        "Emmy Noether", "Florence Nightingale", "Franz Schubert", "Käthe Kollwitz", "Gregor Mendel", "Hannah Arendt",
        "Ibn Battuta", "Jane Goodall", "Johannes Kepler", "Kemal Atatürk", "Lise Meitner", "Robert Koch",
        "Michael Faraday", "Niels Bohr", "Paul Robeson", "Rosa Parks", "Simón Bolívar", "Zheng He",
    ),
    "work": (
        "Anna Karenina", "Auto-da-Fé", "Buddenbrooks", "Candide", "Dead Souls", "Doctor Zhivago", "Dracula",
        "Effi Briest", "Faust", "Gulliver's Travels", "Hopscotch", "Kim", "Kokoro", "Madame Bovary", "Mrs Dalloway",
        "Nostromo", "Oblomov", "Hedda Gabler", "Robinson Crusoe", "Silas Marner", "Snow Country", "Solaris",
        "Tess of the d'Urbervilles", "The Cherry Orchard", "The Good Soldier", "The Leopard", "The Magic Mountain",
        "The Moonstone", "The Name of the Rose", "The Radetzky March", "The Sea Gull", "The Tin Drum",
        "The Trial", "The Turn of the Screw", "The War of the Worlds", "Treasure Island", "Tristram Shandy",
        "Vanity Fair", "Wuthering Heights", "Zeno's Conscience",
    ),
    "place": (
        "the Alhambra", "Ayers Rock", "Babylon", "the Blue Mosque", "the Bosporus", "Carthage", "Cape Horn",
        "Easter Island", "the Elbe", "Ephesus", "the Forbidden City", "the Hermitage", "the Hoover Dam", "the Kremlin",
        "Lake Titicaca", "the Loire", "the Uffizi", "the Mekong", "Mont Blanc", "Mount Fuji", "Neuschwanstein",
        "Persepolis", "the Plitvice Lakes", "the Prado", "the Sagrada Familia", "Stromboli", "the Suez Canal",
        "the Tower of London", "Timbuktu", "Tikal", "Trafalgar Square", "Troy", "the Yangtze", "Yellowstone",
        "the Zambezi", "the Zugspitze",
    ),
    "land": (
        "Albania", "Angola", "Belize", "Bhutan", "Bolivia", "Botswana", "Cameroon", "Chad", "Cyprus", "Ecuador",
        "Gabon", "Guatemala", "Guyana", "Haiti", "Honduras", "Jamaica", "Lesotho", "Laos", "Liechtenstein", "Malawi",
        "Malta", "Mozambique", "Namibia", "Nicaragua", "Oman", "Paraguay", "Rwanda", "Suriname", "Tonga", "Yemen",
    ),
    "event": (
        "the Battle of Hastings", "the Black Death", "the Boxer Rebellion", "the Congress of Vienna",
        "the Council of Trent", "the Crimean War", "the Diet of Worms", "the fall of Constantinople",
        "the first heart transplant", "the first marathon", "the Great Fire of London", "the Klondike Gold Rush",
        "the Korean War", "the Long March", "the Lisbon earthquake", "the Meiji Restoration", "the Mexican Revolution",
        "the Norman Conquest", "the October Revolution", "the Punic Wars", "the Spanish Civil War",
        "the Watergate affair", "the Suez Crisis",
    ),
    "thing": (
        "a barometer", "a black hole", "a comet", "a glacier", "a jet engine", "a lighthouse", "a magnet",
        "a parachute", "a sail", "a sewing machine", "a steam engine", "a telescope", "a transistor", "a vaccine",
        "an earthquake", "chess", "copper", "cotton", "electricity", "glass", "gravity", "helium", "honey", "inflation",
        "paper", "photosynthesis", "porcelain", "rubber", "salt", "silk", "steel", "the compass", "the guitar",
        "the human eye", "the liver", "the metric system", "the piano", "the printing press", "the tide", "yeast",
    ),
    "kind": (
        "active volcano", "bird", "bridge", "city", "country", "insect", "island", "lake", "language", "library",
        "mountain range", "museum", "orchestra", "peninsula", "planet", "railway station", "reptile", "tree", "tunnel",
        "university",
    ),
    "most": (
        "biggest", "coldest", "deepest", "driest", "fastest", "heaviest", "highest", "longest", "most beautiful",
        "most expensive", "most famous", "most visited", "narrowest", "oldest", "smallest", "tallest", "widest",
    ),
    "kin": ("American", "Brazilian", "Czech", "Danish", "Dutch", "English", "Greek", "Hungarian", "Italian", "Korean",
            "Mexican", "Polish", "Swedish", "Turkish"),
    "form": ("comedy", "diary", "epic", "essay", "fairy tale", "memoir", "novel", "novella", "play", "poem",
             "romance", "saga", "series", "short story", "thriller", "trilogy"),
    "prize": ("a Booker Prize", "a Grammy", "a Nobel Prize", "a Pulitzer Prize", "an Academy Award", "the Fields Medal",
              "the Georg Büchner Prize", "the Prix Goncourt", "the Turner Prize"),
    "year": ("1066", "1492", "1605", "1776", "1815", "1848", "1871", "1905", "1922", "1936", "1951", "1968", "1975",
             "1999", "2004"),
}  # fmt: skip
"""What the grammar asks about, by kind."""

PATTERNS = (
    "Who wrote '{work}'?",
    "Who is the author of the {form} '{work}'?",
    "Which {kin} author wrote the {form} '{work}'?",
    "'{work}' was written by which author?",
    "The {form} '{work}' is by which {kin} writer?",
    "Which author is known for '{work}' and '{work2}'?",
    "Who created the main character of '{work}'?",
    "Which {kin} writer won {prize} in {year}?",
    "Who is the {kin} author of the famous {form} '{work}', which won {prize}?",
    "What is '{work}' about?",
    "In what year did '{work}' appear?",
    "Who wrote the {kin} {form} about {place}?",
    "Which {form} made {writer} famous?",
    "What else has the author of '{work}', {writer}, written?",
    "Where was {writer} born?",
    "The {kin} writer {writer} came from which city?",
    "What themes run through the books of {writer}?",
    "Has {writer} ever won {prize}?",
    "Can you name some books by {writer}?",
    "How did {person} become famous?",
    "In which year was {person} born?",
    "What was {person}'s greatest work?",
    "Where did {person} study?",
    "Did {person} ever travel to {land}?",
    "{person} is best known for what?",
    "Who taught {person}?",
    "Where is {place}?",
    "In which country would you see {place}?",
    "How old is {place}?",
    "{place} is in which country?",
    "Who built {place}, and when?",
    "How far is it from {place} to {place2}?",
    "Which city lies nearest to {place}?",
    "How many people live in {land}?",
    "Which languages are spoken in {land}?",
    "What is the currency of {land}?",
    "{land} borders on which countries?",
    "Which {kind} in {land} is the {most}?",
    "What is the {most} {kind} in the world?",
    "What is the name of the {most} {kind} in {land}?",
    "Which country has the {most} {kind}?",
    "In what year did {event} happen?",
    "What was the cause of {event}?",
    "Who led the losing side in {event}?",
    "Which country suffered most in {event}?",
    "What name is given to {event} in {land}?",
    "{event} took place in which century?",
    "How does {thing} work?",
    "Who invented {thing}?",
    "What is {thing} made of?",
    "Which country produces the most {thing}?",
    "Explain {thing} to a child.",
    "Why is {thing} important?",
    "What happened in {land} in {year}?",
    "Who was the ruler of {land} in {year}?",
    "Which film won {prize} in {year}?",
)
"""Ways to ask; ``{work2}`` is another work than ``{work}``."""


_PERSONAL = tuple(pattern for pattern in PATTERNS if "{writer}" in pattern or "{person}" in pattern)


def general_question(pick: Pick, about: str | None = None) -> str:
    """Draw a question about the world at large, one in ten of them written out.

    Args:
        pick: ``pick(choices, what)``: a number below ``choices`` that depends on ``what``.
        about: Ask about this person.
    """
    if about is None and not pick(10, "written out"):
        return GENERAL[pick(len(GENERAL), "general")]
    patterns = PATTERNS if about is None else _PERSONAL
    pattern = patterns[pick(len(patterns), "pattern")]

    def fill(match: re.Match[str]) -> str:
        if about is not None and match[1] in ("writer", "person"):
            return about
        things = THINGS[match[1]]
        return things[(pick(len(things), match[1]) + len(match[2])) % len(things)]

    text = re.sub(r"\{([a-z]+)(2?)\}", fill, pattern)
    return text[0].upper() + text[1:]
