// The sample's own script: an app's view of gaia.js.
"use strict";

const given = new URLSearchParams(location.hash.slice(1));
const said = document.getElementById("said");
const say = (words) => { said.textContent = words; };

const WORDS = {
  sent: "Your teacher has been told.",
  seen: "Your teacher has seen it.",
  coming: "Your teacher is coming.",
  done: "Your teacher has helped.",
};

function begin() {
  GAIA.init({ url: given.get("url"), app: "fractions-lab", student: given.get("student"), token: given.get("token"), debug: true });
  GAIA.item("item-8", "fractions");
  setInterval(() => {
    for (const [name, count] of Object.entries(GAIA.status())) {
      const shown = document.getElementById(name);
      if (shown) shown.value = count;
    }
  }, 500);
}

document.getElementById("exercise").addEventListener("submit", (event) => {
  event.preventDefault();
  const correct = /half|1\/2/i.test(document.getElementById("answer").value); // judged here; the text stays here
  GAIA.attempt({ correct });
  say(correct ? "Right." : "Not yet. Draw both as bars.");
});
document.getElementById("hint").addEventListener("click", () => {
  GAIA.hint({ level: 1 });
  say("Make both eighths.");
});
document.getElementById("help").addEventListener("click", () => {
  say("…");
  GAIA.helpPlease((state) => say(WORDS[state] || "Nobody could be told. Please ask aloud."));
});
for (const button of document.querySelectorAll("[data-stars]")) {
  button.addEventListener("click", () => {
    GAIA.rate(Number(button.dataset.stars));
    say("Thank you.");
  });
}

const sdk = document.createElement("script");
sdk.src = `${given.get("url")}/static/usability/gaia.js`;
sdk.crossOrigin = "anonymous";
sdk.addEventListener("load", begin);
document.head.append(sdk);
