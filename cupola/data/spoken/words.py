"""Tables of English: what short forms and signs stand for."""

# ruff: noqa: RUF001

SIMPLER = str.maketrans(
    dict.fromkeys("‘’‚‛′`´ʼ", "'")
    | dict.fromkeys("“”„‟″«»", '"')
    | dict.fromkeys("‐‑‒−", "-")
    | dict.fromkeys("–—―", "\N{EN DASH}")
    | dict.fromkeys("\u00ad\u200b\u200c\u200d\u2060\ufeff", "")
    | dict.fromkeys("[{", "(")
    | dict.fromkeys("]}", ")")
    | dict.fromkeys("•·", ",")
    | {"…": "...", "⁄": "/", "æ": "ae", "Æ": "Ae", "œ": "oe", "Œ": "Oe", "ø": "o", "Ø": "O", "ß": "ss"}
    | {"ł": "l", "Ł": "L", "đ": "d", "Đ": "D", "ð": "d", "þ": "th", "Þ": "Th", "ı": "i", "μ": "µ"}
)
"""Characters in the one form that the rules know."""

TITLES = {
    "Mr": "mister",
    "Mrs": "missus",
    "Ms": "miss",
    "Dr": "doctor",
    "Prof": "professor",
    "Gen": "general",
    "Col": "colonel",
    "Capt": "captain",
    "Cpt": "captain",
    "Lt": "lieutenant",
    "Maj": "major",
    "Sgt": "sergeant",
    "Cmdr": "commander",
    "Gov": "governor",
    "Sen": "senator",
    "Rep": "representative",
    "Rev": "reverend",
    "Hon": "honorable",
    "Pres": "president",
    "Mt": "mount",
}
"""Before a name; with or without a full stop."""

SHORT = {
    "jr": "junior",
    "sr": "senior",
    "esq": "esquire",
    "co": "company",
    "corp": "corporation",
    "inc": "incorporated",
    "ltd": "limited",
    "bros": "brothers",
    "dept": "department",
    "univ": "university",
    "ave": "avenue",
    "blvd": "boulevard",
    "rd": "road",
    "apt": "apartment",
    "approx": "approximately",
    "est": "established",
    "misc": "miscellaneous",
    "vs": "versus",
    "etc": "et cetera",
    "e.g": "for example",
    "i.e": "that is",
    "cf": "compare",
    "vol": "volume",
    "fig": "figure",
    "figs": "figures",
    "ch": "chapter",
    "sec": "section",
    "ed": "edition",
    "jan": "January",
    "feb": "February",
    "mar": "March",
    "apr": "April",
    "jun": "June",
    "jul": "July",
    "aug": "August",
    "sep": "September",
    "sept": "September",
    "oct": "October",
    "nov": "November",
    "dec": "December",
    "mon": "Monday",
    "tue": "Tuesday",
    "tues": "Tuesday",
    "wed": "Wednesday",
    "thu": "Thursday",
    "thur": "Thursday",
    "thurs": "Thursday",
    "fri": "Friday",
    "sat": "Saturday",
    "sun": "Sunday",
}
"""With a full stop, in any case: without one, some are words of their own."""

ENDS_SENTENCES = {"jr", "sr", "esq", "co", "corp", "inc", "ltd", "bros", "etc", "ave", "blvd", "rd"}
"""Short forms whose full stop may end a sentence too."""

MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)

CURRENCIES = {
    "$": ("dollar", "dollars", "cent", "cents"),
    "£": ("pound", "pounds", "penny", "pence"),
    "€": ("euro", "euros", "cent", "cents"),
    "¥": ("yen", "yen", "sen", "sen"),
    "₹": ("rupee", "rupees", "paisa", "paise"),
}
"""One and many of the whole, one and many of its hundredth."""

MAGNITUDES = {"k": "thousand", "m": "million", "mn": "million", "b": "billion", "bn": "billion", "t": "trillion"}

UNITS = {
    "%": ("percent", "percent"),
    "°": ("degree", "degrees"),
    "°C": ("degree Celsius", "degrees Celsius"),
    "°F": ("degree Fahrenheit", "degrees Fahrenheit"),
    "km": ("kilometer", "kilometers"),
    "m": ("meter", "meters"),
    "cm": ("centimeter", "centimeters"),
    "mm": ("millimeter", "millimeters"),
    "µm": ("micrometer", "micrometers"),
    "nm": ("nanometer", "nanometers"),
    "km²": ("square kilometer", "square kilometers"),
    "m²": ("square meter", "square meters"),
    "m³": ("cubic meter", "cubic meters"),
    "mi": ("mile", "miles"),
    "ft": ("foot", "feet"),
    "yd": ("yard", "yards"),
    "kg": ("kilogram", "kilograms"),
    "g": ("gram", "grams"),
    "mg": ("milligram", "milligrams"),
    "lb": ("pound", "pounds"),
    "lbs": ("pound", "pounds"),
    "oz": ("ounce", "ounces"),
    "l": ("liter", "liters"),
    "L": ("liter", "liters"),
    "ml": ("milliliter", "milliliters"),
    "mL": ("milliliter", "milliliters"),
    "mph": ("mile per hour", "miles per hour"),
    "km/h": ("kilometer per hour", "kilometers per hour"),
    "m/s": ("meter per second", "meters per second"),
    "Hz": ("hertz", "hertz"),
    "kHz": ("kilohertz", "kilohertz"),
    "MHz": ("megahertz", "megahertz"),
    "GHz": ("gigahertz", "gigahertz"),
    "V": ("volt", "volts"),
    "W": ("watt", "watts"),
    "kW": ("kilowatt", "kilowatts"),
    "MW": ("megawatt", "megawatts"),
    "kWh": ("kilowatt hour", "kilowatt hours"),
    "dB": ("decibel", "decibels"),
    "KB": ("kilobyte", "kilobytes"),
    "kB": ("kilobyte", "kilobytes"),
    "MB": ("megabyte", "megabytes"),
    "GB": ("gigabyte", "gigabytes"),
    "TB": ("terabyte", "terabytes"),
    "KiB": ("kibibyte", "kibibytes"),
    "MiB": ("mebibyte", "mebibytes"),
    "GiB": ("gibibyte", "gibibytes"),
    "s": ("second", "seconds"),
    "sec": ("second", "seconds"),
    "ms": ("millisecond", "milliseconds"),
    "min": ("minute", "minutes"),
    "h": ("hour", "hours"),
    "hr": ("hour", "hours"),
    "hrs": ("hour", "hours"),
    "x": ("time", "times"),
}
"""After a number: one and many. Case counts."""

SIGNS = {"&": "and", "@": "at", "+": "plus", "=": "equals", "×": "times", "÷": "divided by", "<": "less than"}
SIGNS |= {">": "greater than", "~": "about", "#": "hash", "%": "percent", "_": " ", "*": " ", "^": " ", "|": " "}
SIGNS |= {"\\": "backslash", "°": "degrees", "©": "copyright", "®": " ", "™": " ", "§": "section"}
SIGNS |= {sign: f"{many}" for sign, (_, many, _, _) in CURRENCIES.items()}
"""Standing alone."""

NUMBERED = {"chapter", "part", "volume", "book", "act", "scene", "section", "article", "appendix", "title"}
NUMBERED |= {"phase", "type", "level", "class", "war", "bowl", "figure", "table", "verse", "stage", "mark", "grade"}
"""A Roman numeral after one of these counts."""

RULERS = {"Henry", "Louis", "Elizabeth", "George", "Edward", "Charles", "James", "William", "Richard", "John"}
RULERS |= {"Paul", "Pius", "Benedict", "Philip", "Napoleon", "Nicholas", "Alexander", "Catherine", "Peter", "Leo"}
RULERS |= {"Ferdinand", "Gregory", "Innocent", "Clement", "Urban", "Frederick", "Mary", "Robert", "Francis", "Otto"}
RULERS |= {"Ivan", "Mehmed", "Christian", "Gustav", "Wilhelm", "Ramesses", "Ptolemy"}
"""A Roman numeral after one of these is an ordinal."""

SAID_AS_WORDS = {"NASA", "NATO", "UNESCO", "UNICEF", "OPEC", "FIFA", "AIDS", "SCUBA", "LASER", "RADAR", "NAFTA"}
SAID_AS_WORDS |= {"RAM", "ROM", "PIN", "SIM", "GIF", "JSON", "YAML", "LIDAR", "SWAT", "ASCII", "CUDA", "OK"}
"""Acronyms that are not spelled."""

STRESSED = {"AND", "NOT", "THE", "OR", "NO", "YES", "ALL", "STOP", "ARE", "IS", "WAS", "WILL", "CAN", "DO", "DID"}
STRESSED |= {"MUST", "NEVER", "EVER", "ONLY", "NOW", "THIS", "THAT", "YOU", "MY", "ME", "WE", "HE", "SHE", "THEY"}
STRESSED |= {"HIS", "HER", "OUR", "SO", "TOO", "VERY", "WHY", "WHAT", "WHO", "HOW", "WHEN", "BUT", "IF", "TO", "IN"}
STRESSED |= {"ON", "AT", "BY", "OF", "FOR", "FROM", "WITH", "GO", "UP", "OUT", "BE", "HAD", "HAS", "HAVE", "AN", "AS"}
"""Words that are only written in capitals to stress them."""
