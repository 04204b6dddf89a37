/* The theme's menus for whoever has no mouse: what opens at a click opens by keys as well, icons are not
   read out as words, and the first stop of every page leads past the menu. */
(() => {
  "use strict";

  const MADE_FOR_KEYS = "a[href], button, input, label, select, textarea, summary, tr, h2, h3, [tabindex]";
  // What an icon that stands alone is for.
  const LABELS = {
    close: "Close the menu", dock_to_right: "Show or hide the menu", menu: "Open the menu",
    light_mode: "Light", dark_mode: "Dark", computer: "As the system", visibility: "Show the password",
  };
  const isIcon = (element) => element.classList.contains("material-symbols-outlined");

  function open() {
    for (const element of document.querySelectorAll("[x-on\\:click]")) {
      if (element.matches(MADE_FOR_KEYS)) continue;
      element.tabIndex = 0;
      element.setAttribute("role", "button");
      const text = element.textContent.trim();
      if (LABELS[text]) element.setAttribute("aria-label", LABELS[text]);
    }
    for (const icon of document.querySelectorAll("a > .material-symbols-outlined, button > .material-symbols-outlined, [role=button] .material-symbols-outlined")) {
      const around = icon.closest("a, button, [role=button]");
      const words = [...around.querySelectorAll("*")].filter(isIcon).reduce((text, one) => text.replace(one.textContent, ""), around.textContent);
      if (icon !== around && words.trim()) icon.setAttribute("aria-hidden", "true");
    }
  }

  function lead() {
    const content = document.getElementById("content");
    if (!content) return;
    const link = document.createElement("a");
    link.className = "ui-skip";
    link.href = "#content";
    link.textContent = "Skip to the page";
    link.addEventListener("click", () => { content.tabIndex = -1; content.focus(); });
    document.body.prepend(link);
  }

  document.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    if (!event.target.matches("[role=button][x-on\\:click]")) return;
    event.preventDefault();
    event.target.click();
  });

  // The theme's palette opens only what the arrows have chosen. Enter alone means the first that is found,
  // also where it is typed before the answer is there.
  let isStale = true, isWanted = false;

  function openFirst(inNewTab) {
    const link = document.querySelector("#command-results-list a[href]");
    if (link && inNewTab) window.open(link.href, "_blank");
    else if (link) window.location = link.href;
  }

  document.addEventListener("input", (event) => {
    if (event.target.id === "search-input-command") [isStale, isWanted] = [true, false];
  });
  document.addEventListener("keydown", (event) => {
    if (event.target.id !== "search-input-command" || event.key !== "Enter") return;
    if (!isStale && document.querySelector("#command-results-list li.active")) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    if (isStale) isWanted = true;
    else openFirst(event.ctrlKey || event.metaKey);
  }, true);
  document.addEventListener("htmx:afterSwap", (event) => {
    if (event.target.id !== "command-results") return;
    isStale = false;
    if (isWanted) openFirst(false);
    isWanted = false;
  });

  // The theme's words are of apps and models, which nobody looks for here.
  function name() {
    const words = document.querySelector("[x-on\\:click*=opencommand] .truncate");
    if (words) words.textContent = "Search or go to …";
  }

  document.addEventListener("DOMContentLoaded", () => { open(); lead(); name(); });
})();
