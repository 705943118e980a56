"""The dashboard in a real browser: slider, forms without scripts, looks, and how soon it is there."""

import pytest

pytest.importorskip("selenium")

from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait
from traffic import lines, logged, traffic, write

from guardrail import Guard

MANY = 100_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("dashboard")


@pytest.fixture(scope="module")
def guard(folder):
    """The built-in model, one of whose policies is a shadow, with a log of a busy day."""
    with Guard.from_pretrained("demo", logged(folder)) as guard:
        write(folder / "audit.jsonl", traffic(guard.active.plan, 2000, harmful=0.05, every_s=0))
        yield guard


@pytest.fixture(scope="module")
def board(guard, serving_pages):
    return serving_pages(guard)


def until(browser, what):
    return WebDriverWait(browser.driver, 10).until(lambda _: what())


def slider(browser, policy="to-a-person"):
    return browser.driver.find_element(By.CSS_SELECTOR, f"#policy-{policy} input[type=range]")


def test_the_slider_answers_while_it_moves(ann, board):
    ann.login(board, "boss", "/")
    before = ann.driver.find_element(By.TAG_NAME, "html").id
    knob = slider(ann)
    part = ann.driver.find_element(By.ID, "policy-to-a-person")
    for end in (Keys.HOME, Keys.END):
        knob.send_keys(end)
        until(ann, lambda: f"At {float(knob.get_attribute('value')):.2f} it would have fired" in part.text)
    assert ann.driver.find_element(By.TAG_NAME, "html").id == before
    assert ann.driver.switch_to.active_element == knob
    assert part.find_elements(By.CSS_SELECTOR, "line.tried")
    assert ann.complaints() == []


def test_it_works_without_scripts(browsers, board):
    quiet = browsers(scripts=False)
    quiet.login(board, "boss", "/")
    slider(quiet).send_keys(Keys.HOME)
    button = quiet.driver.find_element(By.CSS_SELECTOR, "#policy-to-a-person button")
    quiet.follow(button.click)
    assert "it would have fired on" in quiet.driver.find_element(By.ID, "policy-to-a-person").text
    quiet.press("Preview enforcing")
    assert "+    mode: enforce" in quiet.driver.find_element(By.ID, "promotion").text
    Select(quiet.driver.find_element(By.ID, "last")).select_by_value("1000")
    quiet.press("Show")
    assert "the newest 1,000 requests" in quiet.text
    quiet.quit()


def test_new_decisions_come_by_themselves(ann, board, guard, folder):
    ann.login(board, "boss", "/")
    (record,) = traffic(guard.active.plan, 1, harmful=1.0, broken=0, seed=7)
    with (folder / "audit.jsonl").open("ab") as log:
        log.writelines(line + b"\n" for line in lines([record]))
    until(ann, lambda: record.id in ann.driver.find_element(By.ID, "latest").text)


def test_it_looks_right_everywhere(ann, board):
    ann.login(board, "boss", "/")
    ann.open(f"{board}/?policy=to-a-person&condition=0&threshold=2.20&promote=careful-facts")
    assert ann.look_at("dashboard") == []


def test_a_hundred_thousand_records_are_painted_at_once(ann, guard, folder, serving_pages):
    some = list(lines(traffic(guard.active.plan, 5000, every_s=0, seed=1)))
    with (folder / "audit.jsonl").open("wb") as log:
        for part in range(MANY // 5000):
            # the same scores under other ids: making them takes longer than reading them
            log.writelines(line.replace(b'"id":"0', b'"id":"%02x' % part) + b"\n" for line in some)
    painted = [first_paint(ann, serving_pages(guard)) for _ in range(3)]
    print(f"first paint after {', '.join(f'{one:.0f}' for one in painted)} ms")
    # other work on the machine only adds to it
    assert min(painted) < 1000


def first_paint(browser, site):
    """Milliseconds until something is to be seen, on a server that has read nothing yet."""
    browser.login(site, "ann").open(f"{site}/")
    assert "requests were blocked" in browser.text
    return browser.driver.execute_script(
        "return performance.getEntriesByName('first-contentful-paint')[0].startTime"
    )
