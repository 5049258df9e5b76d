"""The words of the home requests: how people ask, and what they ask about.

TRAIN and HELDOUT share no phrasing. HELDOUT's rooms, devices, numbers and times are about half
new, half from TRAIN. A phrasing says the action; {where} and {when} are filled or left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Vocabulary:
    """What one split may say."""

    phrasings: Mapping[str, Sequence[str]]
    """By action."""
    places: Sequence[str]
    """Ways to name {room}."""
    moments: Sequence[str]
    """Ways to name {time}."""
    devices: Mapping[str, Sequence[str]]
    """By action."""
    rooms: Sequence[str]
    numbers: Sequence[int]
    times: Sequence[str]


_POWERED: Final = (
    "lamp", "ceiling light", "fan", "heater", "radio", "television", "coffee machine", "oven",
    "dishwasher", "air purifier", "robot vacuum", "sprinkler", "electric blanket", "printer",
    "floor lamp", "washing machine", "tumble dryer", "rice cooker", "slow cooker",
    "bread maker", "microwave", "blender", "juicer", "baby monitor", "record player",
    "sound bar", "treadmill", "exercise bike", "sewing machine", "laser cutter",
    "water heater", "boiler", "fountain", "pond filter", "security camera", "doorbell",
    "router", "monitor", "laptop charger", "hair dryer", "mirror light", "fairy lights",
    "desk lamp", "spotlight", "lantern", "grill", "stove", "waffle iron", "ice maker",
    "water pump", "humidifier", "massage chair", "scanner", "train set",
)  # fmt: skip
_NEW_POWERED: Final = (
    "night light", "game console", "hot plate", "water cooler", "pool filter", "party lights",
    "wall clock", "foot warmer", "home server", "snow machine", "door camera", "projector",
    "phone charger", "kettle", "fireplace", "wine cooler",
)  # fmt: skip
_DIALS: Final = (
    "thermostat", "lamp", "fan", "heater", "oven", "speaker", "air conditioner",
    "floor heating", "radio", "television", "ceiling light", "water heater", "freezer",
    "radiator", "electric blanket", "stove", "sound bar", "treadmill", "spotlight", "stereo",
)  # fmt: skip
_NEW_DIALS: Final = (
    "hot tub", "dimmer", "wine cooler", "fridge", "bath heater", "ice box",
)  # fmt: skip
_COVERS: Final = (
    "blinds", "curtains", "window", "garage door", "skylight", "roller shutter", "air vent",
    "hatch", "cupboard", "drawer", "dog door", "parasol", "valve", "damper", "sliding door",
    "fly screen", "trapdoor", "letterbox",
)  # fmt: skip
_NEW_COVERS: Final = (
    "cat flap", "sun roof", "roof hatch", "air duct", "canopy", "rain cover",
)  # fmt: skip
_LOCKS: Final = (
    "front door", "gate", "safe", "side door", "medicine cabinet", "bike rack", "patio door",
    "back door", "car", "locker", "desk drawer", "window", "toolbox", "trunk", "garage door",
    "balcony door", "chest", "freezer",
)  # fmt: skip
_NEW_LOCKS: Final = (
    "fire exit", "wine rack", "mailbox", "key box", "tool chest", "stage door",
)  # fmt: skip
_ROOMS: Final = (
    "kitchen", "living room", "bedroom", "bathroom", "hallway", "garage", "office",
    "dining room", "basement", "nursery", "guest room", "laundry room", "workshop", "library",
    "porch", "balcony", "courtyard", "study", "den", "shed", "stairwell", "lobby", "ballroom",
    "chapel", "cabin", "stable", "tower", "tent", "lounge", "studio", "utility room",
    "dressing room", "storage room", "sun room", "panic room", "server room", "poker room",
    "cloakroom", "barn", "boathouse", "observatory", "orangery",
)  # fmt: skip
_NEW_ROOMS: Final = (
    "attic", "pantry", "gym", "card room", "loft", "game room", "tea room", "music corner",
    "guest house", "wine cellar", "art gallery", "ice rink", "boat deck", "pool hall",
)  # fmt: skip

_TIMES: Final = tuple(f"{h:02}:{m:02}" for h in range(24) for m in (0, 10, 15, 20, 30, 40, 45, 50))
_NEW_TIMES: Final = tuple(f"{h:02}:{m:02}" for h in range(24) for m in (5, 25, 35, 55))
_NUMBERS: Final = tuple(n for n in range(1, 101) if n % 3)
_NEW_NUMBERS: Final = tuple(n for n in range(1, 101) if n % 3 == 0)

TRAIN: Final = Vocabulary(
    phrasings={
        "on": (
            "Turn on the {device}{where}{when}.",
            "Switch the {device}{where} on{when}.",
            "Please put the {device}{where} on{when}.",
            "Can you start the {device}{where}{when}?",
            "I want the {device}{where} running{when}.",
            "Power up the {device}{where}{when}, please.",
            "Hey, turn the {device}{where} on{when}.",
            "Could you switch on the {device}{where}{when}?",
        ),
        "off": (
            "Turn off the {device}{where}{when}.",
            "Switch the {device}{where} off{when}.",
            "Please shut off the {device}{where}{when}.",
            "Can you stop the {device}{where}{when}?",
            "I do not want the {device}{where} running{when}.",
            "Power down the {device}{where}{when}, please.",
            "Hey, turn the {device}{where} off{when}.",
            "Could you switch off the {device}{where}{when}?",
        ),
        "set": (
            "Set the {device}{where} to {value}{when}.",
            "Change the {device}{where} to {value}{when}.",
            "Please put the {device}{where} at {value}{when}.",
            "Can you bring the {device}{where} to {value}{when}?",
            "I want {value} on the {device}{where}{when}.",
            "Make it {value} on the {device}{where}{when}, please.",
            "Hey, turn the {device}{where} to {value}{when}.",
            "Could you set the {device}{where} at {value} percent{when}?",
        ),
        "open": (
            "Open the {device}{where}{when}.",
            "Please open up the {device}{where}{when}.",
            "Can you get the {device}{where} open{when}?",
            "I want the {device}{where} open{when}.",
            "Have the {device}{where} opened{when}, please.",
            "Hey, open the {device}{where} for me{when}.",
        ),
        "close": (
            "Close the {device}{where}{when}.",
            "Please shut the {device}{where}{when}.",
            "Can you get the {device}{where} closed{when}?",
            "I want the {device}{where} closed{when}.",
            "Have the {device}{where} closed up{when}, please.",
            "Hey, close the {device}{where} for me{when}.",
        ),
        "lock": (
            "Lock the {device}{where}{when}.",
            "Please lock up the {device}{where}{when}.",
            "Can you get the {device}{where} locked{when}?",
            "I want the {device}{where} locked{when}.",
            "Have the {device}{where} locked{when}, please.",
            "Hey, lock the {device}{where} for me{when}.",
        ),
        "unlock": (
            "Unlock the {device}{where}{when}.",
            "Please unlock the {device}{where} for us{when}.",
            "Can you get the {device}{where} unlocked{when}?",
            "I want the {device}{where} unlocked{when}.",
            "Have the {device}{where} unlocked{when}, please.",
            "Hey, unlock the {device}{where} for me{when}.",
        ),
        "check": (
            "Is the {device}{where} on?",
            "Check the {device}{where}{when}.",
            "Please check on the {device}{where}{when}.",
            "What is the {device}{where} doing?",
            "Tell me the state of the {device}{where}{when}.",
            "Hey, look at the {device}{where} for me{when}.",
        ),
    },
    places=(" in the {room}", " in the {room}", " over in the {room}"),
    moments=(" at {time}", " at {time}", " when it is {time}"),
    devices={
        "on": _POWERED,
        "off": _POWERED,
        "set": _DIALS,
        "open": _COVERS,
        "close": _COVERS,
        "lock": _LOCKS,
        "unlock": _LOCKS,
        "check": (*_POWERED, *_COVERS, *_LOCKS),
    },
    rooms=_ROOMS,
    numbers=_NUMBERS,
    times=_TIMES,
)

HELDOUT: Final = Vocabulary(
    phrasings={
        "on": (
            "Would you turn the {device}{where} on for me{when}?",
            "I need the {device}{where} switched on{when}.",
            "Let us have the {device}{where} on{when}.",
            "Go ahead and switch on the {device}{where}{when}.",
        ),
        "off": (
            "Would you turn the {device}{where} off for me{when}?",
            "I need the {device}{where} switched off{when}.",
            "Let us have the {device}{where} off{when}.",
            "Go ahead and switch off the {device}{where}{when}.",
        ),
        "set": (
            "Would you set the {device}{where} to {value} for me{when}?",
            "I need the {device}{where} set to {value}{when}.",
            "Let us set the {device}{where} to {value}{when}.",
            "Go ahead and turn the {device}{where} to {value}{when}.",
        ),
        "open": (
            "Would you open the {device}{where} for me{when}?",
            "I need the {device}{where} opened{when}.",
            "Let us have the {device}{where} wide open{when}.",
            "Go ahead and open the {device}{where}{when}.",
        ),
        "close": (
            "Would you close the {device}{where} for me{when}?",
            "I need the {device}{where} closed{when}.",
            "Let us have the {device}{where} shut{when}.",
            "Go ahead and close the {device}{where}{when}.",
        ),
        "lock": (
            "Would you lock the {device}{where} for me{when}?",
            "I need the {device}{where} locked up{when}.",
            "Let us have the {device}{where} locked{when}.",
            "Go ahead and lock the {device}{where}{when}.",
        ),
        "unlock": (
            "Would you unlock the {device}{where} for me{when}?",
            "I need the {device}{where} unlocked{when}.",
            "Let us have the {device}{where} unlocked{when}.",
            "Go ahead and unlock the {device}{where}{when}.",
        ),
        "check": (
            "Would you check the {device}{where} for me{when}?",
            "I need to know the state of the {device}{where}{when}.",
            "Let me know what the {device}{where} is doing{when}.",
            "Go ahead and check the {device}{where}{when}.",
        ),
    },
    places=(" in the {room}", " inside the {room}"),
    moments=(" at {time}", " once it is {time}"),
    devices={
        "on": (*_POWERED[::2], *_NEW_POWERED),
        "off": (*_POWERED[1::2], *_NEW_POWERED),
        "set": (*_DIALS[::2], *_NEW_DIALS),
        "open": (*_COVERS[::2], *_NEW_COVERS),
        "close": (*_COVERS[1::2], *_NEW_COVERS),
        "lock": (*_LOCKS[::2], *_NEW_LOCKS),
        "unlock": (*_LOCKS[1::2], *_NEW_LOCKS),
        "check": (*_NEW_POWERED, *_NEW_COVERS, *_NEW_LOCKS),
    },
    rooms=(*_ROOMS[::2], *_NEW_ROOMS),
    numbers=(*_NUMBERS[::2], *_NEW_NUMBERS),
    times=(*_TIMES[::2], *_NEW_TIMES),
)
