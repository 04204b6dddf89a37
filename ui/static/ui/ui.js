/* The screen's own script: a tick for live parts, times as the reader wants them, keys. No other lives here. */
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

  function full(moment) {
    if (store.get("zone") !== "local") {
      return `${moment.toISOString().slice(0, 19).replace("T", " ")} UTC`;
    }
    const day = `${moment.getFullYear()}-${two(moment.getMonth() + 1)}-${two(moment.getDate())}`;
    return `${day} ${two(moment.getHours())}:${two(moment.getMinutes())}:${two(moment.getSeconds())}`;
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
    if (button) button.textContent = store.get("zone") === "local" ? "Local time" : "UTC";
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
    if (element.querySelector("details[open], dialog[open]")) return true;
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
    fresh(target);
    if (xhr.status !== 200) return;
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

  document.addEventListener("htmx:afterSettle", (event) => tellTimes(event.detail.elt.parentElement || document));

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

  const LETTERS = { o: "fleet", c: "index", f: "failures", j: "jobs", q: "queues", n: "nodes", s: "schedules", w: "workflows" };
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

  // -- Start --------------------------------------------------------------------------------------

  document.addEventListener("DOMContentLoaded", () => {
    if (!document.querySelector(".ui")) return;
    tellTimes(); tellZone(); tellState();
    const log = document.querySelector(".ui-log");
    if (log) log.scrollTop = log.scrollHeight;
    document.getElementById("ui-pause")?.addEventListener("click", () => setPaused(!isPaused));
    document.getElementById("ui-news")?.addEventListener("click", refresh);
    document.getElementById("ui-keys")?.addEventListener("click", () => document.getElementById("ui-help").showModal());
    document.getElementById("ui-zone")?.addEventListener("click", () => {
      store.set("zone", store.get("zone") === "local" ? "utc" : "local");
      tellZone(); tellTimes();
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
