"""docs/verification.md says how many questions are asked, and at what rate; the code does that."""

from broker.kube.access import MAX_REVIEW_BYTES
from broker.model.access import MAX_RULES
from broker.model.expectations import MAX_QUESTIONS
from broker.model.strength import strong_questions
from broker.services.reconcile import RECHECK_SECONDS
from broker.services.verify import BURST, LOOK_QUESTIONS, LOOK_SECONDS, QPS
from tests.support.broker import ROOT
from tests.verification.test_strong_accounts import STRONG, STRONG_EVERYWHERE

PAGE = (ROOT / "docs" / "verification.md").read_text(encoding="utf-8")
MODEL = (ROOT / "docs" / "security-model.md").read_text(encoding="utf-8")


def test_questions_about_strength_are_as_many_as_the_page_says() -> None:
    """Each once; the page names the number twice."""
    questions = strong_questions("shop")

    assert len(questions) == len(set(questions))
    assert f"once an\nhour for each grant ({len(questions)} questions)" in PAGE
    assert f"about 10 a look and {len(questions)} an\nhour" in PAGE


def test_bounds_are_those_of_the_page() -> None:
    """In its table."""
    assert f"looking again, for each namespace | {QPS:g} a second on the average, {BURST} at once |" in PAGE
    assert f"| questions for one expectation | {MAX_QUESTIONS} |" in PAGE
    assert f"| {LOOK_QUESTIONS} a look |" in PAGE
    assert f"count as one | {MAX_RULES:,} |" in PAGE
    assert f"| the answer with an account's rules | {MAX_REVIEW_BYTES // 1024**2} MiB |" in PAGE
    assert f"| time for all questions of a look | {LOOK_SECONDS:g} s |" in PAGE


def test_as_many_grants_as_the_page_says_are_looked_at_in_time() -> None:
    """One question a grant and period, which is one and a half times the shortest on the average."""
    period, strength = 1.5 * RECHECK_SECONDS, len(strong_questions("shop")) / 3600

    assert f"{period * QPS:,.0f} grants with complete\nrules" in PAGE
    assert round(QPS / (10 / period + strength), -1) == 320
    assert "hour: 320 such grants" in PAGE
    assert round(QPS / (150 / period + strength)) == 54
    assert "about 150 a look: 54." in PAGE


def test_rights_that_make_strong_are_tried_as_many_as_the_model_says() -> None:
    """One real account for each."""
    assert f"`test_strong_account_is_refused` ({len(STRONG) + len(STRONG_EVERYWHERE)} rights)" in MODEL
