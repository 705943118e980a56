"""The review page in a real browser: clicked through, with the keyboard, without scripts, under attack."""

from dataclasses import replace

import pytest

pytest.importorskip("selenium")

from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from guardrail.actions.review_queue import ReviewQueue
from guardrail.files.records import new_id, utc_now
from guardrail.types import Decision, Message, Score, Ticket

SCRIPT = (
    "<script>document.title='pwned'</script><img src=x onerror=\"document.title='pwned'\">"
    "<svg onload=document.title='pwned'>"
)
LONG = (
    Message("system", "You are a helpful assistant.\nAnswer briefly."),
    Message("user", "What is the capital of France?"),
    Message("assistant", "Paris. " * 60),
    Message("user", f"I want to hurt them badly. {'Averylongwordwithoutanyspaces' * 8}"),
)


@pytest.fixture
def bob(browsers, site):
    made = browsers()
    yield made.login(site, "bob")
    made.quit()


def test_who_logs_in_sees_what_waits(ann, site, ticket):
    ticket_id = ticket("A prompt that waits")
    ann.login(site, "nobody")
    assert "not known" in ann.text
    ann.write("key", "gr-ann")
    ann.press("Log in")
    assert ann.path == "/review"
    assert "A prompt that waits" in ann.text
    ann.open(f"{site}/review/{ticket_id}")
    ann.press("Log out")
    assert ann.open(f"{site}/review").path.startswith("/login")


@pytest.mark.parametrize(
    ("button", "said", "answer"),
    [("Approve", "approved", ""), ("Refuse", "refused", ""), ("Send my answer", "answered", "Ask a doctor.")],
)
def test_a_click_decides(ann, site, ticket, button, said, answer):
    ticket_id = ticket()
    ann.login(site, "ann", f"/review/{ticket_id}")
    ann.write("note", "Seen.")
    ann.write("answer", answer)
    ann.press(button)
    assert f"You have {said} the ticket {ticket_id}" in ann.text
    ann.open(f"{site}/review/{ticket_id}")
    assert "ann decided at" in ann.text
    assert "Note: Seen." in ann.text
    assert answer in ann.text


def test_of_two_reviewers_the_second_sees_who_is_at_it(ann, bob, site, ticket):
    ticket_id = ticket()
    path = f"{site}/review/{ticket_id}"
    ann.login(site, "ann", f"/review/{ticket_id}")
    bob.open(path)
    assert "ann decides on this ticket" in bob.text
    assert not bob.driver.find_elements(By.NAME, "decision")
    ann.press("Not now")
    bob.press("Look again")
    bob.press("Refuse")
    ann.open(path)
    assert "bob decided at" in ann.text


def test_a_form_that_is_sent_again_does_nothing(ann, site, ticket):
    ticket_id = ticket()
    ann.login(site, "ann", f"/review/{ticket_id}")
    ann.press("Refuse")
    ann.driver.back()
    if ann.driver.find_elements(By.NAME, "decision"):
        ann.press("Approve")
        assert "was sent before" in ann.text
    assert "refused" in ann.open(f"{site}/review/{ticket_id}").text


def test_the_keyboard_is_enough(ann, site, ticket):
    ticket_id = ticket("By keyboard alone", conversation="c-keys")
    ann.open(f"{site}/login").driver.delete_all_cookies()
    ann.open(f"{site}/review/{ticket_id}")
    ann.driver.switch_to.active_element.send_keys("gr-ann")
    ann.follow(lambda: ann.driver.switch_to.active_element.send_keys(Keys.ENTER))
    ann.tab_to("note").send_keys("Typed.")
    ann.tab_to("Approve")
    refuse = ann.tab_to("Refuse")
    outline = refuse.value_of_css_property("outline-style")
    ann.follow(lambda: refuse.send_keys(Keys.ENTER))
    assert "You have refused" in ann.text
    assert outline == "solid"


def test_it_works_without_scripts(browsers, site, ticket):
    ticket_id = ticket()
    quiet = browsers(scripts=False)
    quiet.login(site, "ann", f"/review/{ticket_id}")
    quiet.write("answer", "By hand.")
    quiet.press("Send my answer")
    assert "You have answered" in quiet.text
    quiet.quit()


def test_what_people_wrote_runs_nothing(ann, site, hostile):
    ann.driver.get_log("browser")
    ann.login(site, "ann", f"/review/{hostile}")
    assert "by hand" in ann.text
    ann.write("note", SCRIPT)
    ann.write("answer", SCRIPT)
    ann.press("Approve")
    assert "You wrote an answer" in ann.text
    assert ann.driver.find_element(By.NAME, "note").get_attribute("value") == SCRIPT
    ann.press("Send my answer")
    ann.open(f"{site}/review")
    ann.open(f"{site}/review/{hostile}")
    assert "pwned" not in ann.driver.title
    for text in (SCRIPT, "<b>policy</b>", "<i>trait</i>"):
        assert text in ann.text
    injected = "main script, main img, main [onload], main [onerror], main b, main i"
    assert not ann.driver.find_elements(By.CSS_SELECTOR, injected)
    assert [one for one in ann.complaints() if "400" not in one] == []


@pytest.fixture
def hostile(site):
    """The id of a ticket in which everything is markup. No policy file allows such names."""
    score = Score(
        policy="<b>policy</b>",
        trait="<i>trait</i>",
        layer=2,
        score=3.0,
        threshold=1.0,
        fired=True,
        mode="enforce",
    )
    messages = (Message("user", SCRIPT), Message("assistant", SCRIPT, name=SCRIPT))
    made = replace(waiting(*messages), policy="<b>policy</b>", client=SCRIPT)
    decision = replace(made.decision, scores=(score,), warnings=(SCRIPT,))
    ReviewQueue().open(replace(made, decision=decision))
    return made.id


def waiting(*messages):
    """A ticket for these messages."""
    decision = Decision(status="evaluated", action="escalate")
    return Ticket(
        id=new_id(),
        policy="to-a-person",
        state="pending",
        created=utc_now(),
        decision=decision,
        messages=messages,
    )


def test_it_looks_right_on_screen_and_phone_in_light_and_dark(ann, site, ticket):
    ann.driver.delete_all_cookies()
    wrong = ann.open(f"{site}/login").look_at("login")
    for i in range(3):
        ticket(f"An earlier prompt, number {i}", conversation="c-look")
    ticket_id = ticket(conversation="c-look")
    ReviewQueue().open(long := waiting(*LONG))
    ann.login(site, "ann")
    wrong += ann.look_at("review")
    wrong += ann.open(f"{site}/review/{ticket_id}").look_at("ticket")
    wrong += ann.open(f"{site}/review/{long.id}").look_at("ticket-long")
    ann.press("Send my answer")
    wrong += ann.look_at("ticket-problem")
    ann.press("Refuse")
    wrong += ann.open(f"{site}/review/{long.id}").look_at("ticket-done")
    wrong += ann.open(f"{site}/review/none").look_at("not-found")
    assert wrong == []
