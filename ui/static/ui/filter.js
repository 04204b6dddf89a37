/* Completion in the filter line of the list of jobs: words first, and then what may follow them. */
(() => {
  "use strict";

  const MOST = 12;

  function start() {
    const field = document.getElementById("f-line");
    const list = document.getElementById("f-choices");
    const known = document.getElementById("f-words");
    if (!field || !list || !known) return;
    const { words, values } = JSON.parse(known.textContent);
    let chosen = -1;

    // The part of the line that the cursor stands in, as far as it.
    function part() {
      const before = field.value.slice(0, field.selectionStart);
      return /\S*$/.exec(before)[0];
    }

    function choices(text) {
      const colon = text.indexOf(":");
      if (colon < 0) {
        return words.filter((word) => word.startsWith(text)).map((word) => (word.endsWith(".") ? word : `${word}:`));
      }
      const word = text.slice(0, colon);
      const begun = text.slice(colon + 1).toLowerCase();
      return (Object.hasOwn(values, word) ? values[word] : [])
        .filter((value) => value.toLowerCase().includes(begun) && value.toLowerCase() !== begun)
        .map((value) => `${word}:${/[\s"]/.test(value) ? JSON.stringify(value) : value}`);
    }

    function close() {
      list.hidden = true;
      chosen = -1;
      field.setAttribute("aria-expanded", "false");
      field.removeAttribute("aria-activedescendant");
    }

    function open() {
      const found = choices(part()).slice(0, MOST);
      list.replaceChildren(...found.map((text, index) => {
        const item = document.createElement("li");
        item.id = `f-choice-${index}`;
        item.setAttribute("role", "option");
        item.setAttribute("aria-selected", "false");
        item.textContent = text;
        item.addEventListener("mousedown", (event) => { event.preventDefault(); take(text); });
        return item;
      }));
      if (!found.length) { close(); return; }
      list.hidden = false;
      chosen = -1;
      field.setAttribute("aria-expanded", "true");
      field.removeAttribute("aria-activedescendant");
    }

    function take(text) {
      const end = field.selectionStart;
      const begin = end - part().length;
      const isWhole = !text.endsWith(":") && !text.endsWith(".");
      const rest = field.value.slice(end);
      const put = text + (isWhole && !rest.startsWith(" ") ? " " : "");
      field.value = field.value.slice(0, begin) + put + rest;
      field.setSelectionRange(begin + put.length, begin + put.length);
      if (isWhole) close(); else open();
    }

    function move(step) {
      const items = [...list.children];
      chosen = (chosen + step + items.length + (chosen < 0 && step < 0 ? 1 : 0)) % items.length;
      items.forEach((item, index) => item.setAttribute("aria-selected", String(index === chosen)));
      items[chosen].scrollIntoView({ block: "nearest" });
      field.setAttribute("aria-activedescendant", items[chosen].id);
    }

    field.addEventListener("input", open);
    field.addEventListener("click", () => { if (list.hidden) open(); });
    field.addEventListener("blur", close);
    field.addEventListener("keydown", (event) => {
      if (event.key === "ArrowDown" && list.hidden) { open(); event.preventDefault(); return; }
      if (list.hidden) return;
      if (event.key === "ArrowDown" || event.key === "ArrowUp") {
        event.preventDefault();
        move(event.key === "ArrowDown" ? 1 : -1);
      } else if (event.key === "Escape") {
        event.stopPropagation();
        close();
      } else if ((event.key === "Enter" || event.key === "Tab") && chosen >= 0) {
        event.preventDefault();
        take(list.children[chosen].textContent);
      }
    });
  }

  document.addEventListener("DOMContentLoaded", start);
})();
