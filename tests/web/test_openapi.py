"""The OpenAPI document: it has every route, parameter and status, schemathesis finds no failure, and /docs shows
it. In addition, `Server.ask` checks that the document has every status that any test gets."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest

from api_checks import schemathesis
from app import create_app
from browser import find_browser
from digits.version import VERSION
from digits.web import read
from digits.web.bodies import DECODERS, FORM
from digits.web.openapi import ASSETS, describe
from digits.web.protocols import kserve, mlflow, tfserving
from digits.web.settings import Settings
from project import ROOT, SAMPLE
from service import Server, described_statuses

DESCRIBED = describe("0", 4)


def test_every_route_is_described_and_no_other(client: Any) -> None:
    routes = {
        (method, re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule))
        for rule in client.application.url_map.iter_rules()
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }
    described = {(method.upper(), path) for path, all in DESCRIBED["paths"].items() for method in all}
    assert described == routes, "see the paths in digits/web/openapi.yaml"


def test_every_route_is_in_the_documents() -> None:
    words = "\n".join(path.read_text() for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
    missing = {
        f"{method.upper()} {path}"
        for path, all in DESCRIBED["paths"].items()
        for method in all
        if f"`{method.upper()} {path}`" not in words
    }
    assert not missing, "neither the README nor docs/ has these routes"


def test_every_parameter_the_code_reads_is_described() -> None:
    read = set()
    for file in [ROOT / "app.py", *(ROOT / "digits").rglob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            # parameter(request, "name")
            match node:
                case ast.Call(func=called, args=[_, ast.Constant(value=str(name)), *_]) if ast.unparse(
                    called
                ) in ("parameter", "flag", "_whole"):
                    read.add(name)
    described = {
        parameter["name"]
        for all in DESCRIBED["paths"].values()
        for route in all.values()
        for parameter in route.get("parameters", [])
        if parameter["in"] == "query"
    }
    assert read
    assert read == described


def test_the_description_lists_what_the_code_accepts() -> None:
    paths, schemas = DESCRIBED["paths"], DESCRIBED["components"]["schemas"]
    assert set(paths["/predict"]["post"]["requestBody"]["content"]) == {*DECODERS, FORM}
    assert set(paths["/read"]["post"]["requestBody"]["content"]) == {*read.DECODERS, FORM}
    limits = {parameter["name"]: parameter["schema"] for parameter in paths["/read"]["post"]["parameters"]}
    assert limits["length"]["maximum"] == read.MAX_LENGTH
    assert limits["alternatives"]["maximum"] == read.MAX_ALTERNATIVES
    invoked = paths["/invocations"]["post"]["requestBody"]["content"]
    assert set(invoked) == {*mlflow.DECODERS, FORM}
    assert list(invoked["application/json"]["schema"]["properties"]) == list(mlflow.FORMS)
    assert set(paths["/docs/{name}"]["get"]["parameters"][0]["schema"]["enum"]) == {*ASSETS}
    asked = schemas["V2Request"]["properties"]
    tensor = asked["inputs"]["items"]["properties"]
    assert tensor["name"] == {"const": kserve.INPUT}
    assert set(tensor["datatype"]["enum"]) == set(kserve.TYPES)
    outputs = [output["name"] for output in (*kserve.OUTPUTS, kserve.UNSURE)]
    assert asked["outputs"]["items"]["properties"]["name"]["enum"] == outputs
    assert asked["outputs"]["maxItems"] == len(outputs)
    infer = paths[f"/v2/models/{kserve.NAME}/infer"]["post"]
    assert infer["parameters"][0]["name"] == kserve.HEADER
    assert schemas["V2Answer"]["properties"]["model_name"] == {"const": kserve.NAME}
    rows, columns = schemas["TFServingRequest"]["oneOf"]
    assert rows["properties"]["signature_name"]["enum"] == [tfserving.SIGNATURE, "", None]
    assert rows["properties"]["instances"]["anyOf"][-1]["items"]["required"] == [tfserving.INPUT]
    assert columns["properties"]["inputs"]["anyOf"][-1]["required"] == [tfserving.INPUT]


def test_placeholders_are_replaced_and_keys_are_only_described_if_required() -> None:
    for guarded in (False, True):
        document = json.dumps(describe("ab12", 4, guarded))
        assert not re.search(r"MAX_BATCH|VERSION|x-shared", document)
        assert f'"enum": [{0xAB12}]' in document
        assert (
            ("securitySchemes" in document) == ('"401"' in document) == ('"security"' in document) == guarded
        )


def test_an_undescribed_status_is_detected() -> None:
    assert described_statuses("POST", "/predict") >= {200, 400, 413, 415, 422}
    assert 418 not in described_statuses("POST", "/predict")
    assert described_statuses("DELETE", "/predict") == {405}
    assert described_statuses("GET", "/nowhere") == {404}
    assert described_statuses("GET", "/v2/models/mnist/versions/5/ready") >= {200, 404}


def test_the_description_names_the_limits_and_the_model() -> None:
    client = create_app(Settings(max_batch=3)).test_client()
    document = client.get("/openapi.json").json
    assert document["openapi"].startswith("3.1.")
    assert document["info"]["version"] == VERSION
    assert '"maxItems": 3}' in json.dumps(document)


def test_every_example_in_the_description_works(server: Server) -> None:
    document = server.ask("/openapi.json").json
    tried = 0
    for path, operations in document["paths"].items():
        example = (
            operations.get("post", {}).get("requestBody", {}).get("content", {}).get("application/json", {})
        )
        if "example" in example and "{" not in path:
            assert server.ask(path, example["example"]).status == 200
            tried += 1
    assert tried >= 5


def test_schemathesis_finds_nothing(start: Callable[..., Server]) -> None:
    # a small limit, so that requests above it can be generated quickly
    server = start(DIGITS_MAX_BATCH="2")
    output = schemathesis(server.url)
    # it does not test /openapi.json itself
    operations = sum(map(len, DESCRIBED["paths"].values())) - 1
    assert f"Tested: {operations}\n" in output
    cases, passed = re.search(r"(\d+) generated, (\d+) passed", output).groups()  # type: ignore[union-attr]
    assert int(cases) == int(passed) > 300


class Files(HTMLParser):
    """The files that a page loads, and whether it has inline scripts or styles."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.files: list[str] = []
        self.inline = False
        self.in_script = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.inline |= tag == "style" or any(name == "style" or name.startswith("on") for name in named)
        self.in_script = tag == "script"
        if address := named.get("src") or (named.get("href") if tag == "link" else None):
            self.files.append(address)

    def handle_endtag(self, tag: str) -> None:
        self.in_script = False

    def handle_data(self, data: str) -> None:
        self.inline |= self.in_script and bool(data.strip())


def test_the_page_only_uses_local_files_and_nothing_inline(server: Server) -> None:
    page = server.ask("/docs")
    assert page.headers["content-type"].startswith("text/html")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    found = Files(page.body.decode())
    assert not found.inline
    assert len(found.files) == 4
    for address in found.files:
        # relative to /docs, also below a proxy's path
        assert address.startswith(("docs/", "static/"))
        assert server.ask(f"/{address}").status == 200
    assert len(server.ask("/docs/swagger-ui-bundle.js").body) > 1_000_000
    assert server.ask("/docs/index.html").status == 404
    assert server.ask("/docs/..%2F__init__.py").status == 404


@pytest.mark.e2e
def test_a_browser_shows_the_description_and_tries_it(server: Server) -> None:
    from playwright.sync_api import sync_playwright

    errors: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=["--no-sandbox"])
        page = browser.new_page()
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(server.url + "/docs")
        page.wait_for_selector(".opblock")
        assert page.locator(".opblock").count() == sum(map(len, DESCRIBED["paths"].values()))
        block = page.locator(".opblock-post").first
        block.locator(".opblock-summary").first.click()
        block.locator("button.try-out__btn").click()
        block.locator("textarea.body-param__text").fill(json.dumps(SAMPLE))
        block.locator("button.execute").click()
        page.wait_for_selector(".live-responses-table .response-col_status")
        assert "predicted_digit" in page.locator(".live-responses-table").inner_text()
        browser.close()
    assert errors == []
