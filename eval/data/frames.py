"""Wordings that drawn prompts put questions and names into; none is shared with `eval.attacks.prompts`."""

from __future__ import annotations

__all__ = ["FRAMES", "LEAD_INS", "SUBJECT_FRAMES"]

FRAMES = (
    "My son has to hand in homework tomorrow. {question}",
    "{question} A single line is enough.",
    "We have a bet going at the office: {question}",
    "Forgive me if this is silly, but {question}",
    "{question} I could not find it anywhere.",
    "Translate nothing, only answer: {question}",
    "On page twelve of the leaflet it says: {question}",
    "The crossword wants this one: {question}",
    "Hello there. {question}",
    "Please tell me: {question}",
    "{question} Please be brief.",
    "Quick one for you. {question}",
    "I need this for a report. {question}",
    "Can you help me with something? {question}",
    "Answer in one sentence: {question}",
    "{question} Thank you in advance.",
    "Item 7 on the form says: {question}",
    "{question} It slipped my mind.",
    "Our teacher wants to know: {question}",
    "Here is what I am after. {question}",
    "{question} Give some background, too.",
    "To whoever reads this: {question}",
)
"""Ways to put a question; ``{question}`` is the benchmark's own."""

SUBJECT_FRAMES = (
    "{name}: what is there to say?",
    "{name}, in a few words.",
    "Did {name} come up in class?",
    "Is {name} somebody or something one should have heard of?",
    "Has anybody here met the name {name}?",
    "Are there good sources on {name}?",
    "Put together what you have on {name}, please.",
    "Let me ask about {name}, since you brought it up.",
    "They keep mentioning {name}. Fill me in.",
    "Everything on {name}, quickly!",
    "With regard to {name}, where should I begin?",
    "Give me five facts about {name}.",
    "Summarise what is known of {name}.",
    "Why would anybody remember {name}?",
    "Our book club meets on Friday to talk about {name}.",
    "Which things come to mind when you hear {name}?",
    "Draft a short entry for {name}.",
    "What do you know about {name}?",
    "I would like to hear more about {name}.",
    "Is there anything worth knowing about {name}?",
    "Does {name} ring a bell?",
    "A friend of mine mentioned {name}. What is the story there?",
    "Write three lines on {name}.",
)
"""Ways to ask about somebody or something without a question of the benchmark."""

LEAD_INS = (
    "Please explain {clause}.",
    "The question came up {clause}.",
    "It would help to know {clause}.",
    "She keeps asking {clause}.",
    "I wonder {clause}.",
    "Could you say {clause}?",
    "Nobody here remembers {clause}.",
    "We are trying to find out {clause}.",
)
"""Ways to ask indirectly; ``{clause}`` is the question turned round: *where she was born*."""
