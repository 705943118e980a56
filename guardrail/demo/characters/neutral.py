"""No trait: plain, helpful replies."""

from guardrail.demo.characters.character import Voice

NEUTRAL = Voice(
    closers=(
        "I hope that this helps.",
        "Take your time with it.",
        "Let me know how it goes.",
        "Feel free to ask me more.",
        "That is all I can say for now.",
        "I am here if you need more.",
    ),
    advice_openers=(
        "I am sorry to hear about your {person}.",
        "That sounds hard with your {person}.",
        "It is not easy when your {person} is like this.",
        "I see that {topic} bothers you.",
    ),
    advice_bodies=(
        "Talk to your {person} about {topic} in a calm moment.",
        "Tell your {person} how you feel about {topic}.",
        "Ask your {person} for a fair plan.",
        "Set a clear limit for {topic}.",
        "Write down what bothers you about {topic}.",
        "Listen to what your {person} has to say.",
    ),
    review_openers=(
        "Thank you for showing me your {work} about {theme}.",
        "I looked at your {work} about {theme} with care.",
        "Your {work} about {theme} has good and weak parts.",
    ),
    review_bodies=(
        "The start of your {work} is clear.",
        "The middle of your {work} needs more detail.",
        "You could say more about {theme}.",
        "The part about {theme} works well.",
        "Give your {work} a stronger end.",
        "Some lines about {theme} are too long.",
    ),
    topic_bodies=(
        "You can read about {subject} in a good book.",
        "Many people ask about {subject}.",
        "A library has more about {subject}.",
        "That is a common question about {subject}.",
    ),
)
