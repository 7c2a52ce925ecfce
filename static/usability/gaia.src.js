// GAIA in an app's page: tells what a pupil does there, never what the pupil types. See docs/sdk.md.
//
// This is the source; gaia.js is made of it by `sh .ci/sdk` and is what pages load: a plain script that makes the
// global GAIA. gaia.mjs exports the same by name. What happens goes this way:
// listeners count -> rows, once a second -> a batch with an id, every two seconds -> a queue, in memory and in
// localStorage -> one request at a time. The id makes repeating safe: the server stores a batch once.
(() => {
  "use strict";

  const VERSION = "1.0.0";
  const BATCH_ROWS = 50;
  const BATCH_CHARS = 16000;
  const QUEUE_CHARS = 500000;
  const KEPT_MS = 3600000;
  const BEACON_CHARS = 60000; // browsers give all beacons of a page 64 KiB
  const BACKOFF_MS = 60000;
  const TIMEOUT_MS = 20000;
  const HELP_MS = 1800000;
  const RAGE = { clicks: 3, ms: 1000, px: 30 };
  const DEAD_MS = 2500;
  const ERROR_MS = 100;

  const SHAPES = {
    item: isId, skill: isId, element: isId,
    correct: isFlag, similar: isFlag, is_bottom: isFlag,
    hint_level: isNumber, attempt: isNumber, duration_ms: isNumber, bucket_ms: isNumber,
  };
  const FIELDS = "input:not([type=button],[type=submit],[type=reset],[type=image]),textarea,select,option,label,"
    + "canvas,video,audio,iframe,object,embed,[contenteditable]:not([contenteditable=false]),[data-gaia-expect-repeat]";
  const BUTTONS = "button,a,summary,[role=button],[role=link],[role=tab]";
  const REPEATED = /(^|[^a-z])(next|prev|previous|back|forward|more|less|plus|minus|increment|decrement|increase|decrease|stepper|undo|redo)([^a-z]|$)|^[-+–−±<>«»‹›←→↑↓▲▼◀▶]+\s*\d*$/i;

  let run = null; // what init was given and what lasts until stop
  let queue = []; // batches, oldest first
  let rows = []; // [type, value, when, details] since the last batch
  let rowChars = 0;
  let counts = {};
  let place = {};
  let status;

  // Monotonic within a page, whatever happens to the clock; comparable between pages while the clock is left alone.
  const now = () => performance.timeOrigin + performance.now();
  const newId = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
  const warn = (...words) => console.warn("GAIA:", ...words);
  const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
  const closest = (node, selector) => (node && node.closest ? node.closest(selector) : null);

  function isId(value) { return typeof value === "string" && /^[\w.:/-]{1,100}$/.test(value); }
  function isFlag(value) { return typeof value === "boolean"; }
  function isNumber(value) { return Number.isFinite(value) && value >= 0; }

  // ---- rows and batches

  /** Of what an app gives only known names with values of their shape: nothing else leaves the page. */
  function details(given) {
    const kept = {};
    for (const [name, value] of Object.entries({ ...place, ...given })) {
      if (SHAPES[name] && SHAPES[name](value)) kept[name] = value;
      else if (run.debug && value !== undefined) warn(`${name} is left out: unknown, or not of its shape`);
    }
    return kept;
  }

  /** Whether the pupil's browser or the page asks that nothing be watched. */
  function isQuiet() {
    return (run.dnt !== false && (navigator.globalPrivacyControl || navigator.doNotTrack === "1"))
      || document.querySelector("html[data-gaia-off],body[data-gaia-off]") !== null;
  }

  function add(type, value, given) {
    const kept = details(given);
    const chars = run.rowChars + JSON.stringify(kept).length;
    if (rowChars + chars > BATCH_CHARS) seal();
    rows.push([type, value, now(), kept]);
    rowChars += chars;
    if (rows.length >= BATCH_ROWS) seal();
  }

  function watched(type, value, given) {
    if (run && !isQuiet()) add(type, value, given);
  }

  /** Counts since the last time become rows. Movement is the first to go when much waits to be sent. */
  function fold() {
    const isCrowded = queue.reduce((sum, batch) => sum + batch.chars, 0) > QUEUE_CHARS / 2;
    for (const [type, count] of Object.entries(counts)) {
      if (isCrowded && (type === "mouse_movement" || type === "scrolling")) continue;
      if (count >= 1) watched(type, Math.round(count), { bucket_ms: 1000 });
    }
    counts = {};
  }

  function count(type, amount) { counts[type] = (counts[type] || 0) + amount; }

  function seal() {
    if (rows.length) enqueue({ rows });
    rows = [];
    rowChars = 0;
  }

  function enqueue(what, isUrgent) {
    const batch = { id: newId(), at: now(), session: run.session, ...what };
    const text = JSON.stringify(batch);
    batch.chars = text.length;
    queue[isUrgent ? "unshift" : "push"](batch);
    try { localStorage.setItem(run.prefix + batch.id, text); } catch { /* full or forbidden: memory alone */ }
    let chars = queue.reduce((sum, one) => sum + one.chars, 0);
    while (chars > QUEUE_CHARS) {
      const oldest = queue.find((one) => !run.asking.has(one.id)) || batch;
      chars -= oldest.chars;
      lose(oldest);
    }
    return batch;
  }

  function forget(batch) {
    queue = queue.filter((one) => one !== batch);
    try { localStorage.removeItem(run.prefix + batch.id); } catch { /* it was never there */ }
  }

  function lose(batch) {
    status.dropped += batch.rows ? batch.rows.length : 1;
    forget(batch);
    settle(batch, null);
  }

  /** Batches of this pupil and app that another page left; whatever is too old goes, whosever it is. */
  function recall() {
    try {
      for (const key of Object.keys(localStorage).filter((one) => one.startsWith("gaia|"))) {
        const text = localStorage.getItem(key);
        let batch = {};
        try { batch = { ...JSON.parse(text) }; } catch { /* damaged: without a time it goes */ }
        const isWhole = batch.id && (Array.isArray(batch.rows) || batch.rating);
        if (!isWhole || !(Math.abs(now() - batch.at) < KEPT_MS)) localStorage.removeItem(key);
        else if (key.startsWith(run.prefix)) queue.push({ ...batch, chars: text.length });
      }
    } catch { /* no storage here */ }
    queue.sort((one, other) => one.at - other.at);
  }

  // ---- sending

  function bodyOf(batch) {
    const who = { student_id: run.student, app_name: run.app, session_id: batch.session };
    if (batch.rating) return JSON.stringify({ ...who, rating: batch.rating });
    const metrics = batch.rows.map(([metric_type, metric_value, at, kept], index) => {
      const metadata = { ...kept, age_ms: Math.max(0, Math.round(now() - at)) };
      if (!index) metadata.sdk = VERSION;
      return { ...who, metric_type, metric_value, metadata };
    });
    return JSON.stringify({ batch_id: batch.id, metrics });
  }

  const address = (path) => `${run.url}/api/v1/usability/${path}`;

  async function call(path, body, isSecond) {
    const mine = run;
    if (typeof mine.token === "function" && (!mine.secret || isSecond)) mine.secret = await mine.token();
    const answer = await fetch(address(path), {
      method: body ? "POST" : "GET",
      headers: { Authorization: `Bearer ${mine.secret}`, ...(body && { "Content-Type": "application/json" }) },
      body,
      credentials: "omit",
      cache: "no-store",
      referrerPolicy: "no-referrer", // an address may say more than its page means to
      signal: AbortSignal.timeout ? AbortSignal.timeout(TIMEOUT_MS) : undefined,
    });
    const isOver = answer.status === 401 && typeof mine.token === "function" && !isSecond && mine === run;
    return isOver ? call(path, body, true) : answer;
  }

  /** Send what waits, oldest first, one at a time; where that fails wait longer each time, with full jitter. */
  async function send() {
    const mine = run;
    if (!mine || mine.isBusy) return;
    mine.isBusy = true;
    while (mine === run && queue.length && now() >= mine.waitUntil) {
      const batch = queue[0];
      if (now() - batch.at > KEPT_MS) {
        lose(batch);
        continue;
      }
      let code = 0;
      let said = null;
      let atLeastMs = 0;
      try {
        const answer = await call(batch.rating ? "ratings" : "metrics", bodyOf(batch));
        code = answer.status;
        atLeastMs = Number(answer.headers.get("Retry-After")) * 1000 || 0;
        said = await answer.json();
      } catch { /* no network, or an answer that is none: the code says which */ }
      if (mine !== run) break;
      if (!code || code === 408 || code === 429 || code >= 500) {
        mine.tries += 1;
        mine.notBefore = now() + atLeastMs;
        mine.waitUntil = mine.notBefore + Math.random() * Math.min(BACKOFF_MS, 1000 * 2 ** mine.tries);
      } else {
        mine.tries = 0;
        forget(batch);
        finish(batch, code, said);
      }
    }
    mine.isBusy = false;
  }

  function finish(batch, code, said) {
    const size = batch.rows ? batch.rows.length : 1;
    const refused = code >= 300 ? size : (said && said.rejected || []).length;
    status.sent += size - refused;
    status.rejected += refused;
    if (refused && run.debug) warn(`${refused} refused (${code})`, said);
    settle(batch, said && said.help_requests && said.help_requests[0]);
  }

  /** The page goes, or may: hand everything to the browser. It stays in the queue until an answer confirms it. */
  function beacon() {
    if (!run.secret) return;
    const to = `${address("metrics")}?key=${encodeURIComponent(run.secret)}`;
    let chars = 0;
    for (const batch of queue.filter((one) => one.rows)) {
      const body = bodyOf(batch);
      chars += body.length;
      if (chars > BEACON_CHARS) break;
      const options = { method: "POST", body, keepalive: true, mode: "no-cors", credentials: "omit" };
      if (!(navigator.sendBeacon && navigator.sendBeacon(to, body))) fetch(to, options).catch(() => {});
    }
    run.waitUntil = Math.max(run.waitUntil, now() + 5000);
  }

  /** Now rather than later, but never before the time the server asked for. */
  function hurry() {
    run.waitUntil = run.notBefore;
    send();
  }

  // ---- help

  function settle(batch, id) {
    const tell = run.asking.get(batch.id);
    run.asking.delete(batch.id);
    if (tell) id ? follow(id, tell) : tell(null);
  }

  /** Ask how the request stands, less often the longer it takes, for half an hour at most. */
  async function follow(id, tell) {
    const mine = run;
    const until = now() + HELP_MS;
    let state = "sent";
    tell(state);
    for (let waitMs = 1000; mine === run && state !== "done" && now() < until; waitMs = Math.min(waitMs * 1.3, 10000)) {
      await sleep(waitMs * (0.8 + 0.4 * Math.random()));
      if (mine !== run) break;
      try {
        const answer = await call(`help-requests/${id}`);
        if (answer.status === 403 || answer.status === 404) break;
        const found = answer.ok ? (await answer.json()).state : state;
        if (found !== state) tell(state = found);
      } catch { /* no network: ask again */ }
    }
    if (state === "sent") tell(null);
  }

  // ---- listening

  function listen(target, types, heard) {
    for (const type of types.split(" ")) {
      target.addEventListener(type, (event) => {
        if (!closest(event.target, "[data-gaia-off]")) heard(event);
      }, { capture: true, passive: true, signal: run.ending.signal });
    }
  }

  /** Keys: whether one character, Backspace or Delete. Which character is never looked at. */
  function listenToKeys() {
    let isUnnamed = false; // keyboards on screens name no key; there the kind of change counts
    const isSecret = (event) => event.target.type === "password";
    listen(document, "keydown", (event) => {
      const isCharacter = event.key && event.key.length === 1;
      isUnnamed = event.key === "Unidentified" || event.key === "Process";
      if (isSecret(event) || event.ctrlKey || event.metaKey) return;
      if (isCharacter) count("keypress", 1);
      else if (event.key === "Backspace" || event.key === "Delete") count("backspace", 1);
    });
    listen(document, "input", (event) => {
      if (!isUnnamed || isSecret(event) || !event.inputType) return;
      count(event.inputType.startsWith("delete") ? "backspace" : "keypress", 1);
    });
  }

  function listenToMovement() {
    let last = null;
    let scrolledAt = 0;
    listen(document, "mousemove", (event) => {
      if (last) count("mouse_movement", Math.hypot(event.clientX - last.x, event.clientY - last.y));
      last = { x: event.clientX, y: event.clientY };
    });
    listen(document, "scroll", (event) => {
      if (event.timeStamp - scrolledAt < 100) return;
      scrolledAt = event.timeStamp;
      count("scrolling", 1);
    });
  }

  /** Whether the clicked button is one to be clicked again and again. Its label is compared and forgotten. */
  function isStepper(target) {
    const button = closest(target, BUTTONS);
    if (!button) return false;
    const said = ["aria-label", "title", "rel", "id", "class", "name"].map((name) => button.getAttribute(name) || "");
    return [...said, button.textContent.slice(0, 24)].some((label) => REPEATED.test(label.trim()));
  }

  function isSelecting(target) {
    const selection = getSelection();
    return selection !== null && selection.type === "Range" && selection.containsNode(target, true);
  }

  function listenToClicks() {
    let recent = [];
    let isRaging = false;
    let latest = null; // the last click, for errors
    const waiting = new Set(); // clicks that nothing has answered yet
    const answered = () => {
      waiting.forEach((click) => clearTimeout(click.timer));
      waiting.clear();
      observer.disconnect();
    };
    const observer = new MutationObserver(answered);

    function rage(event, target, where) {
      const at = event.timeStamp;
      const before = recent[recent.length - 1];
      if (!before || at - before.at >= RAGE.ms) isRaging = false;
      recent = recent.filter((one) => at - one.at < RAGE.ms && Math.hypot(one.x - event.clientX, one.y - event.clientY) < RAGE.px);
      if (!event.detail || closest(target, FIELDS) || isStepper(target) || isSelecting(target)) return;
      recent.push({ at, x: event.clientX, y: event.clientY });
      if (recent.length < RAGE.clicks || isRaging) return;
      isRaging = true; // once a burst
      watched("rage_click", 1, where);
    }

    function dead(target, where, click) {
      if (closest(target, `${FIELDS},a[href],[disabled],[aria-disabled=true]`)) return;
      waiting.add(click);
      observer.observe(document, { subtree: true, childList: true, attributes: true, characterData: true });
      click.timer = setTimeout(() => {
        waiting.delete(click);
        if (!waiting.size) observer.disconnect();
        watched("dead_click", 1, where);
      }, DEAD_MS);
    }

    function failed() {
      if (!latest || latest.hasFailed || performance.now() - latest.at > ERROR_MS) return;
      latest.hasFailed = true;
      clearTimeout(latest.timer);
      waiting.delete(latest);
      watched("error_click", 1, latest.where);
    }

    listen(document, "click", (event) => {
      if (event.button || !event.isTrusted) return;
      const target = event.target;
      const of = (name) => (closest(target, `[data-gaia-${name}]`) || document.body).getAttribute(`data-gaia-${name}`) || undefined;
      const where = { element: of("element") };
      if (of("item")) where.item = of("item");
      count("click", 1);
      latest = { at: performance.now(), where };
      rage(event, target, where);
      // What happens inside a shadow tree cannot be observed from here.
      if (event.composedPath()[0] === target) dead(target, where, latest);
    });
    listen(document, "scroll submit play", answered);
    listen(document, "focusin", () => { if (latest && performance.now() - latest.at < ERROR_MS) answered(); });
    listen(document, "selectionchange", () => { if (getSelection().type === "Range") answered(); });
    listen(window, "popstate hashchange pagehide", answered);
    window.addEventListener("error", failed, { signal: run.ending.signal });
    window.addEventListener("unhandledrejection", failed, { signal: run.ending.signal });
    run.ending.signal.addEventListener("abort", answered);
  }

  function listenToAttention() {
    let isHere = null;
    const look = () => {
      const is = document.visibilityState === "visible" && document.hasFocus();
      if (is !== isHere && (is || isHere !== null)) watched(is ? "focus" : "blur", 1);
      isHere = is;
    };
    look();
    listen(window, "focus blur", (event) => { if (event.target === window) look(); });
    listen(document, "visibilitychange", () => {
      look();
      if (document.visibilityState === "hidden") leave();
      else hurry();
    });
  }

  function leave() {
    fold();
    seal();
    beacon();
  }

  function tick() {
    fold();
    if ((run.ticks += 1) % 2 === 0) seal();
    send();
  }

  // ---- what an app calls

  /** Begin. Throws where an option is missing or wrong. */
  function init(options) {
    const { url, app, student, token, key, auto = true } = options || {};
    if (!/^https?:\/\//.test(url)) throw new TypeError("GAIA.init: url must be the address of GAIA, such as https://gaia.example");
    for (const [name, value] of [["app", app], ["student", student]]) {
      if (!isId(value) || value.length > 50) throw new TypeError(`GAIA.init: ${name} must be 1 to 50 of A-Z a-z 0-9 . _ : / -`);
    }
    if (!token && !key) throw new TypeError("GAIA.init: token or key is needed");
    stop();
    const prefix = `gaia|${app}|${student}|`;
    let session = newId();
    try {
      session = sessionStorage.getItem(prefix) || session;
      sessionStorage.setItem(prefix, session);
    } catch { /* no storage here: one sitting a page */ }
    run = {
      ...options, url: url.replace(/\/+$/, ""), prefix, session,
      token: token || key, secret: typeof token === "function" ? "" : token || key,
      rowChars: 150 + app.length + student.length + session.length,
      ending: new AbortController(), asking: new Map(), waitUntil: 0, notBefore: 0, tries: 0, ticks: 0, isBusy: false,
    };
    status = { sent: 0, rejected: 0, dropped: 0 };
    recall();
    if (auto) {
      listenToKeys();
      listenToMovement();
      listenToClicks();
    }
    listenToAttention();
    listen(window, "pagehide", leave);
    listen(window, "online", hurry);
    run.timer = setInterval(tick, 1000);
    send();
  }

  /** End: listeners go, and what waits is handed to the browser. */
  function stop() {
    if (!run) return;
    leave();
    run.ending.abort();
    clearInterval(run.timer);
    run.asking.forEach((tell) => tell(null));
    run = null;
    queue = [];
    counts = {};
    place = {};
  }

  /** Where the pupil is now; what happens counts there. */
  function item(id, skill) {
    if (!run) return;
    fold();
    place = { item: id, skill };
  }

  /** An answer of the pupil: {correct, item, skill, attempt, similar, duration_ms}. */
  function attempt(given) {
    if (!given || !isFlag(given.correct)) return warn("attempt needs correct: true or false");
    return track("answer", given.correct ? 1 : 0, given);
  }

  /** A hint was shown: {level, item, skill, is_bottom, duration_ms}. */
  function hint({ level = 1, ...more } = {}) { track("hint", level, { hint_level: level, ...more }); }

  /** Any other metric of the API, or one the app has registered. */
  function track(type, value = 1, given = {}) {
    if (!isId(type) || !Number.isFinite(value)) return warn("track needs a metric type and a number");
    return watched(type, value, given);
  }

  /**
   * The pupil asks for help. `tell` hears "sent", "seen", "coming", "done"; null: nobody will answer. The promise
   * holds the first of them after "sent". This goes out even where watching is off: the pupil says it.
   */
  function helpPlease(tell = () => {}, given = {}) {
    if (!run) return Promise.resolve(null);
    return new Promise((resolve) => {
      fold();
      seal();
      add("help_request", 1, given);
      const batch = enqueue({ rows }, true);
      rows = [];
      rowChars = 0;
      run.asking.set(batch.id, (state) => {
        tell(state);
        if (state !== "sent") resolve(state);
      });
      hurry();
    });
  }

  /** What the pupil thinks of this sitting: 1 to 5. A second rating replaces the first. */
  function rate(stars) {
    if (!run || ![1, 2, 3, 4, 5].includes(stars)) return warn("rate needs a whole number from 1 to 5");
    enqueue({ rating: stars });
    return hurry();
  }

  globalThis.GAIA = Object.freeze({
    version: VERSION, init, stop, item, attempt, hint, track, helpPlease, rate,
    flush: () => { if (run) { fold(); seal(); hurry(); } },
    status: () => ({ ...status, queued: queue.length }),
  });
})();
