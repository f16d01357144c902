"""Real tables, dirty ones among them, go the whole way with no hand editing."""

from pathlib import Path

import pytest

from modelinscale.api import Project, init

pytestmark = [pytest.mark.real, pytest.mark.slow]

DIRTY = {
    "beers": ("dirty-beers/dirty.csv", "abv", {"ounces": "number", "ibu": "number", "style": "category"}, {"index": "counter", "id": "identifier"}),
    "movies": ("dirty-movies/movies.json", "IMDB Rating", {"Release Date": "moment", "US Gross": "number"}, {"Title": "identifier"}),
    "flights": ("dirty-flights/dirty.csv", "src", {"flight": "category"}, {"tuple_id": "counter"}),
    "books": (
        "dirty-british-library-books/books.csv",
        "Issuance type",
        {"Title": "text", "Publisher": "text"},
        {"Engraver": "missing", "Flickr URL": "identifier"},
    ),
}


@pytest.mark.parametrize("name", DIRTY)
def test_a_dirty_table_goes_the_whole_way_and_the_card_tells_what_was_found(name: str, real_data: Path, tmp_path: Path) -> None:
    file, target, types, left_out = DIRTY[name]
    init([str(real_data / file)], target=target, out=tmp_path, model="trees")
    project = Project(tmp_path)
    features = {column: feature.type for column, feature in project.spec.features.items()}
    assert features | types == features
    written = (tmp_path / "model.yaml").read_text()
    for column, why in left_out.items():
        assert column not in features
        assert any(f"# {column}: left out" in line and why in line for line in written.splitlines()), column
    outcome = project.run()
    card = project.card()
    assert outcome.version == "1"
    assert "Quarantine" in card
    assert "constant baseline" in card
    assert project.describe("quarantine").facts["n_rows"] == outcome.collected["n_quarantined"]


def test_a_column_that_gives_the_target_away_is_left_out_of_bike_sharing(real_data: Path, tmp_path: Path) -> None:
    init([str(real_data / "bike-sharing" / "hour.parquet")], target="cnt", out=tmp_path, model="trees")
    spec = Project(tmp_path).spec
    assert not {"casual", "registered", "instant"} & set(spec.features)
    assert spec.data.time == "dteday"


def test_adult_reaches_what_is_published_for_boosted_trees(real_data: Path, tmp_path: Path) -> None:
    init([str(real_data / "adult" / "data.parquet")], target="income", out=tmp_path, model="trees")
    found = {name: metric["value"] or 0.0 for name, metric in Project(tmp_path).run().metrics.items()}
    assert found["roc_auc"] > 0.925
    assert found["accuracy"] > 0.87
