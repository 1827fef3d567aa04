"""Which revision of each data set on the hub is read.

No commit was downloaded for this table, because the project is built offline. Each one stands in published code that downloads
the same set at that commit. A set that this table does not name is read at its newest revision, and the digest of the rows in
each result shows a change.
"""

from collections.abc import Mapping

# The hub's branch of a set with its rows as Parquet files, one folder per configuration. For sets that are loading scripts,
# which `datasets` no longer runs. The hub writes this branch again when the set changes.
PARQUET = "refs/convert/parquet"

HUB_REVISIONS: Mapping[str, str] = {
    "cardiffnlp/tweet_eval": "b3a375baf0f409c77e6bc7aa35102b7b3534f8be",
    "community-datasets/roman_urdu_hate_speech": "d1e9fb2fc4d973306dc2c647b086a9f90244c9a3",
    "facebook/xnli": "b8dd5d7af51114dbda02c0e3f6133f332186418e",
    "google-research-datasets/paws-x": "4cd8187c404bda33cb1f62b49b001115862acf37",
    "google-research-datasets/tydiqa": "da78f23f9119363459acbaf46bf89426ff26c259",
    "google/xquad": "51adfef1c1287aab1d2d91b5bead9bcfb9c68583",
    "nyu-mll/glue": "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c",
    "pythainlp/wisesight_sentiment": "85a79ed833429457227182c9f61a83e9127dfa2e",
    "rajpurkar/squad": "7b6d24c440a36b6815f21b70d25016731768db1f",
    "thu-coai/cold": "a31e56eb008ac3c6abe987094fb06a07fc53625f",
    "unimelb-nlp/wikiann": "f0a3be6dc5564c0cc4150bb660144800a1f539d4",
    "JAugusto97/told-br": PARQUET,
    "cardiffnlp/tweet_sentiment_multilingual": PARQUET,
    "eriktks/conll2002": PARQUET,
    "eriktks/conll2003": PARQUET,
    "facebook/mlqa": PARQUET,
    "inmoonlight/kor_hate": PARQUET,
    "masakhane/masakhaner": PARQUET,
    "odegiber/hate_speech18": PARQUET,
    "shmuhammad/AfriSenti-twitter-sentiment": PARQUET,
}
