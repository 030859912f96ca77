"""What columns are called, by those who publish tables of texts: a hint at what they hold."""

import re
from collections.abc import Sequence

LABELS = (
    *("label", "labels", "gold_label", "gold", "target", "targets", "class", "classes"),
    *("category", "categories", "sentiment", "polarity", "topic", "topics", "intent", "emotion"),
    *("emotions", "stance", "toxicity", "toxic", "spam", "stars", "star_rating", "rating"),
    *("overall", "score", "grade", "similarity", "relatedness", "is_duplicate", "entailment"),
    *("verdict", "subject_area", "department", "tag", "tags", "genre", "genres", "section"),
    *("outcome", "y", "ner_tags", "label_text", "kategorie", "klasse", "bewertung", "stimmung"),
    *("thema", "categorie", "catégorie", "étiquette", "categoria", "categoría", "etiqueta"),
    *("type", "quality", "priority", "language", "lang", "answer", "status"),
)
"""Of what is learnt, the likeliest first."""

TEXTS = (
    *("text", "texts", "sentence", "review", "review_text", "reviewtext", "review_body", "body"),
    *("content", "comment", "comment_text", "tweet", "message", "document", "article", "post"),
    *("description", "utterance", "query", "question", "statement", "abstract", "transcript"),
    *("email", "sms", "ticket", "complaint", "feedback", "title", "headline", "subject", "summary"),
    *("nachricht", "bericht", "kommentar", "rezension", "frage", "texte", "avis", "texto"),
    *("reseña", "comentario", "testo", "tekst"),
)
"""Of what is read, the likeliest first."""

OTHERS = {
    *("id", "ids", "idx", "index", "uid", "uuid", "guid", "key", "no", "nr", "number", "row"),
    *("date", "time", "timestamp", "created", "updated", "year", "month", "day", "hour", "datum"),
    *("url", "link", "href", "source", "split", "fold", "user", "author", "username", "reviewer"),
    *("annotator", "worker", "version", "file", "filename", "path", "verified", "helpful", "votes"),
    *("likes", "retweets", "replies", "count", "length", "len", "lat", "lon", "country", "city"),
    *("location", "brand", "asin", "product", "device", "platform", "airline", "confidence"),
    *("unnamed", "page", "line", "position", "offset", "email", "phone", "zip", "gender", "age"),
    *("name", "reason", "store", "shop", "customer", "channel"),
}
"""Words in the names of columns that are neither."""

MEASURES = {
    *("score", "similarity", "relatedness", "price", "percent", "probability", "value", "amount"),
    *("intensity", "valence", "arousal", "dominance", "readability", "complexity", "difficulty"),
    *("rating", "stars", "grade", "points", "bewertung", "note", "target", "overall"),
}
"""Words in the names of numbers that are measured."""

GRADES = {"stars", "star", "rating", "ratings", "score", "grade", "overall", "bewertung", "points"}
"""Words in the names of grades, such as 1 to 5 stars: classes and numbers in one."""

CLASSES = {"label", "labels", "class", "classes", "category", "topic", "intent", "y", "target"}
"""Words in the names of classes, also where these are numbers."""

PAIRS = (
    *(("premise", "hypothesis"), ("sentence1", "sentence2"), ("question1", "question2")),
    *(("text1", "text2"), ("sentence_a", "sentence_b"), ("text_a", "text_b"), ("s1", "s2")),
    *(("question", "context"), ("question", "passage"), ("question", "sentence")),
    *(("question", "answer"), ("query", "passage"), ("query", "document"), ("query", "title")),
    *(("query", "product_title"), ("claim", "evidence"), ("claim", "context")),
    *(("title", "body"), ("title", "text"), ("title", "content"), ("title", "description")),
    *(("title", "abstract"), ("title", "article"), ("title", "selftext"), ("title", "review")),
    *(("title", "review_text"), ("title", "comment"), ("subject", "body"), ("subject", "message")),
    *(("subject", "description"), ("name", "description"), ("name", "item_description")),
    *(("subject", "text"), ("subject", "content"), ("headline", "body"), ("headline", "text")),
    *(("headline", "article"), ("headline", "short_description"), ("titel", "text")),
    *(("review_title", "review_body"), ("review_headline", "review_body"), ("summary", "text")),
    *(("summary", "reviewtext"), ("source", "target"), ("utterance", "response")),
    *(("context", "response"), ("statement", "context"), ("review_title", "review_text")),
)
"""Two columns that are read together, the first one first."""

WHOLE = (
    "title",
    "subject",
    "name",
    "headline",
    "summary",
    "titel",
    "review_title",
    "review_headline",
)
"""First columns of pairs whose second one can be read alone."""


def spell(name: str) -> str:
    """A name in small letters with `_` between its words."""
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.strip())
    return re.sub(r"\W+", "_", parted.casefold()).strip("_")


def words_of(name: str) -> list[str]:
    """The words of a name, without digits at their ends."""
    return [word.rstrip("0123456789") or word for word in spell(name).split("_")]


def rank(name: str, known: Sequence[str]) -> float:
    """How surely a name is one of those known: 1 at best, 0 where it is none.

    One that is called so is before one of whose words one is called so.
    """
    if spell(name) in known:
        return 1.0 - 0.4 * known.index(spell(name)) / len(known)
    places = [known.index(word) for word in words_of(name) if word in known]
    return 0.5 - 0.2 * min(places) / len(known) if places else 0.0


def is_other(name: str) -> bool:
    """Whether a name says that its column is neither read nor learnt."""
    return bool({*words_of(name)} & OTHERS) and rank(name, LABELS) < 0.6


def pair_of(names: Sequence[str]) -> tuple[str, str] | None:
    """Two of the names that are read together, in their order; None where there are none."""
    spelled = {spell(name): name for name in names}
    for first, second in PAIRS:
        if first in spelled and second in spelled:
            return spelled[first], spelled[second]
    for key, name in spelled.items():
        for one, two in (("1", "2"), ("a", "b"), ("left", "right"), ("one", "two")):
            if key.endswith(one) and len(key) > len(one):
                other = spelled.get(key.removesuffix(one) + two)
                if other is not None:
                    return name, other
    return None
