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
    "access level": "small",
    "account number": "digits",
    "address": "place",
    "alias": "word",
    "anthem": "phrase",
    "architect": "person",
    "area": "measure",
    "barcode": "digits",
    "batch": "alnum",
    "builder": "person",
    "call number": "alnum",
    "capacity": "digits",
    "case number": "alnum",
    "chairman": "person",
    "champion": "person",
    "checksum": "alnum",
    "closing time": "time",
    "coach": "person",
    "coordinate": "digits",
    "country code": "digits",
    "curator": "person",
    "delivery date": "date",
    "designer": "person",
    "diameter": "measure",
    "discount": "small",
    "doctor": "person",
    "door code": "digits",
    "editor": "person",
    "emblem": "thing",
    "expiry date": "date",
    "filename": "alnum",
    "flavour": "food",
    "flight number": "alnum",
    "grade": "small",
    "guard": "person",
    "headquarters": "city",
    "host": "person",
    "identifier": "alnum",
    "inspection day": "day",
    "key": "alnum",
    "landlord": "person",
    "leader": "person",
    "level": "small",
    "licence number": "alnum",
    "lot number": "digits",
    "mascot": "thing",
    "mayor": "person",
    "membership number": "digits",
    "model": "alnum",
    "neighbour": "person",
    "order number": "digits",
    "paint": "colour",
    "part number": "alnum",
    "passcode": "digits",
    "passphrase": "phrase",
    "patron": "person",
    "payment": "price",
    "pilot": "person",
    "platform": "small",
    "postcode": "alnum",
    "power": "measure",
    "quantity": "small",
    "queue number": "digits",
    "rank": "small",
    "rate": "price",
    "registration": "alnum",
    "rent": "price",
    "route": "alnum",
    "sector": "alnum",
    "security code": "digits",
    "shade": "colour",
    "signal": "word",
    "size": "measure",
    "slogan": "phrase",
    "speed": "measure",
    "sponsor": "person",
    "status": "word",
    "storage place": "place",
    "street": "word",
    "surname": "word",
    "table number": "small",
    "telephone number": "phone",
    "toll": "price",
    "topic": "phrase",
    "total": "digits",
    "trainer": "person",
    "unlock code": "digits",
    "vehicle": "thing",
    "voucher": "alnum",
    "wage": "price",
    "warden": "person",
    "watchword": "word",
    "wavelength": "measure",
    "width": "measure",
    "winner": "person",
    "zone": "alnum",
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
MORE_ADJECTIVES = """abrupt absent abundant acidic active adept agile airy alert alien aloof ample angry antique
anxious apt arctic ardent arid artful austere autumn awake awkward balanced bare barren basic bent bitter bizarre
bland blank bleak blind blunt boastful bony bouncy breezy brisk brittle broad broken bumpy burly busy candid casual
cautious celestial central charming cheap cheerful chilly chosen civic classic clean clear cloudy clumsy coastal
colossal common compact complete complex concrete cooked correct cosmic costly cosy crafty crazy creamy crisp crooked
crowded crude cruel crushed cubic cunning curly curved daily damp daring dazzling dear decent definite delicate dense
dental dim direct distinct divine dizzy domestic double doubtful dreamy dry dull durable dutiful earnest earthy easy
elastic electric elfin eligible elite endless energetic enormous equal eternal even evergreen exact exotic expert
external fabulous fair faithful false famous fancy fast fatal feathery fertile festive few fine firm fit flaky flat
flawless fluffy fluid foamy fond foreign formal forward fragile frank free fresh friendly frosty frugal full funny
furry fuzzy gaudy general generous genuine giant giddy gifted glad glassy gleaming global gloomy glossy gloved good
graceful gracious grainy grave greasy grim grubby gruff guilty hairy handy hard harmless harsh hasty hazy healthy
hearty helpful heroic hexagonal hoarse homely honest hopeful horizontal hospitable hot huge hungry hushed idle immense
incisive indigo infinite innocent intense internal invisible itchy jagged jealous joint joyful juicy jumbo junior just
kind knotty known lame lasting lavish lawful lazy leafy learned left legal level light likely limp linear liquid
literal local lofty logical long loose lopsided lost lovable lovely low loyal lunar luxurious magenta magic main major
male manual marbled marine mature meaty meek mental mild milky mindful minor minty misty mobile moist moral muddy
murky musical mute muted mystic naive nasty native natural naughty naval near nearby needy nervous new next nice
nocturnal noisy normal nosy nutty oaken oblong obvious odourless oily old open optimal oral organic ornate oval overt
painted parallel partial past peaceful peppery perfect petty piercing plump pointed polar polished poor popular
portable posh powerful precious precise pretty prickly primal prime private prompt proper public puffy pungent pure
puzzled quaint queasy quirky radiant ragged rainy random rash raw ready real recent regal regular remote rich rigid
ripe robust rotten round rowdy rubber rude rural rustic sacred sad safe salty sane sarcastic satin savage savoury
scaly scarce scented scornful sedate seemly senior serene severe shabby shady shaky shallow shared sheer short shy
sick silky silly sincere single skilful sleek sleepy slender slick slight slim slippery sly smoky smug snowy sober
social soft solar solemn solitary sonic sour sparkling sparse spicy spiral splendid spotless spotted square stale
standard stark starry static stiff stormy straight striped stubborn subtle sudden sugary sulky super supple supreme
sure sweet swollen tame tangy tart tasty tedious tender tense terse thick thirsty thorny thrifty ticklish tight timid
tired tough toxic tranquil trim tropical true trusty twin ultra unique united unkempt upbeat urban urgent useful usual
vacant vague vain valid vapid velvet verdant vertical vibrant vigilant vital vivid vocal wary waxy weak wealthy
weighty wet whimsical whole wicked wide willing winged winning wiry witty wobbly woolly worldly worn worthy woven wry
zealous zesty""".split()
EVERYDAY_NOUNS = """abacus acorn actor album alley almond alphabet altar ambulance ankle ant antelope antler apron
arch archer armchair armour artist asteroid atlas aunt avenue axe baby backpack bacon bagel balloon bamboo banana
banjo banker banner barber bark baron barracks basin bat bath battery bay bead beaker beam bean bear beard beaver bed
bee beetle belt biscuit bishop bison blade blossom blouse blower boat bolt bomb bone bonfire bonnet book boot border
bow bowl box bracelet brain branch brass bread brick bride broom brother brush bubble bud buffalo bug bugle builder
bulb bull bun bunker bus bush butcher butler butter butterfly cable cactus cafe cage cake calendar calf canal canary
candy cannon canoe canvas cap cape carpet carrot cart carton cartoon cascade cashew cave ceiling celery cement
centipede cereal chain chair chalk champion charcoal cheese chef cherry chess chestnut chick chicken chimney chin
chipmunk choir cinema circus citadel clam clarinet claw clay clerk cliff clip cloak clover clown club coach coal coast
coat cobbler cobra cobweb cockpit coconut code coffee collar comb comedy cook cookie coral cord cork corn cotton couch
cough cousin cow coyote crab cradle crater crayon cream creek crest cricket crocodile crop crossbow crowd cruiser
crust crystal cub cube cucumber cup cupboard curb curtain cushion cutlass cyclone cymbal dagger dairy daisy dam dancer
dart date daughter dawn deer dentist desert dessert diamond diary dice dinghy dinner dinosaur dish ditch diver dock
doctor dog doll dolphin dome donkey doorbell dough dove dragonfly drain drawer dress drill driver drone drummer
duchess duck dune dust dwarf ear earring earth easel echo eel egg elbow elephant elk elm ember emerald emperor
envelope eraser ermine essay estuary eyebrow fairy fan fang farm farmer father faucet fawn fern ferret fiddle fig
finger fireplace fist flag flagpole flame flamingo flask flea fleece flour flower fly foal fog foot footprint fork
fort fossil fowl freighter fridge frog frost fruit furnace galaxy galleon gallery game gander gargoyle garlic gazelle
gear gecko geese gem ghost gibbon ginger giraffe girl glass globe glove glue gnat gnome gold goldfish golf gong goose
gorilla gown grain grandson granite grape grass grasshopper gravel grill grocer guard guest gull gum gym hail hair ham
hamster hare harpoon hat hatchet hay hazel headland hedge hedgehog heel heir helicopter hem hen herald herb hermit
herring hinge hippo hive hobby hoe honey hood hoof hook horn hornet hospital hotel hound hourglass hunter hurricane
hut hyena ice icicle idol igloo iguana infant ink insect inventor iris iron ivy jackal jaguar jam jasmine javelin jaw
jelly jellyfish jester jewel jigsaw judge juggler juice jungle juniper jury kangaroo kayak kennel kernel kestrel
kidney king kingfisher kiosk kitten knee knife knight knob knot koala lace lad ladle lady ladybird lagoon lamb lance
lane lap larch lark laser lass latch laundry lava lawn lawyer leaf leather leek leg lemon lemur lens leopard lettuce
lever lichen lightning lily lime limpet linen lip lizard llama loaf lobster lodge loft lollipop loom lord lorry lotus
louse luggage lunch lute mackerel magician magpie maid mailbox mallet mammoth mango manor mantle marble mare marmot
mask mast mat match mattress mayor meal medal melody melon merchant mermaid meteor miller mineral mint mist mitten
moat mole monk monkey monsoon monument moose morning mosaic mosquito moss moth mother motor mound mouse moustache
mouth mud muffin mug mule muscle mushroom musket mussel mustard nail napkin neck necklace nectar nephew nest net
nettle newt night noise noodle nose nougat novel nugget nun nurse nut nutmeg oar oasis oat oboe octopus olive omelette
onion opal opera orange orbit orchid organ ornament osprey ostrich oven overcoat ox oyster paddle pail paint painter
pan pancake panda pansy parachute park parrot parsley path patio paw pea peach peacock peanut pear pearl peasant
pelican pen penguin peony pepper perch petal petrol pheasant phone physician pie pier piglet pigpen pilgrim pilot pin
pine pinecone pipe pirate pistol pit pizza plank plant plaster plough plum plumber pocket poem poet polecat polo
poodle poplar poppy porcupine porridge port potato pottery powder prawn priest prince princess prism prisoner prong
prune pudding puddle puffin pug pulley pump pumpkin pup puppet purse puzzle pyramid python quail queen quill quilt
quiver raccoon racket radar radio radish raft rag rail rain raisin rake ram ranch raspberry rat rattle razor rein
reindeer reservoir rhino rhubarb rice rider rifle rink road roast robin rock rod roof rook rooster root rope rose
rosemary rubble rudder rug ruin ruler rust sack saffron saga sage sailor salad salt sand sandal sapphire sardine sash
satchel satellite sauce sausage saw sawmill scallop scarecrow school scissors scorpion screen screw scroll sea seagull
season seat seaweed seed sergeant serpent servant sextant shark shawl shearling sheep shelf shepherd shield shirt shoe
shore shoulder shower shrimp shrub sickle sieve silk singer sink sister skate skeleton ski skirt skull sky skylark
sled sleet sleeve slipper slope sloth slug smoke snail snake snow soap sock sofa soil soldier son sonata song soup
spade spaniel spark sparrow spear speck sphinx spider spike spinach spine sponge spruce spur squid squirrel stag stair
stallion star starfish steam steeple stem steppe stick sting stomach stool stork storm strap straw strawberry street
string stump sugar suit summer sun sunflower surgeon swallow swamp swan sweater sword syrup tadpole tail tailor tap
tapestry tar tavern taxi tea teacher tear tenor termite thatch thicket thief thimble thistle thorn thread throat
throne thumb thunder thyme tiara tide tile timber tin toad toast tobacco toe toffee tomato tongue tooth torch tornado
tortoise toucan towel toy trawler tray treasure tree trench triangle tripod trousers trout trumpet trunk tulip tuna
turkey turnip tusk tutor twig typhoon tyre uncle unicorn urchin urn vase vein vest vicar village vine vinegar viper
visor volcano vole vulture wafer waiter walrus wand wardrobe warrior wasp water waterfall wave weasel weaver web wedge
weed wharf wheat whip whisker widow wig wildcat winch wine wizard wombat wood woodpecker wool worm wren wrench wrist
yak yarn yeast yolk zebra zinc zipper""".split()
