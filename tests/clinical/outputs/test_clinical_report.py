"""report.html: what it says, that nothing in it comes from elsewhere, and that its size is bounded."""

from __future__ import annotations

import base64
import re
import tracemalloc
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from msrf_monai.clinical.report import MOST_PICTURES, MOST_ROWS, write_report
from msrf_monai.clinical.report_pictures import Histogram, draw_histogram, histogram_of
from msrf_monai.errors import DataError

jinja2 = pytest.importorskip("jinja2", reason="Jinja2 is not installed: pip install 'msrf-monai[clinical]'")


class Page(HTMLParser):
    """What a browser would see of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.addresses, self.words, self.pictures = [], [], [], []
        self.feed(text)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.append(tag)
        self.addresses += [values[name] for name in ("src", "href", "xlink:href", "action") if name in values]
        if tag == "img":
            self.pictures.append(values)

    def handle_data(self, data):
        self.words.append(data)


def page_of(folder):
    text = write_report(folder).read_text(encoding="utf-8")
    return Page(text), text


def test_it_counts_and_names_what_became_of_the_inputs(results):
    results.done("a.png")
    results.done("empty.png", 0)
    results.failed("b.png", "truncated", "it is cut short; copy it again")
    results.failed("c.png", "truncated", "it is cut short; copy it again")

    page, _ = page_of(results.close())

    assert "segmentation of 4 inputs" in page.text
    assert "2 done 1 of these flagged 2 failed 0 skipped 2 images segmented" in page.text
    assert "failed truncated 2" in page.text
    assert "b.png truncated it is cut short; copy it again" in page.text
    assert "empty_mask nothing was found in any frame 1" in page.text
    assert "found in 1 of 2 inputs" in page.text


def test_it_fetches_nothing_and_runs_nothing(results):
    results.done("a.png")

    page, text = page_of(results.close())

    assert "script" not in page.tags
    assert {"link", "iframe", "object"}.isdisjoint(page.tags)
    assert all(address.startswith("data:image/png;base64,") or address == "input-0/" for address in page.addresses)
    assert "://" not in text
    assert "url(" not in text


def test_pictures_are_the_thumbnails(results):
    entry = results.done("a.png")
    folder = results.close()

    page, _ = page_of(folder)

    (picture,) = page.pictures
    content = base64.b64decode(picture["src"].partition(",")[2])
    assert content == (folder / entry.folder / "thumbnail.png").read_bytes()


@pytest.mark.parametrize("hostile", ["<script>alert(1)</script>", '"><img src=x onerror=y>', "{{ 7*7 }}", "a&b"])
def test_names_and_reasons_are_shown_not_run(results, hostile):
    results.done(hostile)
    results.failed(hostile, "io_error", hostile)

    page, _ = page_of(results.close())

    assert "script" not in page.tags
    assert len(page.pictures) == 1
    assert page.pictures[0]["alt"].endswith(hostile)
    assert hostile in page.text


def test_the_same_results_give_the_same_page_in_any_order(new_results):
    pages = []
    for backwards in (False, True):
        made = new_results(f"results-{backwards}")
        for name in ("b.png", "a.png", "a.png"):
            made.done(name)
        pages.append(write_report(made.close(backwards=backwards)).read_bytes())

    assert pages[0] == pages[1]


def test_flagged_inputs_are_shown_first(results):
    for number in range(3):
        results.done(f"a{number}.png")
    results.done("z.png", 0)

    page, _ = page_of(results.close())

    assert [picture["alt"].rpartition(" ")[2] for picture in page.pictures] == ["z.png", "a0.png", "a1.png", "a2.png"]


def test_words_that_only_inform_are_no_flags(results):
    results.done("a.png", flags=("rule:largest-series", "not_written:seg"))

    page, _ = page_of(results.close())

    assert "0 of these flagged" in page.text
    assert "rule a rule chose the series" in page.text
    assert "not_written:seg such an output was asked for" in page.text


def test_what_has_changed_since_the_run_is_said(results):
    entry = results.done("a.png")
    folder = results.close()
    (folder / entry.folder / "stats.json").write_text("{}")
    (folder / entry.folder / "thumbnail.png").unlink()

    page, _ = page_of(folder)

    assert "The statistics of 1 input are missing or not what the run wrote" in page.text
    assert "no picture" in page.text


def test_areas_in_square_millimetres_have_a_histogram_of_their_own(results):
    results.done("a.png", 30)
    results.done("b.png", 60, spacing_mm=(0.5, 0.5), spacing_is_real=True)

    page, text = page_of(results.close())

    assert page.tags.count("svg") == 2
    assert "Histogram of the share of polyp over 2 inputs" in text
    assert "Histogram of the area of polyp over 1 inputs" in text
    assert "60 px 15.0 mm²" in page.text


def test_a_run_in_which_nothing_was_done_has_a_page_too(results):
    results.failed("a.png")

    page, _ = page_of(results.close())

    assert "0 done" in page.text
    assert page.pictures == []


def test_versions_digests_and_options_are_named(results):
    page, _ = page_of(results.close())

    for text in ("ab" * 32, "cd" * 32, "tta no", "torch 2.13.0", "MSRF-Net polyp segmentation 0.1.0"):
        assert text in page.text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"frames": 20000, "a": None}, "frames 20,000, a not set"),
        (["mask", "seg"], "mask, seg"),
        ([], "none"),
        ({}, "none"),
        (0.5, "0.5"),
        (1, "1"),
        (True, "yes"),
        ("eager", "eager"),
    ],
    ids=["limits", "list", "no-list", "no-names", "number", "one", "yes", "word"],
)
def test_options_are_shown_as_people_read_them(results, value, text):
    results.header = replace(results.header, options={"it": value})

    page, _ = page_of(results.close())

    assert f"it {text} " in page.text


def test_five_thousand_inputs_take_bounded_memory_and_space(results):
    entry = results.done("a.png")
    results.entries = [
        replace(entry, input=f"{number}.png", folder=f"input-{number}", flags=("empty_mask",) * (number % 2))
        for number in range(5000)
    ]
    folder = results.close()

    tracemalloc.start()
    page, text = page_of(folder)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert len(page.pictures) == MOST_PICTURES
    assert text.count("<tr><td><a") == MOST_ROWS
    assert f"The first {MOST_ROWS} of 5000" in page.text
    assert "found in 5000 of 5000 inputs" in page.text
    assert peak < 64 << 20


def test_a_folder_without_a_manifest_is_refused(tmp_path):
    with pytest.raises(DataError, match="manifest"):
        write_report(tmp_path)


@pytest.mark.parametrize(
    ("values", "width", "counts"),
    [
        ([0.0], 0.05, (1,)),
        ([1.0, 11.0, 21.0, 22.0], 1.0, (0, 1, *[0] * 9, 1, *[0] * 9, 2)),
        ([100.0, 2.0, 99.0], 5.0, (1, *[0] * 18, 2)),
        ([0.0022], 0.0001, (*[0] * 21, 1)),
    ],
    ids=["zero", "ones", "fives", "small"],
)
def test_histograms_have_readable_intervals_and_count_every_value(values, width, counts):
    histogram = histogram_of(values)

    assert histogram.width == pytest.approx(width)
    assert histogram.counts == counts


def test_bars_are_as_high_as_their_counts():
    drawing = draw_histogram(Histogram(2.0, (4, 0, 2)), title="a<b", axis="size & more", colour=(0, 230, 118))

    heights = [float(height) for height in re.findall(r'<rect [^>]*height="([\d.]+)"', drawing)]
    assert heights[1] == 0
    assert heights[0] == pytest.approx(2 * heights[2], abs=0.2)
    assert "a&lt;b" in drawing
    assert "size &amp; more" in drawing
