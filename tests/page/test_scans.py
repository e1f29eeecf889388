"""The page's scans and corrections in a real browser with a real server."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from digits.imaging.formats import SUFFIXES
from pad import DIGITS, SAMPLES, curve, draw, on_pad, reads, says
from pictures import number
from project import ROOT
from scans import choose, opener, save
from service import Server

pytestmark = pytest.mark.e2e

COLUMNS = ["file", "page", "line", "text", "words", "probability", "unsure", "corrected", "error"]

# the darkest pixel of a canvas
DARKEST = """canvas => canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data
    .reduce((least, value, i) => (i % 4 === 0 ? Math.min(least, value) : least), 255)"""


def download(page: Any, button: str) -> str:
    with page.expect_download() as got:
        page.get_by_role("button", name=button).click()
    return Path(got.value.path()).read_bytes().decode()


def table(text: str) -> list[dict[str, str]]:
    rows = csv.DictReader(io.StringIO(text))
    assert rows.fieldnames == COLUMNS
    return list(rows)


def answer(server: Server, file: Path) -> list[dict[str, Any]]:
    """The readings of a file's pages."""
    answered = server.ask("/read?alternatives=3", file.read_bytes(), Content_Type="image/png")
    return answered.json.get("readings", [answered.json]) if answered.status == 200 else []


def expected_rows(server: Server, file: Path) -> list[dict[str, str]]:
    """The rows of a table for a file that was not corrected."""
    return [
        {
            "file": file.name,
            "page": str(page),
            "line": str(i),
            "text": line["text"],
            "words": str(len(line["words"])),
            "probability": json.dumps(line["probability"]),
            "unsure": json.dumps(line["unsure"]),
            "corrected": "false",
            "error": "",
        }
        for page, reading in enumerate(answer(server, file), 1)
        for i, line in enumerate(reading["lines"], 1)
    ]


def box_of(page: Any, index: int) -> dict[str, float]:
    """The box of a digit in the open picture, in pixels of the window."""
    group = page.locator(".sheet .boxes g rect").nth(index)
    # in one step, because the boxes are drawn again when the picture is there
    group.evaluate("rect => rect.scrollIntoView({ block: 'nearest', inline: 'nearest' })")
    return group.bounding_box()


def middle(box: dict[str, float]) -> tuple[float, float]:
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def refuse_every(page: Any, nth: int) -> list[int]:
    """Answer each nth request to /read with 503. Returns a list that gets the statuses."""
    statuses: list[int] = []
    page.expected_messages.append("the server responded with a status of 503")

    def busy(route: Any) -> None:
        statuses.append(503 if len(statuses) % nth == nth - 1 else 200)
        if statuses[-1] == 200:
            route.continue_()
        else:
            route.fulfill(status=503, json={"detail": "busy"}, headers={"Retry-After": "1"})

    page.route("**/read*", busy)
    return statuses


def test_sixty_files_are_read_corrected_and_taken_away_as_a_table(
    page: Any, server: Server, tmp_path: Path
) -> None:
    from playwright.sync_api import expect

    files = save(tmp_path, **{f"{i:02d}": f"{(i * 7919) % 100000:05d}" for i in range(57)})
    (tmp_path / "broken.png").write_bytes(files[0].read_bytes()[:300])
    pages = [number(str(i) * 3) for i in range(1, 9)]
    pages[0].save(tmp_path / "form.pdf", save_all=True, append_images=pages[1:5])
    pages[5].save(tmp_path / "form.tiff", save_all=True, append_images=pages[6:])
    files += [tmp_path / name for name in ("broken.png", "form.pdf", "form.tiff")]
    page.expected_messages.append("the server responded with a status of 422")
    statuses = refuse_every(page, 9)
    choose(page, files, "65 of 66 pages read, 1 failed")
    assert statuses.count(503) >= 6
    row = page.locator("#rows li", has_text="broken.png")
    broken = (tmp_path / "broken.png").read_bytes()
    reason = server.ask("/read", broken, Content_Type="image/png").json["detail"]
    reason = reason.replace("The body is", "The file is")
    assert reason in row.text_content()
    assert opener(page, "form.pdf, page 5").is_visible()

    # correct a digit of one page with the mouse, and one of another with the keyboard
    opener(page, "03.png").click()
    page.mouse.click(*middle(box_of(page, 1)))
    expect(page.locator(".editor .text")).to_be_focused()
    page.keyboard.press("8")
    page.keyboard.press("Escape")
    opener(page, "form.tiff, page 2").press("Enter")
    page.locator(".editor .text").focus()
    page.keyboard.press("End")
    page.keyboard.press("1")

    expected = [each for file in files[:57] for each in expected_rows(server, file)]
    expected.append({"file": "broken.png", "error": reason})
    expected += [each for file in files[58:] for each in expected_rows(server, file)]
    for name, at, digit in (("03.png", 1, "8"), ("form.tiff", 2, "1")):
        row = next(
            row for row in expected if row["file"] == name and (name != "form.tiff" or row["page"] == "2")
        )
        row["text"] = row["text"][:at] + digit + row["text"][at + 1 :]
        row["corrected"] = "true"
    rows = table(download(page, "Download CSV"))
    for row, want in zip(rows, expected, strict=True):
        # a correction may settle the only doubt of a line
        if row["corrected"] == "true":
            want["unsure"] = row["unsure"]
        assert row == dict.fromkeys(COLUMNS, "") | want


def test_the_keyboard_alone_opens_corrects_adds_deletes_and_undoes(page: Any, tmp_path: Path) -> None:
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.get_by_label("Scans").is_checked()
    choose(page, save(tmp_path, a="40725\n316", b="90"), "2 of 2 pages read")
    text = page.locator(".editor .text")
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.className") == "opener":
            break
    page.keyboard.press("Enter")
    while page.evaluate("document.activeElement.role") != "listbox":
        page.keyboard.press("Tab")

    def selected() -> str:
        return text.locator("[aria-selected=true]").text_content()

    page.keyboard.press("Home")
    assert selected() == "4"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    assert selected() == "1"
    page.keyboard.press("7")
    assert text.text_content() == "40725\n376"
    assert "was read as 1" in page.locator(".editor .detail").text_content()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Delete")
    assert text.text_content() == "40725\n37"
    # a new digit begins right of the selected one
    page.keyboard.press("End")
    page.keyboard.press("+")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("9")
    assert text.text_content() == "40725\n379"
    page.keyboard.press("Control+Z")
    page.keyboard.press("Control+Z")
    page.keyboard.press("Control+Z")
    assert text.text_content() == "40725\n316"
    # the next page, by closing this one
    page.keyboard.press("Escape")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert text.text_content() == "90"


def test_a_finger_picks_a_digit_and_the_buttons_correct_it(open_page: Any, tmp_path: Path) -> None:
    page = open_page(360, 740, has_touch=True, is_mobile=True)
    choose(page, save(tmp_path, a="40725"), "1 of 1 page read")
    opener(page, "a.png").tap()
    page.touchscreen.tap(*middle(box_of(page, 4)))
    assert page.locator(".editor [aria-selected=true]").text_content() == "5"
    page.locator(".editor .digits").get_by_role("button", name="6").tap()
    assert page.locator(".editor .text").text_content() == "40726"
    assert "corrected" in opener(page, "a.png").text_content()


def test_a_missed_digit_is_marked_on_the_picture(page: Any, tmp_path: Path) -> None:
    choose(page, save(tmp_path, a="47 52\n316"), "1 of 1 page read")
    opener(page, "a.png").click()
    text = page.locator(".editor .text")
    before = text.text_content()
    assert before.replace(" ", "") == "4752\n316"
    four, five = box_of(page, 1), box_of(page, 2)
    page.get_by_role("button", name="Add…").click()
    left, right = four["x"] + four["width"] + 4, five["x"] - 4
    page.mouse.move(left, four["y"])
    page.mouse.down()
    page.mouse.move(right, four["y"] + four["height"], steps=3)
    page.mouse.up()
    page.keyboard.press("0")
    assert text.text_content().replace(" ", "") == "47052\n316"
    pages = json.loads(download(page, "Download JSON"))
    line = pages[0]["lines"][0]
    (added,) = [digit for word in line["words"] for digit in word["digits"] if "was" in digit]
    assert (added["digit"], added["was"]) == (0, None)
    # in pixels of the picture
    shown = page.locator(".sheet").bounding_box()
    scale = shown["width"] / pages[0]["size"][0]
    x, _, width, _ = added["box"]
    assert abs(shown["x"] + x * scale - left) < 2
    assert abs(width * scale - (right - left)) < 3
    assert line["corrected"]
    page.locator(".editor").get_by_role("button", name="Undo").click()
    assert text.text_content() == before


def answer_unsurely(page: Any, *texts: str) -> None:
    """From now on, lines with these texts are unsure, and their first digits, and no others."""

    def unsure(route: Any) -> None:
        found = route.fetch().json()
        for line in found["lines"]:
            line["unsure"] = line["text"] in texts
            for i, digit in enumerate(line["digits"]):
                digit["unsure"] = line["unsure"] and i == 0
        route.fulfill(json=found)

    page.route("**/read*", unsure)


def test_unsure_pages_are_marked_filtered_and_visited(page: Any, tmp_path: Path) -> None:
    answer_unsurely(page, "316", "725")
    choose(page, save(tmp_path, a="40", b="316\n47", c="27", d="725"), "4 of 4 pages read, 2 unsure")
    rows = page.locator("#rows li")
    assert [row.is_visible() for row in rows.all()] == [True] * 4
    page.get_by_label("Unsure only").check()
    assert [row.is_visible() for row in rows.all()] == [False, True, False, True]
    assert rows.nth(1).locator(".lines .doubt").all_text_contents() == ["3"]
    assert "1 unsure" in rows.nth(1).locator(".status").text_content()

    text = page.locator(".editor .text")
    page.keyboard.press("n")
    assert text.text_content() == "316\n47"
    assert text.locator("[aria-selected=true]").text_content() == "3"
    # the right digit, typed again
    page.keyboard.press("3")
    page.keyboard.press("n")
    assert text.text_content() == "725"
    # the whole line is right
    page.keyboard.press("Enter")
    page.keyboard.press("n")
    assert page.locator("#scans-said").text_content() == "Nothing is unsure."
    assert page.locator("#scans-count").text_content().endswith("none unsure.")
    rows = table(download(page, "Download CSV"))
    assert [row["unsure"] for row in rows] == [row["corrected"] for row in rows] == ["false"] * 5


def test_a_table_is_copied_for_a_spreadsheet(page: Any, server: Server, tmp_path: Path) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    files = [*save(tmp_path, a="40 72\n316"), *save(tmp_path, blank="")]
    choose(page, files, "2 of 2 pages read")
    page.get_by_role("button", name="Copy table").click()
    page.get_by_role("button", name="Copied").wait_for()
    text = page.evaluate("navigator.clipboard.readText()")
    rows = list(csv.DictReader(io.StringIO(text), dialect="excel-tab"))
    blank = dict.fromkeys(COLUMNS, "") | {"file": "blank.png", "page": "1"}
    columns = [{"column 1": "40", "column 2": "72"}, {"column 1": "316", "column 2": ""}]
    expected = [row | cells for row, cells in zip(expected_rows(server, files[0]), columns, strict=True)]
    assert rows == [*expected, blank | dict.fromkeys(columns[0], "")]


def test_each_column_of_numbers_is_a_column_of_the_table(page: Any, server: Server, tmp_path: Path) -> None:
    files = [*save(tmp_path, a="20  31  47\n85      72"), *save(tmp_path, b="316", blank="")]
    choose(page, files, "3 of 3 pages read")
    answered = server.ask("/read?columns=1", files[0].read_bytes(), Content_Type="image/png").json
    read = [
        {f"column {word['column'] + 1}": word["text"] for word in line["words"]} for line in answered["lines"]
    ]
    assert read == [
        {"column 1": "20", "column 2": "31", "column 3": "47"},
        {"column 1": "85", "column 3": "72"},
    ]
    names = ["column 1", "column 2", "column 3"]
    rows = csv.DictReader(io.StringIO(download(page, "Download CSV")))
    cells = [{name: row[name] for name in names if row[name]} for row in rows]
    assert rows.fieldnames == [*COLUMNS, *names]
    assert cells == [*read, {"column 1": "316"}, {}]

    # a number that is added fills its cell
    page.locator("#rows .name").first.click()
    editor = page.locator(".editor .text")
    editor.press("End")
    editor.press("+")
    for _ in range(40):
        editor.press("ArrowLeft")
    editor.press("6")
    rows = csv.DictReader(io.StringIO(download(page, "Download CSV")))
    assert [row["column 2"] for row in rows][:2] == ["31", "6"]


def answer_with(page: Any, size: tuple[int, int], *lines: list[tuple[str, float, float]]) -> None:
    """From now on, POST /read finds these lines of words, each with its text and where it begins, with sure digits
    of 20 x 30 pixels."""
    answer: dict[str, Any] = {"lines": [], "marks": [], "size": size}
    for line in lines:
        words = []
        for text, x, y in line:
            boxes = [(round(x + 22 * k), round(y), 20, 30) for k in range(len(text))]
            digits = [
                {"digit": int(each), "probability": 0.99, "unsure": False, "box": box}
                for each, box in zip(text, boxes, strict=True)
            ]
            words.append({"text": text, "digits": digits})
        digits = [digit for word in words for digit in word["digits"]]
        answer["lines"].append({"probability": 0.99, "unsure": False, "words": words, "digits": digits})
    page.route("**/read?*", lambda route: route.fulfill(json=answer))


def test_small_digits_stay_legible_in_their_boxes(page: Any, tmp_path: Path) -> None:
    # in a picture of 3000 pixels, digits are a few pixels high until it is enlarged
    answer_with(page, (3000, 2000), [("40725", 100, 100)])
    choose(page, save(tmp_path, a="1"), "1 of 1 page read")
    opener(page, "a.png").click()
    box, value = page.locator(".sheet g rect").last, page.locator(".sheet g text").last

    def pen() -> float:
        return box.evaluate("rect => parseFloat(getComputedStyle(rect).strokeWidth)")

    assert pen() < 2
    assert not value.is_visible()
    for _ in range(4):
        page.get_by_role("button", name="Larger").click()
    value.wait_for()
    for _ in range(4):
        page.get_by_role("button", name="Smaller").click()
    value.wait_for(state="hidden")
    # large digits
    page.get_by_role("button", name="Remove from the list").click()
    answer_with(page, (300, 200), [("40725", 100, 100)])
    choose(page, save(tmp_path, b="1"), "1 of 1 page read")
    opener(page, "b.png").click()
    value.wait_for()
    assert pen() > 2


def test_what_an_undone_correction_changed_is_selected(page: Any, tmp_path: Path) -> None:
    answer_with(page, (300, 200), [("40725", 100, 20)], [("316", 100, 100)])
    choose(page, save(tmp_path, a="1"), "1 of 1 page read")
    opener(page, "a.png").click()
    text = page.locator(".editor .text")
    for key in ("ArrowRight", "ArrowRight", "Delete", "End", "Control+z"):
        text.press(key)
    assert text.text_content() == "40725\n316"
    assert page.locator(".editor .detail").text_content() == "Line 1, digit 3: 7 (99.0\xa0%)."


def test_a_folder_is_taken_without_hidden_files_and_says_what_it_skips(page: Any, tmp_path: Path) -> None:
    from playwright.sync_api import expect

    folder = tmp_path / "scans"
    save(folder, b="40", a="316")
    (folder / ".hidden.png").write_bytes((folder / "a.png").read_bytes())
    (folder / "notes.txt").write_text("not a picture")
    (folder / "deep").mkdir()
    (folder / "a.png").rename(folder / "deep" / "a.PNG")
    (folder / "@eaDir").mkdir()
    (folder / "@eaDir" / "c.png").write_bytes((folder / "b.png").read_bytes())
    page.get_by_label("Scans").check()
    page.set_input_files("#scan-folder", folder)
    expect(page.locator("#scans-count")).to_contain_text("2 of 2 pages read", timeout=60_000)
    assert page.locator("#rows .name").all_text_contents() == ["scans/b.png", "scans/deep/a.PNG"]
    assert page.locator("#scans-skipped").text_content() == "1 other file skipped."


DROP = """([names, data]) => {
    const transfer = new DataTransfer();
    const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
    for (const name of names) transfer.items.add(new File([bytes], name, { type: "image/png" }));
    const drop = new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true });
    document.body.dispatchEvent(drop);
}"""


def test_file_dialogs_offer_every_format_that_is_read(page: Any) -> None:
    for name in ("#file", "#scan-files"):
        assert set(page.locator(name).get_attribute("accept").split(",")) >= SUFFIXES


def test_several_dropped_pictures_become_scans(page: Any, tmp_path: Path) -> None:
    import base64

    from playwright.sync_api import expect

    (file,) = save(tmp_path, a="316")
    page.evaluate(DROP, [["x.png", "y.png"], base64.b64encode(file.read_bytes()).decode()])
    expect(page.locator("#scans-count")).to_contain_text("2 of 2 pages read", timeout=60_000)
    assert page.get_by_label("Scans").is_checked()
    assert page.locator("#rows .name").all_text_contents() == ["x.png", "y.png"]


def test_a_reload_asks_before_work_is_lost(page: Any, tmp_path: Path) -> None:
    asked: list[str] = []

    def stay(dialog: Any) -> None:
        asked.append(dialog.type)
        dialog.dismiss()

    page.on("dialog", stay)
    choose(page, save(tmp_path, a="316"), "1 of 1 page read")
    page.get_by_label("Unsure only").click()
    # it never finishes, because the dialog is dismissed
    page.evaluate("setTimeout(() => location.reload())")
    while not asked:
        page.wait_for_timeout(50)
    assert asked == ["beforeunload"]
    assert page.locator("#rows li").count() == 1
    download(page, "Download CSV")
    page.reload()
    assert asked == ["beforeunload"]


def test_only_the_pictures_are_sent(open_page: Any, server: Server, tmp_path: Path) -> None:
    page = open_page()
    (file,) = save(tmp_path, private="316")
    sent: list[Any] = []
    page.on("request", lambda request: sent.append(request))
    choose(page, [file], "1 of 1 page read")
    opener(page, "private.png").click()
    page.locator(".editor .text").focus()
    page.keyboard.press("9")
    (request,) = [each for each in sent if not each.url.startswith("blob:")]
    assert (request.method, request.url) == ("POST", f"{server.url}/read?alternatives=3&columns=1")
    assert "private" not in json.dumps(request.all_headers())


def test_scans_wait_for_an_api_key(page: Any, tmp_path: Path) -> None:
    from playwright.sync_api import expect

    page.expected_messages.append("the server responded with a status of 401")

    def guard(route: Any) -> None:
        if route.request.headers.get("x-api-key") == "right":
            route.continue_()
        else:
            route.fulfill(status=401, json={"detail": "An API key is required."})

    page.route("**/read*", guard)
    page.get_by_label("Scans").check()
    page.set_input_files("#scan-files", save(tmp_path, a="316", b="40", c="27"))
    page.locator("#problem").get_by_text("Enter an API key").wait_for()
    page.fill("#key", "right")
    page.keyboard.press("Enter")
    expect(page.locator("#scans-count")).to_contain_text("3 of 3 pages read", timeout=60_000)
    assert page.locator("#problem").is_hidden()


def test_a_file_that_failed_is_tried_again(page: Any, tmp_path: Path) -> None:
    from playwright.sync_api import expect

    page.expected_messages.append("the server responded with a status of 500")
    page.route("**/read*", lambda route: route.fulfill(status=500, json={"detail": "It broke."}))
    choose(page, save(tmp_path, a="316"), "0 of 1 page read, 1 failed")
    assert "It broke." in page.locator("#rows li").text_content()
    page.unroute("**/read*")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#scans-count")).to_contain_text("1 of 1 page read", timeout=60_000)


def test_the_pages_of_a_file_that_the_browser_can_not_show_come_from_the_service(
    page: Any, tmp_path: Path
) -> None:
    picture = number("316")
    picture.save(tmp_path / "a.pdf", save_all=True, append_images=[picture])
    picture.save(tmp_path / "b.tiff")
    choose(page, [tmp_path / "a.pdf", tmp_path / "b.tiff"], "3 of 3 pages read")
    for name in ("a.pdf, page 2", "b.tiff"):
        opener(page, name).click()
        page.wait_for_function("() => document.querySelector('.sheet img').naturalWidth > 0")
        shown = page.locator(".sheet").bounding_box()
        for index, left in enumerate((30, 90, 150)):
            x, _ = middle(box_of(page, index))
            assert abs((x - shown["x"]) / shown["width"] - (left + 28) / picture.width) < 0.05
        # the digits are in the close-up, and in the thumbnail
        page.expected_messages.append("willReadFrequently")
        for canvas in ("#rows .reading-view .crop", f"li:has-text('{name}') .thumb"):
            assert page.locator(canvas).evaluate(DARKEST) < 100


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "zoom"), [(360, 1), (1100, 1), (1100, 2)])
def test_axe_finds_nothing_in_scans_and_nothing_overflows(
    open_page: Any, tmp_path: Path, scheme: str, width: int, zoom: int
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    # a zoom of 200 % halves the pixels of the window in CSS
    page = open_page(width // zoom, 900 // zoom, color_scheme=scheme, device_scale_factor=zoom)
    page.expected_messages.append("the server responded with a status of 422")

    def check() -> None:
        violations = Axe().run(page).response["violations"]
        assert violations == [], json.dumps([(v["id"], [n["html"] for n in v["nodes"]]) for v in violations])
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")

    page.get_by_label("Scans").check()
    check()
    files = save(tmp_path, a="40725\n316 27", blank="")
    files.append(tmp_path / f"a-very-long-name-{'of-a-broken-file' * 9}.png")
    files[-1].write_bytes(files[0].read_bytes()[:300])
    choose(page, files, "2 of 3 pages read, 1 failed")
    check()
    opener(page, "a.png").click()
    check()
    page.locator(".editor .text").press("1")
    page.get_by_role("button", name="Add…").click()
    check()
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    opener(page, "blank.png").click()
    check()


def test_three_hundred_files_leave_the_page_usable(
    browser: Any, page: Any, server: Server, tmp_path: Path
) -> None:
    # photographs of pages of numbers, and a service that is as fast as can be
    sheet, digits = Image.new("L", (900, 1200), 235), number("40725", "31627", "90814", "55120")
    sheet.paste(digits, (200, 100))
    sheet.save(tmp_path / "000.jpg", quality=90)
    (found,) = answer(server, tmp_path / "000.jpg")
    assert len(found["lines"]) == 4
    files = [tmp_path / f"{i:03d}.jpg" for i in range(300)]
    for file in files[1:]:
        file.write_bytes(files[0].read_bytes())
    page.route("**/read*", lambda route: route.fulfill(json=found))
    page.get_by_label("Scans").check()
    browser.start_tracing(page=page, categories=["toplevel", "devtools.timeline", "__metadata"])
    choose(page, files, "300 of 300 pages read")
    opener(page, "150.jpg").click()
    page.keyboard.press("n")
    events = json.loads(browser.stop_tracing())["traceEvents"]
    names = {"CrRendererMain"}
    threads = {(e["pid"], e["tid"]) for e in events if e.get("args", {}).get("name") in names}
    timed = [e for e in events if "tdur" in e and (e["pid"], e["tid"]) in threads]
    # the test's own commands, such as to choose 300 files, count with the page's functions only
    commands = [e["ts"] for e in timed if "DevToolsSession" in str(e.get("args", {}))]
    own = [e for e in timed if not any(e["ts"] <= at <= e["ts"] + e["dur"] for at in commands)]
    own += [e for e in timed if e["name"] in ("FunctionCall", "EventDispatch")]
    # what is done between two frames, in CPU time, because the machine may be busy with something else
    tasks = [e["tdur"] / 1000 for e in own]
    print(
        f"{len(tasks)} tasks of the page's thread, the longest {max(tasks):.0f} ms, all {sum(tasks):.0f} ms"
    )
    assert len(tasks) > 1000
    assert max(tasks) < 100


def test_the_old_answer_goes_when_a_new_picture_comes(page: Any) -> None:
    page.get_by_alt_text("Sample of a number").click()
    says(page, "It reads 40725")
    held: list[Any] = []
    page.route("**/read*", lambda route: held.append(route))
    page.set_input_files("#file", SAMPLES / "number.png")
    while not held:
        page.wait_for_timeout(20)
    assert page.locator("#said").text_content() == "Reading…"
    assert page.locator("#boxes > *").count() == 0
    assert page.locator("#reading").is_hidden()
    held[0].continue_()
    says(page, "It reads 40725")


def test_a_stroke_that_begins_while_a_picture_is_decoded_is_kept(page: Any) -> None:
    # a photograph that takes long to decode
    page.evaluate(
        """() => {
            const decode = window.createImageBitmap;
            window.createImageBitmap = async (...all) => {
                await new Promise((resolve) => (window.goOn = resolve));
                return decode(...all);
            };
        }"""
    )
    page.set_input_files("#file", SAMPLES / "8.png")
    page.wait_for_function("() => Boolean(window.goOn)")
    at, line = on_pad(page), curve(DIGITS[1][0])
    page.mouse.move(*at(line[0]))
    page.mouse.down()
    page.mouse.move(*at(line[5]))
    page.evaluate("goOn()")
    for point in line[6:]:
        page.mouse.move(*at(point))
    page.mouse.up()
    says(page, "It is a 1")


def test_a_number_is_corrected_as_text(page: Any) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_alt_text("Sample of a number").click()
    says(page, "It reads 40725")
    page.locator("#text").focus()
    page.keyboard.press("End")
    page.keyboard.press("6")
    reads(page, "40726")
    page.get_by_role("button", name="Copy text").click()
    page.get_by_role("button", name="Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == "40726"
    page.get_by_role("button", name="Undo the correction").click()
    reads(page, "40725")


@pytest.mark.parametrize(("strokes", "state"), [(DIGITS[7], "read"), ([[(0.2, 0.5), (0.8, 0.5)]], "nothing")])
def test_each_state_of_the_number_mode_is_told(page: Any, strokes: Any, state: str) -> None:
    def current() -> str:
        return page.evaluate("document.body.dataset.state")

    page.get_by_label("A number").check()
    assert current() == "blank"
    assert page.get_by_text("What is read appears here.").is_visible()
    draw(page, strokes)
    page.wait_for_function("state => document.body.dataset.state === state", arg=state)
    page.expected_messages.append("the server responded with a status of 422")
    page.route("**/read*", lambda route: route.fulfill(status=422, json={"detail": "It is too small."}))
    page.set_input_files("#file", SAMPLES / "7.png")
    page.locator("#problem").get_by_text("It is too small.").wait_for()
    assert current() == "refused"


def test_corrections_are_told_to_other_modules(page: Any, tmp_path: Path) -> None:
    page.evaluate(
        """async () => {
            const { corrections } = await import(new URL("static/corrections.js", location.href));
            window.heard = [];
            corrections.addEventListener("corrected", ({ detail }) => {
                const { kind, digit, was, box, reading } = detail;
                const { name, page } = reading.source;
                window.heard.push([kind, digit ?? null, was ?? null, box?.length ?? 0, name, page]);
            });
        }"""
    )
    choose(page, save(tmp_path, a="316"), "1 of 1 page read")
    opener(page, "a.png").click()
    page.locator(".editor .text").press("Home")
    for key in ("8", "ArrowRight", "1", "Delete", "Control+Z"):
        page.keyboard.press(key)
    assert page.evaluate("window.heard") == [
        ["changed", 8, 3, 4, "a.png", 1],
        ["confirmed", 1, 1, 4, "a.png", 1],
        ["removed", None, 1, 4, "a.png", 1],
        ["undone", None, None, 0, "a.png", 1],
    ]


@pytest.mark.skipif("SCREENSHOTS" not in os.environ, reason="only `make screenshots` takes them")
def test_screenshots_of_scans(open_page: Any, tmp_path: Path) -> None:
    page = open_page(1100, 900)
    texts = {
        "march-1": "40725 316\n2849",
        "march-2": "90814\n55120 47",
        "march-3": "73301\n1968",
        "meter": "040725",
    }
    answer_unsurely(page, "90814", "040725")
    choose(page, save(tmp_path, **texts), "4 of 4 pages read, 2 unsure")
    page.get_by_role("button", name="Next unsure").click()
    page.keyboard.press("ArrowRight")
    page.evaluate("scrollTo(0, 0)")
    page.mouse.move(0, 0)
    page.wait_for_timeout(300)
    page.screenshot(path=ROOT / "docs/images/page-scans.png", full_page=True)
