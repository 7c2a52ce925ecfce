// The seat map of the settings page, by pointer and by keyboard. The table's inputs are the form's truth:
// without this script they are filled in by hand.
"use strict";

const form = document.getElementById("seats-form");
const editor = document.getElementById("seat-editor");
const inputs = [...form.querySelectorAll("[data-seat]")];
const places = [...editor.querySelectorAll("[data-place]")];
const unseated = document.getElementById("unseated");
const status = document.getElementById("seat-status");
const columns = Number(editor.querySelector("[data-columns]").dataset.columns);
const first = new Map(inputs.map((input) => [input, input.value]));
let picked = null;

const at = (place) => inputs.find((input) => input.value.trim().toUpperCase() === place);

function say(words, values = {}) {
  status.textContent = words.replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
}

function short(name) {
  const [given, ...rest] = name.split(" ");
  return rest.length ? `${given} ${rest[rest.length - 1][0]}.` : given;
}

function dress(button, input, place) {
  button.textContent = "";
  const label = document.createElement("span");
  label.textContent = input ? short(input.dataset.name) : place;
  button.append(label);
  button.classList.toggle("seat-empty", !input);
  button.setAttribute("aria-pressed", String(Boolean(input) && input === picked));
  button.setAttribute("aria-label", input ? `${input.dataset.name}, ${place}` : `${place}, ${form.dataset.free}`);
}

function show() {
  for (const button of places) dress(button, at(button.dataset.place), button.dataset.place);
  const known = new Set(places.map((button) => button.dataset.place));
  unseated.replaceChildren(...inputs.filter((input) => !known.has(input.value.trim().toUpperCase())).map((input) => {
    const item = document.createElement("li");
    const button = document.createElement("button");
    button.type = "button";
    button.className = "chip";
    button.draggable = true;
    button.dataset.pupil = input.name;
    button.textContent = short(input.dataset.name) + (input.value ? ` (${input.value})` : "");
    button.setAttribute("aria-pressed", String(input === picked));
    item.append(button);
    return item;
  }));
  document.getElementById("off-map").hidden = unseated.children.length === 0;
  const changed = inputs.filter((input) => input.value !== first.get(input)).length;
  const told = document.getElementById("seat-changes");
  told.textContent = changed ? `${changed} ${told.dataset.words}` : "";
}

function pick(input) {
  picked = input;
  say(form.dataset.picked, { name: input.dataset.name });
  show();
}

function put(place) {
  const other = at(place);
  const from = picked.value;
  if (other && other !== picked) other.value = from;
  picked.value = place;
  const values = { name: picked.dataset.name, place, other: other?.dataset.name, other_place: from };
  say(other && other !== picked && from ? form.dataset.swapped : form.dataset.moved, values);
  picked = null;
  show();
}

function press(button) {
  const place = button.dataset.place;
  const here = place ? at(place) : inputs.find((input) => input.name === button.dataset.pupil);
  if (picked === null) {
    if (here) pick(here);
  } else if (picked === here) {
    drop();
  } else if (place) {
    put(place);
  } else {
    pick(here);
  }
}

function drop() {
  picked = null;
  say(form.dataset.dropped);
  show();
}

function roam(event) {
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
  const index = places.indexOf(event.target);
  if (event.key === "Escape" && picked) {
    drop();
  } else if ((event.key === "Delete" || event.key === "Backspace") && index >= 0 && at(places[index].dataset.place)) {
    const input = at(places[index].dataset.place);
    input.value = "";
    picked = null;
    say(form.dataset.off, { name: input.dataset.name });
    show();
  } else if (event.key in steps && index >= 0) {
    const next = places[index + steps[event.key]];
    if (!next) return;
    for (const button of places) button.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  } else {
    return;
  }
  event.preventDefault();
}

editor.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  const key = button.dataset.place ?? button.dataset.pupil;
  press(button);
  const again = [...editor.querySelectorAll("button")].find((one) => (one.dataset.place ?? one.dataset.pupil) === key);
  (again ?? places.find((one) => one.tabIndex === 0)).focus();
});
editor.addEventListener("keydown", roam);
editor.addEventListener("dragstart", (event) => {
  const button = event.target.closest("button");
  const input = button?.dataset.place ? at(button.dataset.place) : inputs.find((one) => one.name === button?.dataset.pupil);
  if (!input) {
    event.preventDefault();
    return;
  }
  picked = input;
  event.dataTransfer.setData("text/plain", input.dataset.name);
});
editor.addEventListener("dragover", (event) => {
  if (event.target.closest("[data-place]")) event.preventDefault();
});
editor.addEventListener("drop", (event) => {
  const button = event.target.closest("[data-place]");
  if (!button || !picked) return;
  event.preventDefault();
  put(button.dataset.place);
});
for (const input of inputs) input.addEventListener("input", show);

places.forEach((button, index) => { button.tabIndex = index ? -1 : 0; });
editor.hidden = false;
show();
