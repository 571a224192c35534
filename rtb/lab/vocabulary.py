"""The words that generated traffic and generated campaigns share, so that they meet.

Everything is invented (RFC 2606 names) except geography and the IAB's and OpenRTB's own codes. Tuples are ordered from
common to rare; weights stand beside the words where the mix matters.
"""

from __future__ import annotations

from typing import NamedTuple


class City(NamedTuple):
    """A place users are near: `region` as in device.geo.region (ISO-3166-2, the state's two letters in the USA),
    `country` ISO-3166-1 alpha-3, degrees, `zip` a postcode there, `weight` its share within the country."""

    name: str
    region: str
    country: str
    lat: float
    lon: float
    zip: str
    weight: int


class Country(NamedTuple):
    """`code` ISO-3166-1 alpha-3, `language` ISO-639-1 as in device.language, `utcoffset` minutes from UTC."""

    code: str
    language: str
    currency: str
    utcoffset: int
    weight: int


class Venue(NamedTuple):
    """A site (a domain) or an app (a bundle too), its IAB 1.0 categories, the country it is read in ("" = anywhere)."""

    domain: str
    bundle: str
    name: str
    cats: tuple[str, ...]
    country: str


class Device(NamedTuple):
    """A kind of device: OpenRTB `devicetype`, os, make, model, screen in pixels, and its user agent."""

    devicetype: int
    os: str
    osv: str
    make: str
    model: str
    w: int
    h: int
    ua: str
    weight: int


COUNTRIES = (
    Country("KOR", "ko", "KRW", 540, 35),
    Country("USA", "en", "USD", -300, 30),
    Country("JPN", "ja", "JPY", 540, 15),
    Country("DEU", "de", "EUR", 60, 10),
    Country("GBR", "en", "GBP", 0, 10),
)

CITIES = (
    City("Seoul", "KR-11", "KOR", 37.5665, 126.9780, "04524", 60),
    City("Busan", "KR-26", "KOR", 35.1796, 129.0756, "47545", 20),
    City("Incheon", "KR-28", "KOR", 37.4563, 126.7052, "21554", 12),
    City("Daejeon", "KR-30", "KOR", 36.3504, 127.3845, "35242", 8),
    City("New York", "NY", "USA", 40.7128, -74.0060, "10007", 40),
    City("Los Angeles", "CA", "USA", 34.0522, -118.2437, "90012", 30),
    City("Chicago", "IL", "USA", 41.8781, -87.6298, "60602", 20),
    City("Seattle", "WA", "USA", 47.6062, -122.3321, "98104", 10),
    City("Tokyo", "JP-13", "JPN", 35.6762, 139.6503, "163-8001", 70),
    City("Osaka", "JP-27", "JPN", 34.6937, 135.5023, "530-8201", 30),
    City("Berlin", "DE-BE", "DEU", 52.5200, 13.4050, "10178", 50),
    City("Munich", "DE-BY", "DEU", 48.1351, 11.5820, "80331", 30),
    City("Hamburg", "DE-HH", "DEU", 53.5511, 9.9937, "20095", 20),
    City("London", "GB-LND", "GBR", 51.5072, -0.1276, "SW1A", 75),
    City("Manchester", "GB-MAN", "GBR", 53.4808, -2.2426, "M2", 25),
)

LANGUAGES = ("ko", "en", "ja", "de")

OSES = ("Android", "iOS", "Windows", "macOS", "Linux", "Tizen")

INTERESTS = (
    "sports", "technology", "fashion", "travel", "food", "music", "gaming", "finance", "health", "movies",
    "automotive", "beauty", "parenting", "pets", "news", "books", "fitness", "photography", "gardening", "real-estate",
    "education", "science", "football", "baseball", "golf", "cooking", "coffee", "k-pop", "webtoon", "camping",
    "hiking", "cycling", "smartphones", "investing", "insurance", "careers", "interior", "wedding", "art", "politics",
)  # fmt: skip

SEGMENTS = tuple(f"seg-{number:04d}" for number in range(1, 1001))
"""Ids of data segments (user.data.segment.id)."""

SITE_CATS = (
    "IAB1", "IAB1-2", "IAB1-6", "IAB2", "IAB3", "IAB3-1", "IAB5", "IAB6", "IAB7", "IAB8", "IAB8-5", "IAB9", "IAB9-30",
    "IAB10", "IAB12", "IAB12-3", "IAB13", "IAB15", "IAB16", "IAB17", "IAB17-2", "IAB17-12", "IAB18", "IAB19",
    "IAB19-6", "IAB20", "IAB20-27", "IAB21", "IAB22",
)  # fmt: skip
"""Categories that venues and campaigns carry; IAB Content Taxonomy 1.0 (cattax = 1)."""

SENSITIVE_CATS = ("IAB7-39", "IAB8-18", "IAB9-9", "IAB11", "IAB14-1", "IAB23", "IAB24", "IAB25", "IAB26")
"""Categories that publishers block (bcat)."""

SIZES = (
    ((300, 250), 34), ((320, 50), 22), ((728, 90), 16), ((160, 600), 7), ((970, 250), 6), ((300, 600), 6),
    ((320, 100), 5), ((336, 280), 3), ((468, 60), 1),
)  # fmt: skip
"""Banner sizes (w, h) in DIPS with their share in percent."""

VENUES = (
    Venue("hangang-times.example", "", "Hangang Times", ("IAB12", "IAB12-3"), "KOR"),
    Venue("seoul-sports.example", "", "Seoul Sports", ("IAB17", "IAB17-2"), "KOR"),
    Venue("ohneul-webtoon.example", "com.example.webtoon", "Ohneul Webtoon", ("IAB1", "IAB9"), "KOR"),
    Venue("kpop-now.example", "", "K-pop Now", ("IAB1-6",), "KOR"),
    Venue("daily-metro.example", "", "Daily Metro", ("IAB12",), "USA"),
    Venue("ballpark.example", "com.example.ballpark", "Ballpark", ("IAB17", "IAB17-12"), "USA"),
    Venue("money-desk.example", "", "Money Desk", ("IAB13",), "USA"),
    Venue("tokyo-gourmet.example", "", "Tokyo Gourmet", ("IAB8", "IAB8-5"), "JPN"),
    Venue("densha-navi.example", "com.example.densha", "Densha Navi", ("IAB20",), "JPN"),
    Venue("rundschau.example", "", "Rundschau", ("IAB12",), "DEU"),
    Venue("autofreund.example", "", "Autofreund", ("IAB2",), "DEU"),
    Venue("thames-post.example", "", "Thames Post", ("IAB12", "IAB15"), "GBR"),
    Venue("pitchside.example", "", "Pitchside", ("IAB17", "IAB17-12"), "GBR"),
    Venue("gadget-bench.example", "", "Gadget Bench", ("IAB19", "IAB19-6"), ""),
    Venue("block-puzzle.example", "com.example.blockpuzzle", "Block Puzzle", ("IAB9", "IAB9-30"), ""),
    Venue("idle-kingdom.example", "com.example.idlekingdom", "Idle Kingdom", ("IAB9-30",), ""),
    Venue("weather-now.example", "com.example.weather", "Weather Now", ("IAB15",), ""),
    Venue("run-tracker.example", "com.example.runtracker", "Run Tracker", ("IAB7", "IAB17"), ""),
    Venue("photo-frame.example", "com.example.photoframe", "Photo Frame", ("IAB9",), ""),
    Venue("podwave.example", "com.example.podwave", "Podwave", ("IAB1-6", "IAB5"), ""),
    Venue("streambox.example", "com.example.streambox", "Streambox", ("IAB1", "IAB1-2"), ""),
    Venue("style-lane.example", "", "Style Lane", ("IAB18", "IAB22"), ""),
    Venue("recipe-garden.example", "", "Recipe Garden", ("IAB8", "IAB10"), ""),
    Venue("parents-corner.example", "", "Parents Corner", ("IAB6",), ""),
    Venue("paws.example", "", "Paws", ("IAB16",), ""),
    Venue("home-finder.example", "com.example.homefinder", "Home Finder", ("IAB21", "IAB10"), ""),
    Venue("wander.example", "", "Wander", ("IAB20", "IAB20-27"), ""),
    Venue("car-market.example", "com.example.carmarket", "Car Market", ("IAB2", "IAB3"), ""),
)

DOMAINS = tuple(venue.domain for venue in VENUES)

ADVERTISER_DOMAINS = tuple(
    f"{name}.example"
    for name in (
        "acme-shoes", "bluebird-air", "cloudmart", "daisy-cosmetics", "evergreen-bank", "fresh-kitchen", "glide-cars",
        "hanok-stay", "iris-optics", "jolly-games", "kite-telecom", "lotus-tea", "moon-mattress", "nova-phones",
        "orbit-insurance", "pine-furniture", "quick-delivery", "river-fitness", "sun-energy", "tiger-books",
    )
)  # fmt: skip
"""adomain of generated campaigns; publishers block some of them (badv)."""

_WEBKIT = "AppleWebKit/537.36 (KHTML, like Gecko)"
_SAFARI = "AppleWebKit/605.1.15 (KHTML, like Gecko)"

DEVICES = (
    Device(4, "Android", "15", "Samsung", "SM-S931N", 1080, 2340,
           f"Mozilla/5.0 (Linux; Android 15; SM-S931N) {_WEBKIT} Chrome/141.0.0.0 Mobile Safari/537.36", 30),
    Device(4, "iOS", "18.6", "Apple", "iPhone16,1", 1179, 2556,
           f"Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) {_SAFARI} Version/18.6 Mobile/15E148 Safari/604.1",
           25),
    Device(2, "Windows", "10.0", "", "", 1920, 1080,
           f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {_WEBKIT} Chrome/141.0.0.0 Safari/537.36", 24),
    Device(2, "macOS", "15.6", "Apple", "Macintosh", 1728, 1117,
           f"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) {_SAFARI} Version/18.6 Safari/605.1.15", 8),
    Device(5, "Android", "14", "Samsung", "SM-X710", 1600, 2560,
           f"Mozilla/5.0 (Linux; Android 14; SM-X710) {_WEBKIT} Chrome/141.0.0.0 Safari/537.36", 5),
    Device(5, "iOS", "18.5", "Apple", "iPad14,3", 1668, 2388,
           f"Mozilla/5.0 (iPad; CPU OS 18_5 like Mac OS X) {_SAFARI} Version/18.5 Mobile/15E148 Safari/604.1", 4),
    Device(2, "Linux", "", "", "", 1920, 1200,
           "Mozilla/5.0 (X11; Linux x86_64; rv:143.0) Gecko/20100101 Firefox/143.0", 2),
    Device(3, "Tizen", "8.0", "Samsung", "QN65S90D", 1920, 1080,
           f"Mozilla/5.0 (SMART-TV; LINUX; Tizen 8.0) {_WEBKIT} 94.0.4606.31/8.0 TV Safari/537.36", 2),
)  # fmt: skip

DEAL_IDS = ("deal-sports-premium", "deal-news-homepage", "deal-video-preroll", "deal-seoul-reach")
