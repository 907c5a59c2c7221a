"""Word lists from which facts, questions and filler are made. Plain English, nothing else."""

FIRST_NAMES = """Ada Amara Anders Anika Aron Beatriz Bela Boris Carmen Cedric Chidi Clara Dalia Darius Dmitri
Edith Eli Emeka Esther Farah Felix Fiona Gabriel Greta Hana Hector Helga Ibrahim Ines Ingrid Ivan Jamal Jana Jonas
Joyce Kamal Karin Kenji Lars Leila Linnea Luca Magda Malik Marta Mateo Mei Milan Nadia Naomi Nils Nora Olga Omar
Oscar Pablo Petra Priya Quentin Rafael Ravi Renata Rosa Ruben Sana Sasha Selma Sigrid Sofia Stefan Tariq Tessa Tomas
Uma Vera Viktor Wanda Wei Ximena Yara Yusuf Zara Zoltan John Mary Daniel Sandra Peter Alice Martin Helen""".split()
LAST_NAMES = """Abara Adler Bakker Baptiste Becker Bianchi Borg Castillo Chen Cohen Dahl Dupont Eriksen Farkas
Fischer Fontaine Garcia Gupta Haddad Hansen Holm Ito Ivanova Jansen Kaplan Keller Khan Kim Kovacs Kumar Larsen Lindqvist
Lopez Marino Meyer Moreau Mwangi Nakamura Novak Okafor Olsen Park Patel Petrov Quinn Rao Reyes Rossi Sato Schmidt Silva
Singh Sorensen Stone Suzuki Svensson Tanaka Torres Usman Vargas Vogel Walker Weiss Winter Yilmaz Zhang Ziegler""".split()
CITIES = """Lisbon Oslo Cairo Lima Quito Riga Dublin Prague Vienna Kyoto Manila Nairobi Tunis Accra Havana Boston
Geneva Hamburg Naples Seville Porto Tallinn Zagreb Bergen Malmo Tampere Krakow Leeds Bristol Austin Denver Seattle Toronto
Montreal Santiago Bogota Jakarta Hanoi Seoul Osaka Mumbai Delhi Lagos Dakar Rabat Sydney Perth Auckland""".split()
ADJECTIVES = """amber ancient blue bold brave brief bright bronze calm careful clever cold copper crimson curious
dark deep distant dusty eager early eastern elegant empty faint fierce final frozen gentle golden grand green grey
happy heavy hidden hollow humble icy inner iron ivory jolly keen large late lean little lively lonely loud lucky
massive mellow merry mighty modest narrow neat nimble noble northern odd orange outer pale patient plain polite
proud purple quick quiet rapid rare red restless rough royal rusty sandy scarlet secret sharp shiny silent silver
simple slow small smooth solid southern spare steady stern stone strange strong sturdy sunny swift tall thin tidy tiny
torpid upper vast violet warm weary western white wild windy wise wooden yellow young""".split()
NOUNS = """anchor apple arrow badger barn barrel basket beacon bell bench bottle bridge bucket cabin camel candle
canyon castle cedar chapel chest clock cloud comet compass cottage crane crow crown desk dragon drum eagle engine falcon
feather fence ferry field finch flute forest fountain fox garden gate glacier goat hammer harbor harp hawk heron hill
horse house island jacket jar kettle key kid kite ladder lake lamp lantern ledger library lion locker lynx magnet map maple
market marsh meadow mill mirror moon mountain museum needle oak ocean orchard otter owl palace panther parcel
pebble pencil piano pigeon pillar planet pond portrait rabbit raven reef ribbon ridge river robot rocket saddle
salmon shed shell ship shovel signal spoon station stove stream submarine table teapot temple tent tiger tower
tractor trail train tunnel turtle umbrella valley van violin wagon walnut wall warehouse well whale wheel willow window
wolf workshop yacht""".split()
COLOURS = """red blue green yellow orange purple white black brown grey pink silver gold crimson teal violet amber
ivory scarlet turquoise""".split()
PLACES = """kitchen garden attic cellar library garage hallway bathroom bedroom office pantry stable barn
workshop balcony courtyard chapel greenhouse laboratory basement theatre museum station harbour warehouse market
archive ballroom cloakroom corridor nursery studio tower vault""".split()
THINGS = """key letter map lantern umbrella violin passport notebook ring watch coin scarf hammer ladder teapot
camera compass ledger parcel helmet blanket basket bottle whistle telescope guitar bicycle painting statue ticket
football apple milk""".split()
MONTHS = "January February March April May June July August September October November December".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
VERBS = """crossed followed watched painted carried passed found lost moved opened closed visited remembered
repaired admired described measured counted cleaned guarded avoided noticed reached left touched covered""".split()
ADVERBS = """quickly slowly quietly early late often again twice carefully alone together yesterday
finally almost never always rarely gladly""".split()
FOODS = """bread soup honey cheese rice plums noodles porridge lentils pears cabbage walnuts cake stew
olives apricots salad pancakes""".split()
GROUPS = """neighbours travellers farmers children teachers sailors visitors merchants students guards
musicians gardeners clerks engineers""".split()

# What can be asked about: name of the attribute -> kinds of value that it takes (see corpus.VALUES).
ATTRIBUTES: dict[str, str] = {
    "code": "digits",
    "access code": "digits",
    "number": "digits",
    "serial number": "alnum",
    "pin": "digits",
    "badge number": "digits",
    "room number": "digits",
    "invoice number": "digits",
    "magic number": "digits",
    "locker number": "digits",
    "reference": "alnum",
    "password": "alnum",
    "license plate": "alnum",
    "tracking id": "alnum",
    "order id": "alnum",
    "id": "alnum",
    "token": "alnum",
    "price": "price",
    "cost": "price",
    "budget": "price",
    "fee": "price",
    "salary": "price",
    "weight": "measure",
    "height": "measure",
    "length": "measure",
    "depth": "measure",
    "distance": "measure",
    "temperature": "measure",
    "age": "small",
    "score": "small",
    "population": "digits",
    "seat": "alnum",
    "phone number": "phone",
    "extension": "digits",
    "colour": "colour",
    "color": "colour",
    "owner": "person",
    "author": "person",
    "manager": "person",
    "captain": "person",
    "teacher": "person",
    "inventor": "person",
    "director": "person",
    "guide": "person",
    "name": "person",
    "capital": "word",
    "nickname": "word",
    "codename": "word",
    "secret word": "word",
    "keyword": "word",
    "material": "word",
    "symbol": "word",
    "label": "phrase",
    "motto": "phrase",
    "title": "phrase",
    "location": "place",
    "hiding place": "place",
    "home": "city",
    "birthplace": "city",
    "destination": "city",
    "origin": "city",
    "start time": "time",
    "opening time": "time",
    "departure": "time",
    "deadline": "date",
    "birthday": "date",
    "due date": "date",
    "release date": "date",
    "meeting day": "day",
    "market day": "day",
    "version": "version",
    "port": "digits",
    "value": "digits",
    "entry": "alnum",
    "record": "alnum",
    "year": "year",
    "count": "small",
    "limit": "small",
    "shelf": "alnum",
    "ticket": "alnum",
    "favourite food": "food",
    "main dish": "food",
    "prize": "thing",
    "gift": "thing",
}
MORE_VERBS = """accept allow answer appear assign attach award bear belong call carry check claim collect command compose
confirm connect contain correct count cover declare decorate deliver depend deposit design direct display dispatch
divide earn embark end enter expect favour fetch fill fit form furnish grant greet guide hand harbour head honour house
install invite join keep land launch lead lend list lock mark match mention mount name need note offer open order own
paint pay place plant play point possess praise prefer present press print process produce promise protect provide
publish raise reach receive record refer register release remain repeat report request require rest return reveal roll
sail search select serve share shelter show sign sound stamp start stay store suit support surround teach test tie trade
transfer turn unlock use visit vote want warrant watch wear weigh welcome work yield""".split()
MORE_NOUNS = """account agenda agent alarm archive badge band bill board bulletin button card catalogue chamber
channel chapter chart circle column committee contract corner council counter crew deck decree deed dial digit
document door draft entry estate exhibit fee file fleet folder form frame fund guild hall handle hanger index inscription
item journal lease letter licence list log mark measure memo menu message minute note notice order page paper patent
permit plan plaque plate platform post program queue rank record register report reserve result roll rule safe sample
schedule seal section series setting share sheet sign slot source staff stamp statement stock summary switch tag
tally term ticket title treaty trust voucher warrant wing zone""".split()
