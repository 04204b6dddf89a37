/* The screen's own script: a tick for live parts, times as the reader wants them, keys. */
(() => {
  "use strict";

  const TICK_MS = 5000;
  const store = {
    get(name) { try { return localStorage.getItem(`ui.${name}`); } catch { return null; } },
    set(name, value) { try { localStorage.setItem(`ui.${name}`, value); } catch { /* not kept, then */ } },
  };
  let isPaused = store.get("paused") === "1";
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  // -- Times -------------------------------------------------------------------------------------

  const two = (number) => String(number).padStart(2, "0");

  function span(seconds) {
    const units = [[86400, "d", 3600, "h"], [3600, "h", 60, "min"], [60, "min", 1, "s"]];
    for (const [length, unit, smaller, smallUnit] of units) {
      if (seconds >= length) {
        const rest = Math.floor((seconds % length) / smaller);
        const isWorthIt = rest && !(unit === "min" && seconds >= 600);
        return `${Math.floor(seconds / length)} ${unit}${isWorthIt ? ` ${rest} ${smallUnit}` : ""}`;
      }
    }
    return `${Math.floor(seconds)} s`;
  }

  function roughly(seconds) {
    return span(seconds < 60 ? seconds : seconds < 3600 ? seconds - (seconds % 60) : seconds);
  }

  // UTC, the browser's own zone (`local`), or one by its name.
  const formats = new Map();
  function zone() {
    const chosen = store.get("zone") || "utc";
    return chosen === "local" ? Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC" : chosen;
  }

  function isZone(name) {
    try { return Boolean(new Intl.DateTimeFormat("en", { timeZone: name })); } catch { return false; }
  }

  function formatIn(name) {
    if (!formats.has(name)) {
      const parts = { year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit" };
      formats.set(name, new Intl.DateTimeFormat("sv-SE", { ...parts, hourCycle: "h23", timeZone: name }));
    }
    return formats.get(name);
  }

  function full(moment) {
    const name = zone();
    if (name === "utc" || !isZone(name)) return `${moment.toISOString().slice(0, 19).replace("T", " ")} UTC`;
    return formatIn(name).format(moment);
  }

  function clock(moment) {
    return full(moment).slice(11);
  }

  function tellTimes(root = document) {
    const now = Date.now();
    for (const element of all("time[data-form]", root)) {
      const moment = new Date(element.dateTime);
      const seconds = (now - moment) / 1000;
      let text;
      if (element.dataset.form === "full") text = full(moment);
      else if (element.dataset.form === "clock") text = clock(moment);
      else if (Math.abs(seconds) < 1) text = "now";
      else if (element.dataset.form === "age") text = span(Math.max(seconds, 0));
      else text = seconds < 0 ? `in ${roughly(-seconds)}` : `${roughly(seconds)} ago`;
      if (element.textContent !== text) element.textContent = text;
    }
  }

  function tellZone() {
    const button = document.getElementById("ui-zone");
    if (!button) return;
    button.textContent = zone() === "utc" ? "UTC" : zone();
    for (const choice of all("#ui-zones input[name=zone]")) choice.checked = choice.value === (store.get("zone") || "utc");
    const named = document.getElementById("ui-zone-named");
    if (!["utc", "local", null].includes(store.get("zone"))) {
      named.value = store.get("zone");
      document.getElementById("ui-zone-other").checked = true;
    }
  }

  function openZones() {
    const list = document.getElementById("ui-zone-names");
    if (!list.children.length && Intl.supportedValuesOf) {
      for (const name of Intl.supportedValuesOf("timeZone")) list.append(new Option(name));
    }
    document.getElementById("ui-zones").showModal();
  }

  function chooseZone(event) {
    const named = document.getElementById("ui-zone-named");
    let chosen = document.querySelector("#ui-zones input[name=zone]:checked")?.value || "utc";
    if (chosen === "other") chosen = named.value.trim();
    const isKnown = ["utc", "local"].includes(chosen) || isZone(chosen);
    named.setCustomValidity(isKnown ? "" : "There is no such time zone.");
    if (!isKnown) { event.preventDefault(); named.reportValidity(); return; }
    store.set("zone", chosen);
    tellZone(); tellTimes();
    document.dispatchEvent(new CustomEvent("ui:zone"));
  }

  // -- Live parts --------------------------------------------------------------------------------

  function tellState() {
    const state = document.getElementById("ui-live-state");
    if (!state) return;
    state.classList.toggle("ui-paused", isPaused);
    const button = document.getElementById("ui-pause");
    button.textContent = isPaused ? "Go on" : "Pause";
    button.setAttribute("aria-pressed", String(isPaused));
    document.getElementById("ui-live-word").textContent = isPaused ? "Paused" : "Live";
  }

  function setPaused(value) {
    isPaused = value;
    store.set("paused", value ? "1" : "0");
    tellState();
    if (!value) tick();
  }

  function tick() {
    tellTimes();
    if (document.hidden || !window.htmx) return;
    window.htmx.trigger(document.body, "ui:tick");
  }

  function isInUse(element) {
    const active = document.activeElement;
    if (active && active !== element && element.contains(active)) return true;
    if (element.querySelector("details[open]:not(.ui-behind), dialog[open]")) return true;
    const selection = window.getSelection();
    return Boolean(selection && !selection.isCollapsed && element.contains(selection.anchorNode));
  }

  document.addEventListener("htmx:configRequest", (event) => {
    const version = event.detail.elt.dataset.version;
    if (version !== undefined) event.detail.headers["UI-Version"] = version;
  });

  document.addEventListener("htmx:beforeSwap", (event) => {
    const { target, xhr } = event.detail;
    if (target.dataset.version === undefined) return;
    // Comes for refusals, too, which are told of by what follows.
    if (xhr.status !== 200) return;
    fresh(target);
    if (isInUse(target) && !target.dataset.wanted) {
      // Nothing is pulled away from under a hand.
      event.detail.shouldSwap = false;
      showNews(true);
      return;
    }
    delete target.dataset.wanted;
    target.dataset.version = xhr.getResponseHeader("UI-Version") || "";
    showNews(false);
  });

  // What was opened stays open, and a sentence that has changed is spoken.
  let wasOpen = new Map();
  document.addEventListener("htmx:beforeSwap", (event) => {
    wasOpen = new Map(all("details.ui-behind[id]", event.detail.target).map((each) => [each.id, each.open]));
  });
  document.addEventListener("htmx:afterSwap", () => {
    for (const [id, isOpen] of wasOpen) document.getElementById(id)?.toggleAttribute("open", isOpen);
  });

  function speak() {
    const said = document.getElementById("ui-said"), says = document.querySelector("[data-says]");
    if (document.getElementById("ui-fleet")) return;
    const text = says ? says.textContent.trim() : "";
    if (said && said.textContent !== text) said.textContent = text;
  }

  document.addEventListener("htmx:afterSettle", (event) => {
    tellTimes(event.detail.elt.parentElement || document);
    speak();
    arrange();
  });

  // -- The fleet: the worst first, in the order in which it is read out, too ----------------------

  const GRAVITIES = ["dead", "broken", "warning", "notice"];

  function gravity(slot) {
    if (slot.classList.contains("ui-stale")) return 0;
    const found = GRAVITIES.findIndex((name) => slot.querySelector(`.ui-is-${name}`));
    return found < 0 ? GRAVITIES.length : found;
  }

  let spoken = "";
  function arrange() {
    const fleet = document.getElementById("ui-fleet");
    if (!fleet) return;
    const before = [...fleet.children];
    const slots = before.map((slot, index) => [gravity(slot), Number(slot.dataset.place ??= index), slot]).sort((a, b) => a[0] - b[0] || a[1] - b[1]);
    // What somebody has a hand on stays where it is.
    if (!isInUse(fleet) && slots.some(([, , slot], index) => slot !== before[index])) {
      fleet.append(...slots.map(([, , slot]) => slot));
    }
    if (fleet.querySelector('[data-version=""]:not([data-late-since])')) return;
    // Ages change with every look; it is spoken again when it stands otherwise with some cluster.
    const bad = slots.filter(([grave]) => grave < 3);
    const now = bad.map(([grave, place]) => `${place}:${grave}`).join() || "well";
    if (now === spoken) return;
    spoken = now;
    const of = (slot, what) => slot.querySelector(what)?.textContent.trim().replace(/\s+/g, " ") || "";
    const worst = bad.length ? bad[0][2] : null;
    document.getElementById("ui-said").textContent = worst
      ? `${bad.length} of ${slots.length} clusters need${bad.length === 1 ? "s" : ""} attention. ${of(worst, "header a")}: ${of(worst, ".ui-says")}`
      : "All clusters are well.";
  }

  document.addEventListener("htmx:responseError", (event) => late(event.detail.target, event.detail.xhr.status));
  document.addEventListener("htmx:sendError", (event) => late(event.detail.target, 0));
  document.addEventListener("htmx:afterRequest", (event) => {
    if (event.detail.xhr && event.detail.xhr.status === 204) fresh(event.detail.target);
  });

  function statusOf(target) {
    return target.closest(".ui-slot")?.querySelector(".ui-slot-status") || document.getElementById("ui-late");
  }

  function late(target, status) {
    if (!target || target.dataset.version === undefined) return;
    if (!target.dataset.lateSince) target.dataset.lateSince = target.dataset.freshAt || String(Date.now());
    const since = clock(new Date(Number(target.dataset.lateSince)));
    (target.closest(".ui-slot") || target).classList.add("ui-stale");
    document.getElementById("ui-live-state")?.classList.add("ui-late");
    const place = statusOf(target);
    const what = status === 503 || status === 0 ? "Unreachable" : "Not refreshed";
    if (place) { place.textContent = `${what} since ${since}`; place.hidden = false; }
    arrange();
  }

  function fresh(target) {
    target.dataset.freshAt = String(Date.now());
    if (!target.dataset.lateSince) return;
    delete target.dataset.lateSince;
    (target.closest(".ui-slot") || target).classList.remove("ui-stale");
    const place = statusOf(target);
    if (place) place.hidden = true;
    if (!document.querySelector("[data-late-since]")) {
      document.getElementById("ui-live-state")?.classList.remove("ui-late");
    }
    arrange();
  }

  function showNews(isShown) {
    const button = document.getElementById("ui-news");
    if (button) button.hidden = !isShown;
  }

  function refresh() {
    for (const element of all("[data-version]")) element.dataset.wanted = "1";
    tick();
  }

  // -- The log of a job follows its end while its reader is there ---------------------------------

  let wasAtEnd = true;
  document.addEventListener("htmx:beforeSwap", (event) => {
    const log = event.detail.target.closest(".ui-log");
    if (log) wasAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  });
  document.addEventListener("htmx:afterSwap", () => {
    const log = document.querySelector(".ui-log");
    if (log && wasAtEnd) log.scrollTop = log.scrollHeight;
  });

  // -- Keys ---------------------------------------------------------------------------------------

  const LETTERS = { o: "fleet", c: "index", f: "failures", j: "jobs", q: "queues", n: "nodes", s: "schedules", w: "workflows", a: "audit" };
  let isGoing = 0;

  function isWriting(target) {
    return target.isContentEditable || ["INPUT", "TEXTAREA", "SELECT"].includes(target.tagName);
  }

  function press(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || isWriting(event.target)) return;
    if (store.get("keys") === "off" && event.key !== "?") return;
    if (Date.now() - isGoing < 1500) {
      isGoing = 0;
      const link = document.querySelector(`[data-go="${LETTERS[event.key]}"]`);
      if (link) { event.preventDefault(); window.location.assign(link.href); }
      return;
    }
    const filter = document.querySelector(".ui-filter input:not([type=hidden])");
    if (event.key === "g") isGoing = Date.now();
    else if (event.key === "/" && filter) { event.preventDefault(); filter.focus(); }
    else if (event.key === "r") refresh();
    else if (event.key === "p") setPaused(!isPaused);
    else if (event.key === "?") document.getElementById("ui-help")?.showModal();
  }

  window.ui = { full };

  // Not before the theme shows the page: what is hidden cannot have the focus.
  window.addEventListener("load", () => document.querySelector(".ui [autofocus]")?.focus());

  // -- Start --------------------------------------------------------------------------------------

  document.addEventListener("DOMContentLoaded", () => {
    if (!document.querySelector(".ui")) return;
    tellTimes(); tellZone(); tellState();
    const log = document.querySelector(".ui-log");
    if (log) log.scrollTop = log.scrollHeight;
    document.getElementById("ui-pause")?.addEventListener("click", () => setPaused(!isPaused));
    document.getElementById("ui-news")?.addEventListener("click", refresh);
    document.getElementById("ui-keys")?.addEventListener("click", () => document.getElementById("ui-help").showModal());
    document.getElementById("ui-zone")?.addEventListener("click", openZones);
    document.querySelector("#ui-zones form")?.addEventListener("submit", chooseZone);
    document.getElementById("ui-zone-named")?.addEventListener("input", (event) => {
      event.target.setCustomValidity("");
      document.getElementById("ui-zone-other").checked = true;
    });
    const keys = document.getElementById("ui-keys-on");
    if (keys) {
      keys.checked = store.get("keys") !== "off";
      keys.addEventListener("change", () => store.set("keys", keys.checked ? "on" : "off"));
    }
    document.addEventListener("keydown", press);
    // An address says what was asked for, and not what was left empty.
    for (const form of all("form.ui-filter")) {
      form.addEventListener("submit", () => {
        for (const field of all("input, select", form)) field.disabled = field.value === "";
      });
      for (const field of all("select", form)) field.addEventListener("change", () => form.requestSubmit());
    }
    setInterval(() => { if (isPaused) tellTimes(); else tick(); }, TICK_MS);
  });
})();
