// Makes the dashboard live: the page itself is asked again, and parts of it are put in place of the old ones.
"use strict";

const EVERY_MS = 5000;
const AFTER_MS = 150;

async function page(address) {
  const response = await fetch(address, { headers: { accept: "text/html" } });
  if (!response.ok || response.redirected) throw new Error("the page cannot be read");
  return new DOMParser().parseFromString(await response.text(), "text/html");
}

async function refresh() {
  const live = document.getElementById("live");
  if (document.hidden || !live.checked) return;
  const fresh = await page(location.href.split("#")[0]);
  for (const old of document.querySelectorAll("[data-live]")) {
    const found = fresh.getElementById(old.id);
    if (found && !old.contains(document.activeElement)) old.replaceChildren(...found.childNodes);
  }
}

function tries(form) {
  const slider = form.querySelector("input[type=range]");
  const answers = form.querySelectorAll("[data-part]");
  let timer, last = 0;
  async function ask() {
    const own = ++last;
    const fresh = await page("/?" + new URLSearchParams(new FormData(form)));
    if (own !== last) return;
    const section = fresh.getElementById("policy-" + form.dataset.policy);
    for (const old of answers) {
      const found = section && section.querySelector(`[data-part="${old.dataset.part}"]`);
      if (found) old.replaceChildren(...found.childNodes);
    }
  }
  slider.addEventListener("input", () => {
    form.querySelector("output").textContent = Number(slider.value).toFixed(2);
    clearTimeout(timer);
    timer = setTimeout(() => ask().catch(told), AFTER_MS);
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    ask().catch(told);
  });
}

function told() {
  document.getElementById("news").textContent = "The page could not be brought up to date. Load it again.";
}

document.querySelectorAll("form.try").forEach(tries);
document.querySelector(".choose .check").hidden = false;
setInterval(() => refresh().catch(told), EVERY_MS);
