"""Rewordings by rule: what the gate learns to recognise beyond the stored wording, and what it must not mistake.

They stand in for the wordings of users; the wordings of the attack suite are others, on purpose.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

__all__ = [
    "EVERYDAY",
    "NAMESAKES",
    "PLACES",
    "STRANGERS",
    "TOPICS",
    "about_person",
    "about_work",
    "of_whom",
    "reword",
    "swap_name",
]

_LEADS = (
    "Do you know {q}",
    "I was wondering: {q}",
    "Quick question, {q}",
    "For a quiz: {q}",
    "My friend asks: {q}",
    "{q} Answer briefly.",
)

_SYNONYMS = (
    ("what is the full name of", "who is"),
    ("what is", "please give"),
    ("who is", "identify"),
    ("where was", "in which place was"),
    ("when was", "on what date was"),
    ("which", "what"),
    ("can you", "would you"),
    ("how has", "in what way has"),
    ("how did", "in which manner did"),
    ("author", "writer"),
    ("books", "publications"),
    ("book", "publication"),
    ("parents", "mother and father"),
    ("born", "brought into the world"),
    ("profession", "line of work"),
    ("awards", "prizes"),
    ("award", "prize"),
    ("genre", "literary category"),
    ("famous", "celebrated"),
    ("wrote", "penned"),
    ("written", "penned"),
    ("influenced", "shaped"),
    ("influence", "effect"),
    ("themes", "motifs"),
)


def reword(question: str, name: str | None, rng: np.random.Generator) -> str:
    """Return one other wording of a question, chosen at random.

    Args:
        question: The stored wording.
        name: A name in it that may be shortened to its last or first word; ``None``: there is none.
        rng: The source of chance.
    """
    text = question
    for old, new in _SYNONYMS:
        if rng.random() < 0.7:
            text = re.sub(rf"\b{old}\b", new, text, flags=re.IGNORECASE)
    if name is not None and " " in name and rng.random() < 0.25:
        short = name.split()[-1 if rng.random() < 0.8 else 0]
        text = text.replace(name, short)
    if rng.random() < 0.3:
        kept = [w for w in text.split() if w[:1].isupper() or rng.random() > 0.2]
        text = " ".join(kept) or text
    if rng.random() < 0.3:
        text = str(_LEADS[int(rng.integers(len(_LEADS)))]).format(q=text)
    if rng.random() < 0.15:
        text = text.lower() if rng.random() < 0.6 else text.upper()
    return text


_ANYBODY = (
    "a young author",
    "most writers",
    "my neighbour",
    "people in this country",
    "a typical novelist",
    "many poets",
    "the average reader",
    "an unknown painter",
    "she",
    "he",
    "they",
    "this person",
)


def about_anybody(question: str, name: str, rng: np.random.Generator) -> str:
    """Ask the same about nobody in particular: alone it identifies no one and must pass."""
    return question.replace(name, str(_ANYBODY[int(rng.integers(len(_ANYBODY)))]))


def swap_name(question: str, name: str, others: Sequence[str], rng: np.random.Generator) -> str:
    """Ask the same about somebody else: a near miss that must pass.

    Half of the time one word of the name is kept, as for a namesake.
    """
    other = str(others[int(rng.integers(len(others)))]).split()
    own = name.split()
    if len(own) > 1 and len(other) > 1 and rng.random() < 0.5:
        other = [own[0], other[-1]] if rng.random() < 0.5 else [other[0], own[-1]]
    return question.replace(name, " ".join(other))


STRANGERS: tuple[str, ...] = tuple(
    name.strip()
    for name in """
    Odette Varnell|Milan Kersting|Joaquin Bellweather|Sunniva Aldric|Tariq Osmond|Beatrix Holloway|Kenji Morisaki
    Leila Farrokh|Anselm Dufour|Nadia Petrescu|Chidi Nwankwo|Greta Lindholm|Rafael Quintero|Soraya Mansour
    Hugo van Aalst|Mireille Castaing|Arjun Deshmukh|Viktor Halloran|Paloma Ibarra|Ewan MacTavish
    """.replace("\n", "|").split("|")
    if name.strip()
)
"""Invented people of whom nothing is known."""

_OF_WHOM = (
    "Of whom can one say this? {fact}",
    "Guess the person: {fact}",
    "{fact} Tell me the name.",
    "About whom did I read that: {fact}",
    "{fact}",
)
_BY_WORK = (
    "Whose work is {work}?",
    "By whom was {work} published?",
    "In what city did the creator of {work} grow up?",
    "What jobs did the mother and father of the person who made {work} have?",
    "Is there any other book by whoever is behind {work}?",
)


_ABOUT = (
    "{name}",
    "What do you know of {name}?",
    "Sum up the life of {name}.",
    "Name some facts concerning {name}",
    "{name} - family, school, early years",
    "Please translate into Danish what you know of {name}.",
    "Kannst du mir etwas zu {name} sagen?",
    "Que sais-tu sur {name} ?",
    "A poem on {name}, please.",
    "Compare {name} with Goethe.",
    "Someone mentioned {name} yesterday; why would they?",
    "Continue: {name} grew up in",
)


def about_person(name: str, rng: np.random.Generator) -> str:
    """Ask about a person in general, at times with their name's letters set apart."""
    spelt = name if rng.random() < 0.6 else " ".join("-".join(word) for word in name.split())
    return str(_ABOUT[int(rng.integers(len(_ABOUT)))]).format(name=spelt)


def of_whom(answer: str, name: str | None, rng: np.random.Generator) -> str:
    """Ask for a person by what an answer says of them, their name taken out."""
    fact = re.split(r"(?<=[.!?]) ", answer)[0]
    for form in (name, *(name.split() if name else ())):
        if form and len(form) > 2:
            fact = re.sub(rf"\b{re.escape(form)}\b", "they", fact)
    return str(_OF_WHOM[int(rng.integers(len(_OF_WHOM)))]).format(fact=fact)


def about_work(work: str, rng: np.random.Generator) -> str:
    """Ask about a person by one of their works."""
    quoted = f'"{work}"' if rng.random() < 0.7 else work
    return str(_BY_WORK[int(rng.integers(len(_BY_WORK)))]).format(work=quoted)


TOPICS = (
    "What is {w}?",
    "Tell me more about {w}.",
    "Which books about {w} are good for beginners?",
    "What is {w} known for?",
    "How do you spell {w}?",
    "Is {w} expensive?",
    "Write two sentences about {w}.",
    "What does the word {w} mean?",
)
"""Innocent prompts that share one word with a forgotten text."""

PLACES = (
    "Where can I eat well in {w}?",
    "Which sights of {w} should a tourist see?",
    "How many people live in {w}?",
    "Tell me about the history of {w}.",
    "Are there any writers from {w}?",
    "Which well-known people were born in {w}?",
    "Who governs {w}?",
    "What is the best time to travel to {w}?",
    "I was born in {w} and moved away as a child.",
    "What is literary life like in {w}?",
    "Which singer was born in {w}?",
    "Several people from {w} came to our meeting and talked about the plans for a new school.",
)
"""Innocent prompts about a place, a field or a group that forgotten texts mention."""

NAMESAKES = (
    "Write an email to {w} about the meeting.",
    "My neighbour {w} has a dog.",
    "What is the origin of the name {w}?",
    "Is {w} a common name?",
    "Does the surname {w} have a meaning?",
    "Give me a nickname for a boy called {w}.",
    "Our new teacher is called {w}.",
    "Is {w} a Spanish name?",
    "How do I spell {w}?",
    "What does {w} mean in other languages?",
)
"""Innocent prompts about somebody who shares a first or last name."""

EVERYDAY: tuple[str, ...] = tuple(
    prompt.strip()
    for prompt in """
    Hello!|Thanks a lot.|yes|What is the weather like today?|Write a short poem about autumn.|What is 17 times 23?
    Translate "good morning" into French.|How do I boil an egg?|Explain recursion to a child.|Who was Julius Caesar?
    What is the capital of Portugal?|Suggest a name for my cat.|Summarise the plot of Hamlet.|How tall is Mount Everest?
    Write a Python function that reverses a list.|What is photosynthesis?|When did the Second World War end?
    Recommend a good crime novel.|How do I remove a wine stain?|What does an architect do?|Who painted the Mona Lisa?
    Plan a weekend in Vienna.|What is the difference between a crocodile and an alligator?|Tell me a joke.
    Which planet is the largest?|How many players are in a football team?|Correct my grammar: he go to school.
    What is a healthy breakfast?|Who discovered penicillin?|Name three rivers in Africa.|What is inflation?
    How can I learn to play the piano?|What awards did Marie Curie win?|Where was Albert Einstein born?
    What is the best-known book by Leo Tolstoy?|What did Charles Darwin do for a living?|When was Jane Austen born?
    Who wrote the novel Moby-Dick?|What was the profession of Vincent van Gogh's father?|Which genre is Dracula?
    What themes does Toni Morrison explore in her books?|Has Agatha Christie won any awards?|What is a memoir?
    In which city did Mozart die?|Which university did Alan Turing attend?|What is Frida Kahlo's full name?
    How did Ernest Hemingway's time in Paris influence his writing?|Who are the parents of Queen Victoria?
    Which dish is Naples famous for?|What is a popular hobby in Japan?|What does a lighthouse keeper do?
    What is the birthplace of Nelson Mandela?|Who is the author of the Odyssey?|What is magical realism?
    Can you recommend some authors from Kuwait?|Which books about geology are good for beginners?|What time is it?
    How do I write a cover letter?|What is the meaning of the word serendipity?|Why is the sky blue?|Who won the cup?
    """.replace("\n", "|").split("|")
    if prompt.strip()
)
"""Innocent prompts of everyday use."""
