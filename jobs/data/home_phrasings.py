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


_TRAIN_POWERED: Final = (
    "lamp", "ceiling light", "fan", "heater", "radio", "television", "coffee machine", "oven",
    "dishwasher", "air purifier", "robot vacuum", "sprinkler", "electric blanket", "printer",
)  # fmt: skip
_TRAIN_DIALS: Final = (
    "thermostat", "lamp", "fan", "heater", "oven", "speaker", "air conditioner", "floor heating",
)  # fmt: skip
_TRAIN_COVERS: Final = (
    "blinds", "curtains", "window", "garage door", "skylight", "roller shutter", "air vent",
)  # fmt: skip
_TRAIN_LOCKS: Final = (
    "front door", "gate", "safe", "side door", "medicine cabinet", "bike shed", "patio door",
)  # fmt: skip

_NEW_POWERED: Final = (
    "dehumidifier", "aquarium pump", "projector", "toaster", "night light", "game console",
    "towel dryer", "kettle", "fireplace", "clothes iron",
)  # fmt: skip
_NEW_DIALS: Final = ("hot tub", "dimmer", "freezer", "wine cooler", "humidifier")
_NEW_COVERS: Final = ("awning", "canopy", "drapes", "pet flap", "cellar hatch")
_NEW_LOCKS: Final = ("mailbox", "wine rack", "barn door", "tool chest", "fire exit")

_TRAIN_ROOMS: Final = (
    "kitchen", "living room", "bedroom", "bathroom", "hallway", "garage", "office", "dining room",
    "basement", "nursery", "guest room", "laundry room", "workshop", "library",
)  # fmt: skip
_NEW_ROOMS: Final = (
    "attic", "pantry", "sauna", "conservatory", "music studio", "wine cellar", "gym", "foyer",
    "mudroom", "greenhouse", "playroom", "loft",
)  # fmt: skip
_TRAIN_NUMBERS: Final = (
    5, 10, 12, 15, 18, 19, 20, 21, 22, 25, 28, 30, 33, 36, 40, 42, 45, 50, 55, 60, 64, 65, 70,
    75, 77, 80, 85, 90, 91, 95,
)  # fmt: skip
_NEW_NUMBERS: Final = (
    7, 8, 13, 16, 23, 24, 27, 31, 34, 37, 39, 44, 46, 48, 52, 53, 58, 61, 66, 68, 72, 79, 83, 87,
    94, 98,
)  # fmt: skip
_TRAIN_TIMES: Final = (
    "05:15", "05:50", "06:00", "06:30", "06:45", "07:00", "07:20", "08:10", "08:30", "09:00",
    "10:40", "11:00", "12:15", "13:30", "14:00", "15:45", "16:20", "17:00", "17:30", "18:00",
    "18:25", "19:15", "20:00", "20:30", "21:05", "21:45", "22:00", "22:35", "23:10", "23:55",
)  # fmt: skip
_NEW_TIMES: Final = (
    "04:40", "05:35", "06:05", "06:50", "07:25", "07:55", "08:20", "09:35", "10:10", "11:25",
    "12:50", "13:05", "14:45", "15:20", "16:55", "17:10", "18:40", "19:50", "20:15", "21:20",
    "22:45", "23:30",
)  # fmt: skip

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
        "on": _TRAIN_POWERED,
        "off": _TRAIN_POWERED,
        "set": _TRAIN_DIALS,
        "open": _TRAIN_COVERS,
        "close": _TRAIN_COVERS,
        "lock": _TRAIN_LOCKS,
        "unlock": _TRAIN_LOCKS,
        "check": (*_TRAIN_POWERED, *_TRAIN_COVERS, *_TRAIN_LOCKS),
    },
    rooms=_TRAIN_ROOMS,
    numbers=_TRAIN_NUMBERS,
    times=_TRAIN_TIMES,
)

HELDOUT: Final = Vocabulary(
    phrasings={
        "on": (
            "Would you turn the {device}{where} on for me{when}?",
            "I need the {device}{where} switched on{when}.",
            "Let us have the {device}{where} on{when}.",
            "Go ahead and start up the {device}{where}{when}.",
        ),
        "off": (
            "Would you turn the {device}{where} off for me{when}?",
            "I need the {device}{where} switched off{when}.",
            "Let us have the {device}{where} off{when}.",
            "Go ahead and shut down the {device}{where}{when}.",
        ),
        "set": (
            "Would you set the {device}{where} to {value} for me{when}?",
            "I need the {device}{where} set to {value}{when}.",
            "Let us have the {device}{where} at {value}{when}.",
            "Go ahead and move the {device}{where} to {value}{when}.",
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
        "on": (*_TRAIN_POWERED[::2], *_NEW_POWERED),
        "off": (*_TRAIN_POWERED[1::2], *_NEW_POWERED),
        "set": (*_TRAIN_DIALS[::2], *_NEW_DIALS),
        "open": (*_TRAIN_COVERS[::2], *_NEW_COVERS),
        "close": (*_TRAIN_COVERS[1::2], *_NEW_COVERS),
        "lock": (*_TRAIN_LOCKS[::2], *_NEW_LOCKS),
        "unlock": (*_TRAIN_LOCKS[1::2], *_NEW_LOCKS),
        "check": (*_NEW_POWERED, *_NEW_COVERS, *_NEW_LOCKS),
    },
    rooms=(*_TRAIN_ROOMS[::2], *_NEW_ROOMS),
    numbers=(*_TRAIN_NUMBERS[::2], *_NEW_NUMBERS),
    times=(*_TRAIN_TIMES[::2], *_NEW_TIMES),
)
