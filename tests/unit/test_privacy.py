"""Private strings are found by their form, and nothing that is written down repeats them."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.corpus import Row
from storage.hits import PRIVACY_SCHEMA
from tasks import privacy
from tasks.privacy import find_private, privacy_check, shape
from tasks.release_config import PrivacyConfig

# put together here, so that no scanner of this repository takes them for real ones
SECRETS = {
    "AWS Access Key": "AKIA" + "IOSFODNN7EXAMPLE",
    "GitHub Token": "ghp_" + "a1B2" * 9,
    "GitLab Token": "glpat-" + "a1B2" * 6,
    "GitHub Fine-grained Token": "github_pat_" + "a1B2_" * 15,
    "Private Key": "-----BEGIN RSA " + "PRIVATE KEY-----",
    "Private Key (encrypted)": "-----BEGIN ENCRYPTED " + "PRIVATE KEY-----",
    "Basic Auth Credentials": "postgres://joe:" + "s3cr3tword@db.local/x",
    "OpenAI Token": "sk-" + "a1B2" * 5 + "T3BlbkFJ" + "c3D4" * 5,
    "Anthropic API Key": "sk-ant-" + "api03-" + "a1B2" * 8,
    "Google API Key": "AIza" + "a1B2c" * 7,
    "Hugging Face Token": "hf_" + "abCd" * 8 + "ab",
    "Slack Token": "xoxb-" + "123456789012-abcdefghij",
    "Stripe Access Key": "sk_live_" + "a1B2" * 6,
    "JSON Web Token": "eyJhbGciOiJIUzI1NiJ9." + "eyJzdWIiOiIxMjM0In0." + "c2lnbmF0dXJl",
    "Telegram Bot Token": "110201543:" + "AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsawT"[:35],
}
EMAILS = ["jane.doe@company.org", "j+tag@mail.company.co.uk", "jörg@müller.de", "A_B@x-y.io"]
NO_EMAILS = [
    "someone@example.com",
    "a@b",
    "logo@2x.png",
    "@decorator",
    "x = a @ b.T",
    "root@localhost",
    "me@host.test",
    "git@",
]
PHONES = ["+44 20 7946 0958", "(650) 253-0000", "650.253.0000", "+16502530000", "+1 (650) 253 0000"]
NO_PHONES = [
    "6502530000",
    "on 2024-01-15 12:30:45",
    "10.0.0.1",
    "3.14159265358979",
    "978-3-16-148410-0",
    "4111 1111 1111 1111",
    "the years 2010 2011 2012",
]


def row(text, row_id="r"):
    return Row(row_id, text, 0, None, "rows.jsonl", 1, "", 1)


def kinds(text, **settings_):
    return [one.kind for one in find_private(text, **settings_)]


@pytest.mark.parametrize("email", EMAILS)
def test_emails(email):
    text = f"write to <{email}>, please"
    assert [text[one.start : one.stop] for one in find_private(text)] == [email]


@pytest.mark.parametrize("text", NO_EMAILS)
def test_no_emails(text):
    assert "email" not in kinds(f"see {text} there")


@pytest.mark.parametrize("phone", PHONES)
def test_phones(phone):
    text = f"call {phone} today"
    assert [text[one.start : one.stop] for one in find_private(text)] == [phone]


@pytest.mark.parametrize("text", NO_PHONES)
def test_no_phones(text):
    assert kinds(f"see {text} there") == []


def test_phone_regions():
    text = "Ruf 030 901820 an."
    assert kinds(text) == []
    assert kinds(text, phone_regions=("DE",)) == ["phone"]
    assert kinds("call (650) 253-0000", phone_regions=()) == []
    assert kinds("call +1 650 253 0000", phone_regions=()) == ["phone"]
    with pytest.raises(ValueError, match=r"phone_regions has \['XX'\]"):
        privacy_check(PrivacyConfig(phone_regions=("US", "XX")))


@pytest.mark.parametrize("name", SECRETS)
def test_secrets(name):
    text = f"the key is {SECRETS[name]} and more"
    found = [one for one in find_private(text, ("secret",)) if one.detector == name]
    assert found
    assert all(text[one.start : one.stop] in SECRETS[name] for one in found)


@pytest.mark.parametrize("name", ["GitHub Token", "GitLab Token"])
def test_the_whole_of_a_secret_is_found_not_only_its_first_letters(name):
    text = f"the key is {SECRETS[name]} and more"
    (found,) = find_private(text, ("secret",))
    assert text[found.start : found.stop] == SECRETS[name]


def test_a_private_key_is_found_with_its_lines():
    key = "BEGIN RSA " + "PRIVATE KEY-----\nMIIEow\nAb1=\n-----END RSA " + "PRIVATE KEY-----"
    (found,) = find_private(f"-----{key} and more", ("secret",))
    assert (found.start, found.stop) == (5, 5 + len(key))


def test_words_that_a_password_is_made_of_are_no_secrets_elsewhere():
    text = "postgres://u:the@db.local/x: the cat and the other thing"
    (found,) = find_private(text, ("secret",))
    assert text[found.start : found.stop] == "://u:the@"


def test_a_token_without_its_optional_part_is_found():
    assert kinds("glcbt-" + "a1B2" * 6, kinds=("secret",)) == ["secret"]


@pytest.mark.parametrize("name", SECRETS)
def test_looking_only_where_a_secret_can_be_loses_none(name, monkeypatch):
    text = f"x {SECRETS[name]}\n"
    quick = find_private(text)
    monkeypatch.setattr(privacy, "_may_hold_secret", lambda text: True)
    assert find_private(text) == quick


@given(st.text(max_size=200))
@settings(deadline=None)
def test_any_text(text):
    found = find_private(text)
    assert all(0 <= one.start < one.stop <= len(text) for one in found)


@pytest.mark.parametrize(
    "hard", ["a" * 200_000, "a." * 100_000, "1 " * 100_000, "@a." * 60_000, "://" * 99_000]
)
@pytest.mark.timeout(20)
def test_long_runs_take_no_long_time(hard):
    find_private(hard, ("email", "secret"))


def test_prose_and_code_are_left_alone():
    import inspect
    import statistics

    assert find_private(inspect.getsource(statistics), ("email", "secret")) == []


@given(st.text(min_size=1, max_size=80))
def test_shapes_hold_no_letter_and_no_digit(text):
    assert set(shape(text, "secret")) == {"*"}
    assert {c for c in shape(text, "email") if c.isalnum()} <= {"x", "0"}


def test_nothing_written_down_has_a_secret():
    private = [*EMAILS, *PHONES, *SECRETS.values()]
    check = privacy_check(PrivacyConfig(action="remove"))
    faults = check.faults([row(f"see {text} .", f"r{n}") for n, text in enumerate(private)])
    assert all(faults)
    written = json.dumps(check.hits().to_pylist()) + json.dumps(faults) + json.dumps(check.facts)
    assert not [text for text in private if text in written]
    assert "jane" not in written


def test_actions():
    rows = [row("jane.doe@company.org", "a"), row("nothing", "b"), row("+16502530000", "c")]
    remove = privacy_check(PrivacyConfig(action="remove", kinds=("email",)))
    assert remove.faults(rows) == ["1 x e-mail address", None, None]
    report = privacy_check(PrivacyConfig(action="report"))
    assert report.faults(rows) == [None, None, None]
    assert report.faults(rows) == [None, None, None]
    hits = report.hits()
    assert hits.schema.equals(PRIVACY_SCHEMA)
    assert hits.to_pylist() == [
        {
            "row_id": "a",
            "kind": "email",
            "detector": "e-mail address",
            "start": 0,
            "n_chars": 20,
            "shape": "xxxx.xxx@xxxxxxx.xxx",
        },
        {
            "row_id": "c",
            "kind": "phone",
            "detector": "phone number",
            "start": 0,
            "n_chars": 12,
            "shape": "+00000000000",
        },
    ]
    assert report.hits({"c"}).column("row_id").to_pylist() == ["c"]
    assert privacy_check(PrivacyConfig(action="off")) is None
