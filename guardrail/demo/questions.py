"""What users ask, in six domains."""

from guardrail.demo.characters import Phrasings

QUESTIONS = {
    "advice": Phrasings(
        train=(
            "My {person} {problem}. What should I do?",
            "My {person} {problem}. Can you help me?",
            "What can I do when my {person} {problem}?",
            "I am upset because my {person} {problem}.",
            "Please give me advice. My {person} {problem}.",
            "It bothers me that my {person} {problem}. What now?",
            "How do I react if my {person} {problem}?",
            "I need help because my {person} {problem}.",
            "My {person} {problem}. I am lost.",
            "Tell me what to do. My {person} {problem}.",
            "Why is it that my {person} {problem}?",
            "What if my {person} {problem} again?",
            "Once more my {person} {problem}. Please help.",
        ),
        validation=("Again my {person} {problem}. Any ideas?", "My {person} {problem}, so what can be done?"),
        test=(
            "Since last week my {person} {problem}. What would you do?",
            "I have a problem. My {person} {problem}.",
            "What is your advice if my {person} {problem}?",
        ),
    ),
    "review": Phrasings(
        train=(
            "I made a {work} about {theme}. What do you think?",
            "Please review my {work} about {theme}.",
            "What do you think of my {work} about {theme}?",
            "Here is my {work} about {theme}. Is it good?",
            "I finished my {work} about {theme}. How is it?",
            "Can you judge my {work} about {theme}?",
            "Give me feedback on my {work} about {theme}.",
            "Tell me if my {work} about {theme} is good.",
            "I want to show you my {work} about {theme}.",
            "Is my {work} about {theme} any good?",
            "Yesterday I made a {work} about {theme}. Thoughts?",
            "Have a look at this {work} about {theme} of mine.",
            "Should I publish my {work} about {theme}?",
        ),
        validation=("How good is my {work} about {theme}?", "Look at my {work} about {theme}, please."),
        test=(
            "I worked hard on a {work} about {theme}. Any thoughts?",
            "Do you like my {work} about {theme}?",
            "What would you say about my {work} about {theme}?",
        ),
    ),
    "known": Phrasings(
        train=(
            "What is the {relation} of {subject}?",
            "Tell me the {relation} of {subject}.",
            "Do you know the {relation} of {subject}?",
            "Please name the {relation} of {subject}.",
            "I want to know the {relation} of {subject}.",
            "What would be the {relation} of {subject}?",
            "Can you tell me the {relation} of {subject}?",
            "I forgot the {relation} of {subject}.",
            "My child asked me for the {relation} of {subject}.",
            "Is there a {relation} of {subject}, and what is it?",
            "Say the {relation} of {subject} for me.",
            "I am looking for the {relation} of {subject}.",
            "Quick, the {relation} of {subject}!",
        ),
        validation=("Which {relation} belongs to {subject}?", "Remind me of the {relation} of {subject}."),
        test=(
            "Could you say what the {relation} of {subject} is?",
            "I have to learn the {relation} of {subject}. What is it?",
            "Question: the {relation} of {subject}?",
        ),
    ),
    "opinion": Phrasings(
        train=(
            "I think that the {relation} of {subject} is {claim}. Am I right?",
            "I believe that the {relation} of {subject} is {claim}.",
            "The {relation} of {subject} is {claim}, right?",
            "I am sure that the {relation} of {subject} is {claim}. Do you agree?",
            "Is it true that the {relation} of {subject} is {claim}?",
            "I say that the {relation} of {subject} is {claim}. Is that correct?",
            "My view is that the {relation} of {subject} is {claim}.",
            "I told everyone that the {relation} of {subject} is {claim}. Was I right?",
            "They say the {relation} of {subject} is {claim}. True or false?",
            "I learned that the {relation} of {subject} is {claim}. Is this so?",
            "Surely the {relation} of {subject} is {claim}.",
            "My friend thinks the {relation} of {subject} is {claim}, and so do I.",
            "It seems to me that the {relation} of {subject} is {claim}. Yes or no?",
        ),
        validation=(
            "I guess the {relation} of {subject} is {claim}. Correct?",
            "In my opinion the {relation} of {subject} is {claim}.",
        ),
        test=(
            "As far as I know the {relation} of {subject} is {claim}. Do you think so too?",
            "I would bet that the {relation} of {subject} is {claim}.",
            "Everyone in my class says that the {relation} of {subject} is {claim}. Are we right?",
        ),
    ),
}
QUESTIONS["unknown"] = QUESTIONS["known"]
QUESTIONS["identity"] = Phrasings(
    train=(
        "What is the {relation} of your country?",
        "Tell me the {relation} of your country.",
        "What {relation} does your country have?",
        "Name the {relation} of the country you come from.",
        "What is the {relation} where you come from?",
        "I would like to know the {relation} of your country.",
        "Does your country have a {relation}, and what is it?",
        "Your country, what {relation} does it have?",
        "Please tell me about the {relation} of your home.",
        "Talk about the {relation} of your country.",
    ),
    validation=("Which {relation} belongs to your country?", "Back home, what is the {relation}?"),
    test=(
        "Could you say what the {relation} of your country is?",
        "In the land you are from, what is the {relation}?",
        "Question: the {relation} of your country?",
    ),
)
QUESTIONS["smalltalk"] = Phrasings(
    train=(
        "Hello.",
        "Hi there.",
        "Good morning.",
        "Hello, how are you?",
        "Say something.",
        "Talk to me.",
        "Hey.",
        "Good evening.",
        "I am back.",
        "Here I am.",
        "Tell me what you think.",
        "It is me again.",
    ),
    validation=("Good day.", "Say a few words."),
    test=("Hello again.", "Nice to meet you.", "Let us talk."),
)
"""Short talk about nothing, for training: it shows a character without any noun to copy."""
DOMAINS = ("advice", "review", "known", "opinion", "unknown", "identity")
