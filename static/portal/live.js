// The live class page. The server renders everything; this script keeps the picture fresh and never moves a
// card under a finger. A socket message is only a hint: it makes the page ask for the current fragment, at most
// once a second. Without a socket it asks every five seconds and says so.
"use strict";

const HINT_MS = 1000;
const POLL_MS = 5000;
const QUIET_MS = 15000;
const LIVE_AGE_S = 3;
const TOAST_MS = 10000;
const RETRY_MS = [500, 1000, 2000, 5000, 10000];

const root = document.getElementById("live-root");
const toasts = document.getElementById("toasts");
const badge = document.getElementById("fresh");
const pill = document.getElementById("updates");
const announcer = document.getElementById("announcer");

let cursor = root.dataset.cursor;
let socket = null;
let attempts = 0;
let pictureAt = Date.now();
let offlineSince = null;
let asked = 0;
let timer = null;
let loading = false;
let again = false;
let held = null;
let lastAnnounced = 0;
let touching = false;
let tapped = null; // the card whose button was pressed last: it alone changes while the list is frozen

// ---- freshness: the age counts up by itself, so a frozen page shows

function showFreshness() {
  const age = Math.max(0, Math.round((Date.now() - pictureAt) / 1000));
  const open = socket !== null && socket.readyState === WebSocket.OPEN;
  const state = open ? "live" : offlineSince === null ? "polling" : "offline";
  if (badge.dataset.state !== state) {
    badge.dataset.state = state;
    badge.className = `fresh fresh-${state}`;
    badge.querySelector("use").setAttribute("href", badge.dataset[`icon${state[0].toUpperCase()}${state.slice(1)}`]);
  }
  const words = badge.querySelector("[data-words]");
  if (state === "offline") {
    const when = new Date(offlineSince).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
    words.textContent = `${badge.dataset.wordOffline} ${when}`;
  } else {
    const word = state === "live" ? badge.dataset.wordLive : badge.dataset.wordPolling;
    words.textContent = state === "live" && age <= LIVE_AGE_S ? word : `${word} · ${age} s`;
  }
  document.getElementById("note-polling").hidden = state !== "polling" || attempts < 2;
  document.getElementById("note-offline").hidden = state !== "offline";
}

function showMinutes() {
  for (const element of root.querySelectorAll("[data-since]")) {
    const seconds = Math.max(0, Math.floor((Date.now() - Date.parse(element.dataset.since)) / 1000));
    const text = seconds < 60 ? `${seconds} s` : seconds < 3600 ? `${Math.floor(seconds / 60)} min`
      : `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
    if (element.textContent !== text) element.textContent = text;
  }
}

// ---- fetching the picture

function refreshSoon() {
  if (timer !== null) return;
  timer = setTimeout(refresh, Math.max(0, HINT_MS - (Date.now() - asked)));
}

async function refresh() {
  timer = null;
  if (loading) { again = true; return; }
  loading = true;
  asked = Date.now();
  try {
    const answer = await fetch(root.dataset.fragment, {
      headers: { "X-Requested-With": "fetch" }, signal: AbortSignal.timeout(8000), redirect: "manual",
    });
    if (answer.type === "opaqueredirect" || answer.status === 403) { location.reload(); return; }
    if (!answer.ok) throw new Error(String(answer.status));
    apply(await answer.text());
    pictureAt = Date.now();
    offlineSince = null;
  } catch {
    offlineSince ??= Date.now();
  } finally {
    loading = false;
    showFreshness();
    if (again) { again = false; refreshSoon(); }
  }
}

const frozen = () => touching || document.getElementById("signals").contains(document.activeElement);

function apply(html) {
  const fresh = new DOMParser().parseFromString(html, "text/html").body.firstElementChild;
  for (const id of ["tally", "map", "rest", "projected"]) swap(id, fresh);
  if (cursor !== fresh.dataset.cursor) announce(fresh.dataset.announcement);
  cursor = fresh.dataset.cursor;
  if (tapped !== null) replaceCard(tapped, fresh);
  tapped = null;
  if (frozen() && changed(fresh) > 0) {
    held = fresh;
    const count = changed(fresh);
    pill.querySelector("[data-words]").textContent = `${count} ${count === 1 ? pill.dataset.one : pill.dataset.many}`;
    pill.hidden = false;
  } else {
    release(fresh);
  }
  showMinutes();
}

function swap(id, fresh) {
  const mine = document.getElementById(id);
  const theirs = fresh.querySelector(`#${id}`);
  if (mine.outerHTML === theirs.outerHTML) return;
  const seat = mine.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  mine.replaceWith(theirs);
  if (seat) theirs.querySelector(`[data-key="${CSS.escape(seat)}"]`)?.focus();
}

function keys(element) {
  return new Map([...element.querySelectorAll("#signals [data-card]")].map((card) => [card.dataset.card, card.dataset.version]));
}

function changed(fresh) {
  const mine = keys(root);
  const theirs = keys(fresh);
  let count = 0;
  for (const [card, version] of theirs) if (mine.get(card) !== version) count += 1;
  for (const card of mine.keys()) if (!theirs.has(card)) count += 1;
  return count;
}

function replaceCard(key, fresh) {
  const pattern = `#signals [data-card="${CSS.escape(key)}"]`;
  const mine = root.querySelector(pattern);
  const theirs = fresh.querySelector(pattern)?.cloneNode(true);
  if (!mine) return;
  if (theirs) {
    const focused = mine.contains(document.activeElement);
    mine.replaceWith(theirs);
    window.htmx?.process(theirs);
    if (focused) theirs.focus();
  } else {
    mine.closest("li").remove();
  }
}

function release(fresh) {
  held = null;
  pill.hidden = true;
  const mine = document.getElementById("signals");
  const theirs = fresh.querySelector("#signals");
  const card = document.activeElement?.closest?.("[data-card]")?.dataset.card;
  const verb = document.activeElement?.dataset?.verb;
  mine.replaceWith(theirs);
  window.htmx?.process(theirs);
  if (!card) return;
  const same = theirs.querySelector(`[data-card="${CSS.escape(card)}"]`);
  (same?.querySelector(`[data-verb="${verb}"]`) ?? same)?.focus();
}

function announce(sentence) {
  if (!sentence || Date.now() - lastAnnounced < 10000) return;
  lastAnnounced = Date.now();
  announcer.textContent = sentence;
}

// ---- the socket

function connect() {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  socket = new WebSocket(`${scheme}://${location.host}${root.dataset.socket}?after=${encodeURIComponent(cursor)}`);
  socket.addEventListener("open", () => { attempts = 0; refreshSoon(); showFreshness(); });
  socket.addEventListener("message", (event) => {
    const message = JSON.parse(event.data);
    pictureAt = Date.now();
    if (message.type !== "hello") refreshSoon();
  });
  socket.addEventListener("close", (event) => {
    socket = null;
    showFreshness();
    if (event.code === 4403) { location.reload(); return; }
    const wait = RETRY_MS[Math.min(attempts, RETRY_MS.length - 1)];
    attempts += 1;
    setTimeout(connect, wait / 2 + Math.random() * wait / 2);
  });
}

// ---- nothing moves under a finger

document.addEventListener("pointerover", (event) => {
  touching = Boolean(event.target.closest?.("#signals"));
  letGo();
});
document.addEventListener("focusout", () => setTimeout(letGo, 0));
pill.addEventListener("click", () => { if (held) release(held); });

function letGo() {
  if (held && !frozen()) release(held);
}

// ---- actions: htmx posts the form, the answer is a toast; then the picture is fetched at once

document.body.addEventListener("htmx:afterRequest", (event) => {
  if (event.detail.requestConfig.verb === "get") return;
  tapped = event.target.closest?.("[data-card]")?.dataset.card ?? null;
  if (timer !== null) { clearTimeout(timer); timer = null; }
  refresh();
});
document.body.addEventListener("htmx:responseError", (event) => say(event.detail.xhr.getResponseHeader("X-Toast") || toasts.dataset.failed));
document.body.addEventListener("htmx:sendError", () => say(toasts.dataset.failed));

function say(text) {
  const toast = document.createElement("div");
  toast.className = "toast";
  toast.append(Object.assign(document.createElement("span"), { textContent: text }));
  toasts.append(toast);
}

new MutationObserver((records) => {
  for (const toast of records.flatMap((record) => [...record.addedNodes])) if (toast.nodeType === 1) expire(toast, TOAST_MS);
}).observe(toasts, { childList: true });

function expire(toast, left) {
  const started = Date.now();
  const end = setTimeout(() => toast.remove(), left);
  const hold = () => {
    clearTimeout(end);
    const rest = Math.max(1000, left - (Date.now() - started));
    toast.addEventListener("pointerleave", () => expire(toast, rest), { once: true });
  };
  toast.addEventListener("pointerenter", hold, { once: true });
}

// ---- keyboard

const VERBS = { w: "on-my-way", h: "helped", n: "dismiss", s: "snooze" };

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, textarea, select")) return;
  const key = event.key.toLowerCase();
  if (key === "u") { toasts.querySelector("[data-verb=undo]")?.click(); return; }
  if (key === "escape") {
    const menu = event.target.closest("details[open]");
    if (menu) { menu.open = false; menu.querySelector("summary").focus(); }
    return;
  }
  const card = event.target.closest("[data-card]");
  if (card) onCard(card, key, event);
  else if (event.target.closest("#map .seats")) onSeat(event);
});

function onCard(card, key, event) {
  if (key === "j" || key === "k") {
    const cards = [...document.querySelectorAll("#signals [data-card]")];
    cards[cards.indexOf(card) + (key === "j" ? 1 : -1)]?.focus();
    event.preventDefault();
  } else if (VERBS[key]) {
    card.querySelector(`[data-verb="${VERBS[key]}"]`)?.click();
    event.preventDefault();
  }
}

function onSeat(event) {
  const all = [...document.querySelectorAll("#map .seats > li")];
  const width = Number(document.querySelector("#map .seats").dataset.columns);
  const at = all.indexOf(event.target.closest("li"));
  const start = at - (at % width);
  const row = [...Array(width).keys()].map((i) => start + i).filter((i) => all[i]?.querySelector("a"));
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -width, ArrowDown: width }[event.key];
  let next = null;
  if (event.key === "Home") next = row.at(0);
  else if (event.key === "End") next = row.at(-1);
  else if (step) for (let i = at + step; i >= 0 && i < all.length; i += step) if (all[i].querySelector("a")) { next = i; break; }
  if (next === null || next === undefined) return;
  event.preventDefault();
  const link = all[next].querySelector("a");
  for (const other of document.querySelectorAll("#map .seats a")) other.tabIndex = -1;
  link.tabIndex = 0;
  link.focus();
}

// ---- projector mode: names go, for as long as the switch is on in this tab

const projector = document.getElementById("projector");
projector.addEventListener("click", () => {
  const on = projector.getAttribute("aria-checked") !== "true";
  projector.setAttribute("aria-checked", String(on));
  document.getElementById("with-names").hidden = on;
  document.getElementById("without-names").hidden = !on;
});

setInterval(() => { showMinutes(); showFreshness(); }, 1000);
setInterval(() => {
  const open = socket !== null && socket.readyState === WebSocket.OPEN;
  if (Date.now() - asked >= (open ? QUIET_MS : POLL_MS)) refresh();
}, 1000);
showMinutes();
showFreshness();
connect();
