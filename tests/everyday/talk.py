"""Questions in a conversation: short notes, talk of other things, questions alone and follow-ups.

Plain data. Every other question, and all `HELD_TALK`, is held out of the choice of a design.
"""

NOTES = [
    "My name is Ann Keller.",
    "I live in a small flat in Ghent.",
    "The Mill Bridge was closed in March 2021 because its piers had cracks.",
    "The old library was closed in 2018 after a flood in the cellar.",
    "My sister Clara is 34 years old and works as a nurse in Lyon.",
    "My brother Tom is 19 years old and studies law in Utrecht.",
    "My dog is called Biscuit. He is a beagle and is afraid of thunder.",
    "My cat Minka eats only salmon.",
    "The boat Pelican lies in the harbour of Genoa. It is eleven metres long.",
    "Our car, a red Volvo, was serviced on 4 May by Garage Peeters.",
    "Maria Santos took over the harbour project from Peter in June.",
    "Maria Santos is 41 years old and comes from Porto.",
    "The wifi password at the office is heron42.",
    "The museum opens at ten and a ticket costs 12 euros.",
    "My dentist is Dr. Okafor. Her practice is in Park Street 9.",
    "The choir meets every Thursday at half past seven in the town hall.",
    "Grandmother's apple cake needs four apples and 200 grams of butter.",
    "The roof was repaired by Jansen in autumn 2022 for 8,400 euros.",
    "I am allergic to walnuts.",
    "The lighthouse on Texel was built in 1864 and is 35 metres high.",
    "Professor Lindqvist teaches botany in Uppsala.",
    "The bakery on the corner is run by Samir, who gets up at three.",
    "My locker at the gym is number 212.",
    "The tent weighs 2.4 kilograms and was a present from Uncle Bert.",
    "Our holiday in Norway starts on 12 July. We fly from Brussels.",
    "The washing machine broke because a coin was stuck in its pump.",
    "The piano was tuned by Mrs. Novak in October.",
    "The orchard has 60 pear trees, which my grandfather planted in 1950.",
    "My passport expires in August 2029.",
    "The company Brightwater makes pumps. It was founded by Elena Rossi in 1998.",
]

# question, what a right answer holds
ALONE = [
    ("What is my name?", "Ann"),
    ("Where do I live?", "Ghent"),
    ("Why was the Mill Bridge closed?", "crack"),
    ("How old is Clara?", "34"),
    ("What does Tom study?", "law"),
    ("What is my dog called?", "Biscuit"),
    ("What does Minka eat?", "salmon"),
    ("Where does the Pelican lie?", "Genoa"),
    ("Who took over the harbour project?", "Maria"),
    ("What is the wifi password at the office?", "heron"),
    ("When does the museum open?", "ten"),
    ("Who is my dentist?", "Okafor"),
    ("On which day does the choir meet?", "Thursday"),
    ("How many apples does grandmother's cake need?", "four"),
    ("Who repaired the roof?", "Jansen"),
    ("What am I allergic to?", "walnut"),
    ("When was the lighthouse on Texel built?", "1864"),
    ("Who teaches botany?", "Lindqvist"),
    ("Who runs the bakery on the corner?", "Samir"),
    ("What is the number of my locker?", "212"),
    ("How much does the tent weigh?", "2.4"),
    ("When does our holiday in Norway start?", "12 July"),
    ("Who tuned the piano?", "Novak"),
    ("When does my passport expire?", "2029"),
    ("Who founded Brightwater?", "Rossi"),
    ("How many pear trees are in the orchard?", "60"),
]

# question, reply, follow-up, what a right answer holds; whether the follow-up names so much of its
# subject that it can be found after other subjects ("far"), or only after small talk ("near")
FOLLOW_UPS = [
    ("Why was the Mill Bridge closed?", "Its piers had cracks.", "And when?", "2021", "near"),
    ("How old is Clara?", "34", "What is her job?", "nurse", "far"),
    ("Who took over the harbour project?", "Maria Santos", "How old is she?", "41", "far"),
    (
        "Who took over the harbour project?",
        "Maria Santos",
        "Where does she come from?",
        "Porto",
        "far",
    ),
    ("What is my dog called?", "Biscuit", "What is he afraid of?", "thunder", "far"),
    ("Where does the Pelican lie?", "In the harbour of Genoa.", "How long is it?", "metres", "far"),
    ("When was our car serviced?", "On 4 May.", "By whom?", "Peeters", "near"),
    ("When does the museum open?", "At ten.", "How much is a ticket?", "12", "far"),
    ("Who is my dentist?", "Dr. Okafor", "In which street is her practice?", "Park", "far"),
    ("On which day does the choir meet?", "Thursday", "And where?", "town hall", "near"),
    ("How many apples does the cake need?", "four", "And how much butter?", "200", "far"),
    ("Who repaired the roof?", "Jansen", "How much did it cost?", "8,400", "near"),
    ("When was the lighthouse on Texel built?", "1864", "How high is it?", "35", "far"),
    ("Who teaches botany?", "Professor Lindqvist", "In which town?", "Uppsala", "near"),
    ("Who runs the bakery?", "Samir", "When does he get up?", "three", "far"),
    ("How much does the tent weigh?", "2.4 kilograms", "Who gave it to me?", "Bert", "far"),
    ("When does our holiday start?", "On 12 July.", "Where do we fly from?", "Brussels", "far"),
    ("What does Tom study?", "Law", "In which city?", "Utrecht", "near"),
    ("What does Brightwater make?", "Pumps", "Who is the founder?", "Rossi", "far"),
    ("How many pear trees are in the orchard?", "60", "Who planted them?", "grandfather", "far"),
    ("When was the old library closed?", "In 2018.", "Why was it closed?", "flood", "near"),
    ("Who tuned the piano?", "Mrs. Novak", "When was that?", "October", "near"),
    ("Why did the washing machine break?", "A coin was stuck.", "In which part?", "pump", "near"),
    (
        "I am thinking about the Mill Bridge.",
        "What about it?",
        "Why was it closed?",
        "crack",
        "near",
    ),
]

NOWHERE = [
    "What is my shoe size?",
    "Who won the chess match in Madrid?",
    "When is Clara's wedding?",
    "What is the name of my neighbour's parrot?",
    "How many employees does the town hall have?",
    "Which bank do I use?",
    "Where did I leave my umbrella?",
    "Who painted the kitchen?",
    "What did Peter order for lunch?",
    "How deep is the lake near Uppsala?",
    "What is the phone number of the plumber?",
    "When does the train to Vienna leave?",
]

SMALL_TALK = [
    ("Thanks!", "You are welcome."),
    ("It is raining again today.", "I hope that it clears up."),
    ("Tell me a joke.", "I know no good one."),
    ("What a long week.", "Soon it is Saturday."),
    ("I have just had coffee.", "Enjoy it."),
    ("Nice.", "Yes."),
    ("Do you like music?", "I like to hear about it."),
]

STORY = (
    "Today I walked along the river to the old weir. The keeper told me that the gates had been "
    "renewed by two carpenters from the valley, who came every morning with a cart. We sat in the "
    "sun, ate bread with cheese, and watched the herons. "
)
MORE = (
    "Later a group of children came by with a kite that would not fly, and one of them lost a "
    "shoe in the mud. Their teacher laughed so much that she had to sit down. On the way back I "
    "bought tomatoes, a pound of plums and a newspaper, in which there was a long article about "
    "the price of wood and another about a football player who has moved to Spain. "
)
HELD_STORY = (
    "The meeting took all morning again. First the budget for the next quarter was discussed, then "
    "somebody had lost the slides, and in the end we talked about the new coffee machine for half "
    "an hour, because it makes a noise like a tractor. "
)
HELD_MORE = (
    "In the afternoon the heating failed on the second floor, so that everybody moved to the "
    "canteen with coats on. A technician crawled behind the boiler and came out with a dead mouse. "
    "My colleague wants to write a song about it. Tomorrow there is a fire drill, and on Friday "
    "the window cleaners come, who always whistle the same three tunes while we are on the phone. "
)


def talk(length, held=False):
    """One exchange of other talk, the user's part of about `length` characters; none for 0."""
    if not length:
        return []
    if length < 100:
        said = "Can you name a good train station?" if held else "What is a good soup for tonight?"
        return [(said, "I don't know.")]
    first, more = (HELD_STORY, HELD_MORE) if held else (STORY, MORE)
    said = (first + more * (1 + length // len(more)))[:length]
    return [(said.strip(), "I don't know.")]


def other_subjects(at, count):
    """`count` exchanges about notes other than the one that follow-up number `at` is about."""
    about = FOLLOW_UPS[at][0]
    others = [(q, a) for q, a, *_ in FOLLOW_UPS if q.split()[-2:] != about.split()[-2:]]
    return [others[(at * 5 + n * 7 + 3) % len(others)] for n in range(count)]


def between(at, count):
    """What stands between a follow-up and its subject: other subjects, or small talk."""
    if FOLLOW_UPS[at][4] == "far":
        return other_subjects(at, count)
    return [SMALL_TALK[(at + n) % len(SMALL_TALK)] for n in range(count)]


def follow_up(at, back):
    """The exchanges before follow-up number `at`, whose subject is `back` exchanges back."""
    first, reply, *_ = FOLLOW_UPS[at]
    return [*other_subjects(at, 1), (first, reply), *between(at, back - 1)]
