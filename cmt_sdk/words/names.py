"""Names of months and of powers of ten in many languages, from the Unicode CLDR (by Babel 2.19.0).

Made by tests/everyday/calendar_names.py; not to be changed by hand: what is indexed with these
names is found with the same.
"""

from __future__ import annotations

# Month numbers, and the words for them.
MONTHS: dict[tuple[int, ...], str] = {
    (1,): (
        "ean eanáir ene enero gen gener gennaio ian ianuarie ion ionawr jaan jaanuar jan "
        "janar janeiro januar januari januarie january januwari január januára janv janvier "
        "janvāris janúar led leden ledna oca ocak saus sausio sausis sij siječanj siječnja "
        "sty styczeń stycznia tammi tammikuu tammikuuta urt urtarrila xan xaneiro yan yanvar "
        "ιαν ιανουάριοσ ιανουαρίου сту студзень студзеня січ січень січня янв январь января "
        "яну януари јан јануар јануари қаң қаңтар հնվ հունվար հունվարի ינואר ינו׳ جنوری يناير "
        "ژانویه जनवरी जन॰ जाने जानेवारी জানু জানুয়ারি ਜਨਵਰੀ જાન્યુ જાન્યુઆરી ஜனவரி జనవరి "
        "ಜನವರಿ ജനു ജനുവരി දුරුතු มกราคม ມັງກອນ ဇန် ဇန်နဝါရီ იან იანვარი មករា "
    ),
    (2,): (
        "chw chwef chwefror feabh feabhra feb febbraio febr febreiro febrer febrero februar "
        "februari februarie february februwari február februára februāris febrúar fev "
        "fevereiro fevral févr février helmi helmikuu helmikuuta lut lutego luty ots otsaila "
        "peb pebrero shk shkurt vas vasario vasaris veebr veebruar velj veljača veljače úno "
        "únor února şub şubat φεβ φεβρουάριοσ φεβρουαρίου ақп ақпан лют лютага лютий лютого "
        "люты феб фебруар фев февр февраль февраля февруари փետրվար փետրվարի փտվ פברואר פבר׳ "
        "فبراير فروری فوریه फ़रवरी फ़र॰ फेब्रु फेब्रुअरी फेब्रुवारी ফেব ফেব্রুয়ারি ਫ਼ਰ "
        "ਫ਼ਰਵਰੀ ફેબ્રુ ફેબ્રુઆરી பிப் பிப்ரவரி ఫిబ్ర ఫిబ్రవరి ಫೆಬ್ರ ಫೆಬ್ರವರಿ ഫെബ്രു ഫെബ്രുവരി "
        "නවම් กุมภาพันธ์ ກຸມພາ ဖေဖော်ဝါရီ თებ თებერვალი កុម្ភៈ "
    ),
    (3,): (
        "bře březen března kov kovas kovo maalis maaliskuu maaliskuuta maart mac machi mar "
        "marca march marec maret mars marso mart martie marts martxoa marzec marzo març março "
        "mas mashi maw mawrth mrt márc március márta mär märts märz ožu ožujak ožujka μάρ "
        "μάρτιοσ μαρ μαρτίου бер березень березня мар март марта нау наурыз сак сакавік "
        "сакавіка մարտ մարտի մրտ מרץ مارس مارچ मार्च মার্চ ਮਾਰਚ માર્ચ மார் மார்ச் మార్చి "
        "ಮಾರ್ಚ್ മാർ മാർച്ച് මැදින් มีค มีนาคม ມີນາ မတ် მარ მარტი មីនា "
    ),
    (4,): (
        "abr abril aib aibreán api apirila apr aprel april aprile aprili aprilie aprill apríl "
        "apríla aprīlis avr avril bal balandis balandžio dub duben dubna d’abr d’abril ebr "
        "ebrill eph ephreli huhti huhtikuu huhtikuuta kwi kwiecień kwietnia nis nisan pri "
        "prill tra travanj travnja ápr április απρ απρίλιοσ απριλίου апр апрель апреля април "
        "квіт квітень квітня кра красавік красавіка сәу сәуір ապր ապրիլ ապրիլի אפריל אפר׳ "
        "آوریل أبريل اپریل अप्रिल अप्रैल एप्रि एप्रिल এপ্রি এপ্রিল ਅਪ੍ਰੈ ਅਪ੍ਰੈਲ એપ્રિલ ஏப் "
        "ஏப்ரல் ఏప్రి ఏప్రిల్ ಏಪ್ರಿ ಏಪ್ರಿಲ್ ഏപ്രി ഏപ്രിൽ බක් เมย เมษายน ເມສາ ဧပြီ აპრ აპრილი "
        "មេសា "
    ),
    (5,): (
        "beal bealtaine geg gegužė gegužės kvě květen května mag maggio mai maiatza maig "
        "maijs maio maj maja may mayo mayıs maí mei mey meyi máj mája május svi svibanj "
        "svibnja touko toukokuu toukokuuta μάι μάιοσ μαΐ μαΐου май мам мамыр мая мај трав "
        "травень травня մայիս մայիսի մյս מאי مئی مايو മേയ് වෙසක් พฤษภาคม ພຶດສະພາ მაი მაისი "
        "ឧសភា "
    ),
    (6,): (
        "birž birželio birželis cze czerwca czerwiec eka ekaina giu giugno haz haziran hun "
        "hunyo iun iunie iyn iyun juin jun june junho juni junie junij junio juny juuni jún "
        "júna június júní jūn jūnijs kesä kesäkuu kesäkuuta lipanj lipnja meh mehefin meith "
        "meitheamh qer qershor xuño červen června čvn ιουν ιουνίου ιούν ιούνιοσ июн июнь июня "
        "мау маусым черв червень червня чэр чэрвень чэрвеня юни јун јуни հնս հունիս հունիսի "
        "יוני جون يونيو ژوئن जुन जून জুন ਜੂਨ જૂન ஜூன் జూన్ ಜೂನ್ ജൂൺ පොසොන් มิถุนายน มิย ມິຖ "
        "ມິຖຸນາ ဇွန် ივნ ივნისი មិថុនា "
    ),
    (6, 7): "lip ",
    (7,): (
        "gor gorff gorffennaf heinä heinäkuu heinäkuuta hul hulyo iul iulie iyl iyul iúil "
        "juil juillet jul julai julayi julho juli julie julij julio juliol july juuli júl "
        "júla július júlí jūl jūlijs korr korrik liep liepa liepos lipca lipiec lug luglio "
        "srpanj srpnja tem temmuz uzt uztaila xul xullo července červenec čvc ιουλ ιουλίου "
        "ιούλ ιούλιοσ июл июль июля лип липень липня ліп ліпень ліпеня шіл шілде юли јул јули "
        "հլս հուլիս հուլիսի יולי جولائی يوليو ژوئیه जुलाई जुलै जुल॰ জুল জুলাই ਜੁਲਾ ਜੁਲਾਈ "
        "જુલાઈ ஜூலை జులై ಜುಲೈ ജൂലൈ ඇසළ กรกฎาคม ກໍລະກົດ ဇူလိုင် ივლ ივლისი កក្កដា "
    ),
    (7, 8): "srp ",
    (8,): (
        "abu abuztua aga agasti ago agost agosti agosto agu agustus août aug august augusta "
        "augusti augusts augustus augusztus avg avgust avq avqust awst ağu ağustos d’ag "
        "d’agost elo elokuu elokuuta gush gusht kol kolovoz kolovoza lún lúnasa ogo ogos rugp "
        "rugpjūtis rugpjūčio sie sierpień sierpnia srpen srpna ágú ágúst αυγ αυγούστου αύγ "
        "αύγουστοσ авг август августа жні жнівень жніўня серп серпень серпня там тамыз "
        "օգոստոս օգոստոսի օգս אוגוסט אוג׳ أغسطس اوت اگست अगस्ट अगस्त अग॰ ऑगस्ट আগস্ট ਅਗਸਤ "
        "ઑગસ્ટ ஆகஸ்ட் ఆగస్టు ಆಗಸ್ಟ್ ഓഗസ്റ്റ് නිකිණි สิงหาคม ສິງຫາ ဩဂုတ် აგვ აგვისტო សីហា "
    ),
    (9,): (
        "eyl eylül ira iraila medi mfómh rugs rugsėjis rugsėjo ruj rujan rujna sen sentabr "
        "sentyabr sep sept septemba septembar september septembra septembre septembrie "
        "septembris septhemba septiembre set setembre setembro settembre setyembre sht "
        "shtator syys syyskuu syyskuuta szept szeptember wrz wrzesień września zář září σεπ "
        "σεπτέμβριοσ σεπτεμβρίου вер верасень верасня вересень вересня сен сент сентябрь "
        "сентября сеп септембар септември қыр қыркүйек սեպ սեպտեմբեր սեպտեմբերի ספטמבר ספט׳ "
        "سبتمبر ستمبر سپتامبر सप्टें सप्टेंबर सितंबर सित॰ सेप्टेम्बर সেপ সেপ্ট সেপ্টেম্বর ਸਤੰ "
        "ਸਤੰਬਰ સપ્ટે સપ્ટેમ્બર செப் செப்டம்பர் సెప్టెం సెప్టెంబర్ ಸೆಪ್ಟೆಂ ಸೆಪ್ಟೆಂಬರ್ സെപ്റ്റം "
        "സെപ്റ്റംബർ බිනර กันยายน ກັນຍາ စက် စက်တင်ဘာ სექ სექტემბერი កញ្ញា "
    ),
    (10,): (
        "dfómh d’oct d’octubre eki ekim hyd hydref loka lokakuu lokakuuta oct october octobre "
        "octombrie octubre okt oktabr okthoba oktoba oktobar oktober oktobris oktoober "
        "oktubre oktyabr október októbra ott ottobre out outubro paź październik października "
        "spal spalio spalis tet tetor urr urria říj říjen října οκτ οκτωβρίου οκτώβριοσ жовт "
        "жовтень жовтня кас кастрычнік кастрычніка окт октобар октомври октябрь октября қаз "
        "қазан հոկ հոկտեմբեր հոկտեմբերի אוקטובר אוק׳ أكتوبر اکتبر اکتوبر अक्टूबर अक्टू॰ "
        "अक्टोबर ऑक्टो ऑक्टोबर অক্টো অক্টোবর ਅਕਤੂ ਅਕਤੂਬਰ ઑક્ટો ઑક્ટોબર அக் அக்டோபர் అక్టో "
        "అక్టోబర్ ಅಕ್ಟೋ ಅಕ್ಟೋಬರ್ ഒക്ടോ ഒക്ടോബർ වප් ตุลาคม ຕຸລາ အောက် အောက်တိုဘာ ოქტ ოქტომბერი "
        "តុលា "
    ),
    (10, 11): "lis listopad listopada ",
    (11,): (
        "aza azaroa kas kasım lapkr lapkritis lapkričio listopadu marras marraskuu "
        "marraskuuta nob nobyembre noiembrie nov novemba novembar november novembra novembre "
        "novembris novembro noviembre noy noyabr nën nëntor nóv nóvember samh samhain stu "
        "studeni studenoga tach tachwedd νοέ νοέμβριοσ νοε νοεμβρίου лист листопад листопада "
        "ліс лістапад лістапада нов новембар ное ноември ноя нояб ноябрь ноября қар қараша "
        "նոյ նոյեմբեր նոյեմբերի נובמבר נוב׳ نوامبر نوفمبر نومبر नवंबर नव॰ नोभेम्बर नोव्हें "
        "नोव्हेंबर নভে নভেম্বর ਨਵੰ ਨਵੰਬਰ નવે નવેમ્બર நவம்பர் నవం నవంబర్ ನವೆಂ ನವೆಂಬರ್ നവം "
        "നവംബർ ඉල් พฤศจิกายน ພະຈິກ နို နိုဝင်ဘာ ნოე ნოემბერი វិច្ឆិកា 十一月 "
    ),
    (12,): (
        "abe abendua ara aralık dec decembar december decembra decembrie decembris decembro "
        "dek dekabr des desemba desember desembre dets detsember dez dezember dezembro dhj "
        "dhjetor dic dicembre diciembre dis disemba disember disyembre déc décembre gru "
        "grudnia grudzień gruod gruodis gruodžio joulu joulukuu joulukuuta noll nollaig pro "
        "prosinac prosinca prosince prosinec rhag rhagfyr δεκ δεκέμβριοσ δεκεμβρίου груд "
        "грудень грудня дек декабрь декабря декември дец децембар жел желтоқсан сне снежань "
        "снежня դեկ դեկտեմբեր դեկտեմբերի דצמבר דצמ׳ دسامبر دسمبر ديسمبر डिसें डिसेंबर "
        "डिसेम्बर दिसंबर दिस॰ ডিসে ডিসেম্বর ਦਸੰ ਦਸੰਬਰ ડિસે ડિસેમ્બર டிச டிசம்பர் డిసెం "
        "డిసెంబర్ ಡಿಸೆಂ ಡಿಸೆಂಬರ್ ഡിസം ഡിസംബർ උඳුවප් ธันวาคม ທັນວາ ဒီဇင်ဘာ დეკ დეკემბერი ធ្នូ "
        "十二月 "
    ),
}

# Powers of ten, and the words for them.
SCALES: dict[tuple[int, ...], str] = {
    (3,): (
        "demii duisend duizend elfu ezer hilj hiljada hiljade inkulungwane libo mhíle mijë "
        "mila miler milers mille millier ming míle nalibo nghìn ribu tausend thousand tis "
        "tisoč tisuća tisuće tisíc tisíca tisíce tuhat tuhatta tusen tusind tysiąc tysiąca "
        "tysiące tysięcy tūkst tūkstantis tūkstančiai tūkstančio tūkstančių tūkstotis "
        "tūkstoši tūkstošu þ þúsund χιλ χιλιάδα χιλιάδεσ илј илјада илјади миң мың мян мянга "
        "тис тисяч тисяча тисячі тыс тысяч тысяча тысячи тысячы хил хиляди хиљ хиљада хиљаде "
        "հազար հզր אלף آلاف ألف هزار ہزار ह ද දහස ათ ათასი 천 "
    ),
    (3, 6): "mil м ",
    (4,): "万 萬 만 ",
    (5,): "لاکھ แสน ແສນ ",
    (6,): (
        "demilioane isigidi juta mhilliún milhão milhões milijon milijona milijonai milijonas "
        "milijoni milijono milijonov milijonų milijun milijuna milioane milioi milion miliona "
        "milione milioni milions milionu miliony milionów milionů miliwn milió milión milióna "
        "miliónov milióny milj miljoen miljon miljoner miljoni miljonit miljons miljonu "
        "miljoona miljoonaa mill million millionar millionen millioner millions millió "
        "milliún milljón milljónir millones millón millóns milyon mio mln namilyon triệu εκ "
        "εκατομμύρια εκατομμύριο мил милион милиона милиони миллион миллиона миллионов млн "
        "мільйон мільйона мільйони мільйонів мільён мільёна мільёнаў мільёны сая միլիոն մլն "
        "מיליון ملايين مليون میلیون მილიონი მლნ "
    ),
    (7,): "کروڑ ",
    (8,): "亿 億 억 ",
    (9,): (
        "bhilliún bilhão bilhões bilioni biliwn billiún bilyon demiliarde isigidisezigidi "
        "mbilliún milerdemilions milersdemilions miliar miliard miliarda miliarde miliardi "
        "miliardo miliardy miliardów milijard milijarda milijardai milijardas milijarde "
        "milijardi milijardo milijardų miliárd miljard miljarder miljardi miljardia miljardit "
        "miljards miljardu milliard milliardar milliarde milliarden milliarder milliards "
        "milliárd milljarðar milljarður milm milmilhões milmillones milyar milyard mld mljrd "
        "mlrd mrd nabilyon tỷ δισ δισεκατομμύρια δισεκατομμύριο ми милиард милиарда милијарда "
        "милијарде милијарди миллиард миллиарда миллиардов милј млд млрд мільярд мільярда "
        "мільярдаў мільярди мільярды мільярдів мј тбум тэрбум միլիարդ մլրդ מיליארד ارب مليار "
        "میلیارد अरब ਅਰਬ અબજ მილიარდი მლრ მლრდ "
    ),
    (9, 12): "bilion billion ",
    (11,): "کھرب खरब ਖਰਬ ",
    (12,): (
        "bil bilijon bilijona bilijoni bilijonov bilijun bilijuna bilioi biliona bilions "
        "bilionu biliony bilionów bilionů bilião bilió bilión bilióna biliónov bilióny "
        "biliões bilj biljoen biljon biljoner biljoona biljoonaa bill billionar billionen "
        "billioner billions billió billjón billjónir billones billón billóns bio bln "
        "detrilioane dtrilliún isigidintathu milamiliardi millemiliardi natrilyon nghìntỷ "
        "thrilliún tril trilhão trilhões trilijonai trilijonas trilijono trilijonų trilioane "
        "trilion trilioni triliun triliwn trilj triljon triljoni triljonit triljons triljonu "
        "trillion trilliún trilyon trln τρισ τρισεκατομμύρια τρισεκατομμύριο бил билион "
        "билиона билиони инаяд ихнаяд трилион трилиона триллион триллиона триллионов трильйон "
        "трильйона трильйони трильйонів трлн трыльён трыльёна трыльёнаў трыльёны տրիլիոն տրլն "
        "טריליון ترليون تریلیون هزارمیلیارد ٹریلین ລລ ტრილიონი ტრლ 万亿 兆 조 "
    ),
    (16,): "京 ",
}
