"""Nobody comes in without a session, nothing changes without a token, and pages say no more."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from starlette.routing import Route
from starlette.testclient import TestClient

from pipelines.cli import command
from pipelines.review.app import make_app
from pipelines.review.app import router as pages
from pipelines.review.auditing import router as audits
from pipelines.review.filters import Filter
from pipelines.review.guard import BODY, HEADERS, OPEN, SIGN_IN, Guard, Guarded
from pipelines.review.ruling import router as rulings
from pipelines.review.serve import Listening, listen
from pipelines.review.sessions import BY_NAME, FROM_ADDRESS, LASTS, WITHIN, Attempts, Sessions
from pipelines.review.users import ADMIN, REVIEWER, VIEWER, User, Users, add_user
from pipelines.rulings import Rulings
from pipelines.store import Store
from sanitizers.core.errors import PlanError, StoreError
from tests.review_store import open_store

PASSWORD = "a long enough password"
#: Every route, and every method that it takes.
ROUTES = [
    (method, route.path)
    for router in (pages, rulings, audits)
    for route in router.routes
    if isinstance(route, Route)
    for method in sorted(route.methods or ())
]
GUARDED = [(method, path) for method, path in ROUTES if path not in OPEN]
CHANGES = [(method, path) for method, path in ROUTES if method != "GET"]


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Site:
    """The application with a browser before it."""

    store: Store
    app: Guarded
    guard: Guard
    clock: Clock = field(default_factory=Clock)

    def browser(self, **settings: object) -> TestClient:
        return TestClient(self.app, base_url="http://127.0.0.1:4250", follow_redirects=False)

    def inside(self, role: str = ADMIN) -> TestClient:
        client = self.browser()
        client.cookies.set(self.guard.cookie, self.guard.sessions.open(User("ann", role)))
        return client

    def form(self, client: TestClient, **fields: str) -> dict[str, str]:
        session = self.guard.sessions.find(client.cookies[self.guard.cookie])
        assert session is not None
        return {"csrf": session.csrf} | fields

    def rulings(self) -> int:
        return len([*Rulings.of(self.store, "loans").read()])


@pytest.fixture(scope="module")
def users(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("users") / "users.toml"
    for name, role in (("ann", ADMIN), ("bob", REVIEWER), ("cem", VIEWER)):
        add_user(path, name, role, PASSWORD)
    return path


def make_site(root: Path, users: Users | None = None) -> Iterator[Site]:
    clock = Clock()
    guard = Guard(4250, users, sessions=Sessions(clock), attempts=Attempts(clock))
    store = open_store(root / "store", rows=100)
    app = make_app(store, guard)
    yield Site(store, app, guard, clock)
    app.app.state.desk.close()  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    yield from make_site(tmp_path_factory.mktemp("site"))


@pytest.fixture
def shared(tmp_path: Path, users: Path) -> Iterator[Site]:
    yield from make_site(tmp_path, Users.read(users))


def there(path: str) -> str:
    return path.replace("{dataset}", "loans")


def test_the_table_is_of_all_routes(site: Site) -> None:
    assert len(GUARDED) >= 12
    assert {path for _, path in CHANGES} >= {"/d/{dataset}/rule", "/d/{dataset}/publish"}
    # What is open gives nothing of the data away.
    assert {path for _, path in ROUTES} - {path for _, path in GUARDED} == OPEN


@pytest.mark.parametrize(("method", "path"), GUARDED, ids=str)
def test_without_a_session_every_route_refuses(site: Site, method: str, path: str) -> None:
    for cookie in ("", "nonsense", '"; x'):
        client = site.browser()
        if cookie:
            client.cookies.set(site.guard.cookie, cookie)
        answer = client.request(method, there(path))
        assert answer.status_code == 401
        assert "loans" not in answer.text


@pytest.mark.parametrize(("method", "path"), CHANGES, ids=str)
def test_without_its_token_no_form_changes_anything(site: Site, method: str, path: str) -> None:
    client, before = site.inside(), site.rulings()
    stranger = site.form(site.inside())["csrf"]
    row = site.app.app.state.desk.seat("loans").queue.rows(Filter())[0]  # type: ignore[attr-defined]
    fields = {"id": row.row_id, "say": "keep", "group": str(row.shared)}
    for token in ({}, {"csrf": ""}, {"csrf": "nonsense"}, {"csrf": stranger}):
        answer = client.request(method, there(path), data=fields | token)
        assert answer.status_code == 403
    # Nor with the token in another place, or in a form of another kind.
    right = site.form(client, **fields)
    for kind in ("text/plain", "application/json", "multipart/form-data; boundary=x"):
        answer = client.request(
            method, there(path), content=str(right), headers={"content-type": kind}
        )
        assert answer.status_code == 413
    answer = client.request(method, there(path), params=right, data=fields)
    assert answer.status_code == 403
    assert site.rulings() == before
    assert len(site.store.releases("loans")) == 1


@pytest.mark.parametrize(("method", "path"), CHANGES, ids=str)
@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
    ids=str,
)
def test_forms_of_other_sites_are_refused(
    site: Site, method: str, path: str, headers: dict[str, str]
) -> None:
    client, before = site.inside(), site.rulings()
    answer = client.request(method, there(path), data=site.form(client), headers=headers)
    assert answer.status_code == 403
    assert site.rulings() == before


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
def test_there_is_no_other_way_to_change_anything(site: Site, method: str) -> None:
    client = site.inside()
    assert client.request(method, "/d/loans/rule").status_code == 405


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil", "", "["]
)
def test_another_name_of_this_host_is_refused(site: Site, host: str) -> None:
    for path in ("/", "/enter", "/style.css"):
        assert site.inside().get(path, headers={"host": host}).status_code == 421


@pytest.mark.parametrize("host", ["localhost:4250", "127.0.0.1:4250", "[::1]:4250", "10.0.0.7"])
def test_its_own_names_are_known(site: Site, host: str) -> None:
    assert site.browser().get("/style.css", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "path", ["/", "/d/loans", "/style.css", "/nowhere", "/d/none", "/d/loans/row"]
)
def test_every_answer_says_what_a_browser_may_do_with_it(site: Site, path: str) -> None:
    for client in (site.browser(), site.inside()):
        headers = client.get(path).headers
        assert {name: headers[name] for name in HEADERS} == HEADERS
        assert "unsafe" not in headers["content-security-policy"]


def test_the_token_opens_a_session_that_scripts_cannot_read(site: Site) -> None:
    client = site.browser()
    assert client.get("/enter?token=nonsense").status_code == 401
    assert client.get("/enter").status_code == 401
    answer = client.get(f"/enter?token={site.guard.token}")
    said = answer.headers["set-cookie"].lower()
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert "httponly" in said
    assert "samesite=strict" in said
    assert site.guard.token not in said
    assert client.get("/d/loans").status_code == 200


def test_a_name_that_was_given_is_known_however_it_is_written() -> None:
    guard = Guard(1, names=frozenset({"Review.Example.org"}))
    assert guard.knows("review.example.ORG:8080")
    assert not guard.knows("example.org")


def test_each_start_has_a_token_of_its_own() -> None:
    tokens = {Guard(1).token for _ in range(20)}
    assert len(tokens) == 20
    assert min(map(len, tokens)) >= 43


def test_a_session_ends(site: Site) -> None:
    client = site.inside()
    assert client.get("/d/loans").status_code == 200
    client.post("/sign-out", data=site.form(client))
    assert client.get("/d/loans").status_code == 401
    client = site.inside()
    site.clock.now += LASTS + 1
    assert client.get("/d/loans").status_code == 401


def test_a_form_that_is_too_large_is_refused(site: Site) -> None:
    client = site.inside()
    answer = client.post("/d/loans/rule", data=site.form(client, why="x" * BODY))
    assert answer.status_code == 413


# ------------------------------------------------------------------ who may


@pytest.mark.parametrize(
    ("role", "rules", "publishes"),
    [(VIEWER, 403, 403), (REVIEWER, 303, 403), (ADMIN, 303, 200)],
)
def test_roles(shared: Site, role: str, rules: int, publishes: int) -> None:
    client = shared.inside(role)
    page = client.get("/d/loans").text
    row_id = shared.app.app.state.desk.seat("loans").queue.rows(Filter())[0].row_id  # type: ignore[attr-defined]
    assert ('name="say"' in page) == (rules == 303)
    assert ('name="say"' in client.get("/d/loans/audit").text) == (rules == 303)
    group = re.search(r"group\?group=(\w+)", page)
    assert group is not None
    key = shared.app.app.state.desk.seat("loans").held.key  # type: ignore[attr-defined]
    asked = {
        "/d/loans/rule": {"id": row_id, "say": "keep"},
        "/d/loans/rule-group": {"group": group[1], "key": key, "say": "quarantine"},
        "/d/loans/undo": {},
        "/d/loans/audit": due(shared) | {"say": "keep"},
    }
    for path, fields in asked.items():
        answer = client.post(path, data=shared.form(client, **fields))
        assert answer.status_code == rules, path
    answer = client.post("/d/loans/publish", data=shared.form(client))
    assert answer.status_code == publishes
    assert bool(shared.rulings()) == (rules == 303)
    assert len(shared.store.releases("loans")) == 1 + (publishes == 200)


def due(site: Site) -> dict[str, str]:
    """What a form says of the row that an audit is to look at."""
    seat = site.app.app.state.desk.seat("loans")  # type: ignore[attr-defined]
    return {"id": seat.due.row_id, "key": seat.held.key}


def test_an_audit_rules_on_the_row_that_is_due_and_no_other(shared: Site) -> None:
    client = shared.inside(REVIEWER)
    seat = shared.app.app.state.desk.seat("loans")  # type: ignore[attr-defined]
    first, second = (row.row_id for row in seat.draw.rows[:2])
    right = due(shared)
    assert right["id"] == first
    for wrong in (
        right | {"id": second, "say": "keep"},
        right | {"id": "no such row", "say": "keep"},
        right | {"say": "none"},
        right | {"say": ""},
        right | {"key": "another", "say": "keep"},
    ):
        assert client.post("/d/loans/audit", data=shared.form(client, **wrong)).status_code == 400
    assert not shared.rulings()
    form = shared.form(client, **right, say="keep")
    assert client.post("/d/loans/audit", data=form).status_code == 303
    # Nobody rules twice on what somebody else has just ruled on.
    assert client.post("/d/loans/audit", data=form).status_code == 400
    assert due(shared)["id"] == second
    # A ruling elsewhere is none of an audit, whatever its form says.
    plain = shared.form(client, id=second, say="keep", drawn="d" * 32)
    assert client.post("/d/loans/rule", data=plain).status_code == 303
    log = [*Rulings.of(shared.store, "loans").read()]
    assert [bool(ruling.drawn) for ruling in log] == [True, False]
    # The row was drawn all the same, and is shown with what was ruled.
    page = client.get("/d/loans/audit").text
    assert second in page
    assert "outside of the audit" in page
    undone = client.post("/d/loans/undo", data=shared.form(client))
    assert undone.status_code == 303
    undone = client.post("/d/loans/undo", data=shared.form(client))
    assert undone.headers["location"].startswith("/d/loans/audit")
    assert due(shared)["id"] == first


def test_users_sign_in_with_their_passwords(shared: Site) -> None:
    client = shared.browser()
    page = {"accept": "text/html"}
    assert client.get("/d/loans", headers=page).headers["location"] == SIGN_IN
    # The token of a server for one person opens nothing here.
    assert client.get(f"/enter?token={shared.guard.token}").status_code == 401
    for name, password in (
        ("ann", "wrong"),
        ("nobody", PASSWORD),
        ("", ""),
        ("ann", PASSWORD + "x"),
    ):
        answer = client.post(SIGN_IN, data={"name": name, "password": password})
        assert answer.status_code == 403
        assert "The name or the password is wrong" in answer.text
    answer = client.post(SIGN_IN, data={"name": "bob", "password": PASSWORD})
    assert answer.status_code == 303
    assert "Leave, bob" in client.get("/d/loans").text


def test_guessing_is_slowed_down(shared: Site) -> None:
    client = shared.browser()
    wrong = {"name": "ann", "password": "wrong"}
    for _ in range(FROM_ADDRESS):
        assert client.post(SIGN_IN, data=wrong).status_code == 403
    assert client.post(SIGN_IN, data=wrong | {"password": PASSWORD}).status_code == 429
    shared.clock.now += WITHIN + 1
    assert client.post(SIGN_IN, data=wrong | {"password": PASSWORD}).status_code == 303


def test_guessing_from_many_addresses_is_slowed_down_too() -> None:
    attempts = Attempts(Clock())
    allowed = [attempts.allow(f"10.0.0.{i}", "ann") for i in range(BY_NAME + 5)]
    assert allowed == [True] * BY_NAME + [False] * 5
    assert attempts.allow("10.0.1.1", "bob")


def test_passwords_are_hashed_and_others_may_not_write(users: Path) -> None:
    text = users.read_text()
    assert PASSWORD not in text
    assert text.count("$argon2id$") == 3
    assert users.stat().st_mode & 0o077 == 0
    known = Users.read(users)
    assert known.sign_in("bob", PASSWORD) == User("bob", REVIEWER)
    assert known.sign_in("bob", PASSWORD[:-1]) is None
    users.chmod(0o622)
    with pytest.raises(PlanError, match="others may write"):
        Users.read(users)
    users.chmod(0o600)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ann = 1",
        '[ann]\nrole = "king"\npassword = "$argon2id$"',
        '[ann]\nrole = "admin"\npassword = "secret"',
        '["<b>"]\nrole = "admin"\npassword = "$argon2id$"',
        "[ann",
    ],
)
def test_a_file_of_users_that_will_not_do(tmp_path: Path, text: str) -> None:
    path = tmp_path / "users.toml"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(PlanError):
        Users.read(path)


@pytest.mark.parametrize(
    ("name", "role", "password"),
    [
        ("a b", ADMIN, PASSWORD),
        ("ann", "king", PASSWORD),
        ("ann", ADMIN, "short"),
        ('a"', ADMIN, PASSWORD),
    ],
)
def test_a_user_that_will_not_do(tmp_path: Path, name: str, role: str, password: str) -> None:
    with pytest.raises(PlanError):
        add_user(tmp_path / "users.toml", name, role, password)
    assert not (tmp_path / "users.toml").exists()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "example.org", ""])
def test_strangers_are_not_let_in_without_users(host: str, users: Path) -> None:
    with pytest.raises(PlanError, match="there are no users"):
        Listening(host).check(None)
    Listening(host).check(users)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.8.8.8"])
def test_this_machine_needs_no_users(host: str) -> None:
    Listening(host).check(None)


def test_the_command_refuses_what_would_let_strangers_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(["review", "--store", str(tmp_path), "--host", "0.0.0.0"]) == 2
    assert "there are no users" in capsys.readouterr().err
    assert command(["review", "--store", str(tmp_path), "--add-user", "ann"]) == 2
    assert command(["review", "--store", str(tmp_path), "--certificate", "x"]) == 2


def test_who_comes_before_the_server_is_up_waits_for_it() -> None:
    with listen(Listening(port=0)) as bound, socket.create_connection(bound.getsockname(), 10):
        taken = Listening(port=bound.getsockname()[1])
        with pytest.raises(StoreError, match="in use"):
            listen(taken)


def test_the_command_serves_until_it_is_told_to_end(tmp_path: Path) -> None:
    open_store(tmp_path / "store", rows=60)
    words = ["review", "loans", "--store", str(tmp_path / "store"), "--no-open", "--port", "0"]
    code = f"import sys; sys.argv[1:] = {words!r}; from pipelines.cli import main; sys.exit(main())"
    with (
        subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) as ran,
        contextlib.ExitStack() as last,
    ):
        last.callback(ran.kill)
        assert ran.stderr is not None
        lines = iter(ran.stderr.readline, "")
        url = next(line for line in lines if "token=" in line).split("review: ")[1].strip()
        home = url.partition("/enter")[0]
        assert home.startswith("http://127.0.0.1:")
        with httpx.Client(follow_redirects=True, trust_env=False, timeout=60) as client:
            assert client.get(home).status_code == 401
            page = client.get(url)
            assert page.status_code == 200
            assert "wait for a ruling" in page.text
        ran.send_signal(signal.SIGTERM)
        assert ran.wait(60) == 143
        assert "Traceback" not in ran.stderr.read()
