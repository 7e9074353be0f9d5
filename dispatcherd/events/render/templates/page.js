"use strict";
(() => {
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const types = all("section.type").map((section) => ({
    section,
    item: all("nav [data-of]").find((item) => item.dataset.of === section.id),
    versions: all("details", section).map((details) => ({
      details,
      text: details.textContent.toLowerCase(),
    })),
    text: section.textContent.toLowerCase(),
  }));

  // Search: every word must stand somewhere in the type's section.
  const input = document.getElementById("find");
  const found = document.getElementById("found");
  const about = document.querySelector(".about");
  const none = document.querySelector(".none");
  input.parentElement.hidden = false;
  const search = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const { section, item, text, versions } of types) {
      const fits = words.every((word) => text.includes(word));
      section.hidden = item.hidden = !fits;
      count += fits;
      for (const version of words.length > 0 ? versions : []) {
        version.details.open ||= words.every((word) => version.text.includes(word));
      }
    }
    for (const title of all("nav h2")) {
      title.hidden = all("li", title.nextElementSibling).every((item) => item.hidden);
    }
    about.hidden = words.length > 0;
    none.hidden = count > 0;
    found.textContent = words.length > 0 ? `${count} of ${types.length} types` : "";
  };
  input.addEventListener("input", () => {
    search();
    scrollTo(0, 0);
  });
  addEventListener("keydown", (event) => {
    if (event.key === "/" && document.activeElement !== input) {
      event.preventDefault();
      input.focus();
    } else if (event.key === "Escape" && input.value !== "") {
      input.value = "";
      search();
    }
  });
  // A link within the page leads to its target also where a search hides it.
  const reveal = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target !== null && target.closest("[hidden]") !== null) {
      input.value = "";
      search();
      target.scrollIntoView();
    }
  };
  addEventListener("hashchange", reveal);

  // Languages as tabs; without this script they stand one below the other.
  const tabs = document.querySelector(".tabs");
  const panels = all(".tab", tabs);
  const list = document.createElement("div");
  list.className = "tablist";
  list.setAttribute("role", "tablist");
  list.setAttribute("aria-label", "Language");
  const buttons = panels.map((panel, number) => {
    const button = document.createElement("button");
    button.type = "button";
    button.id = `tab-${number}`;
    button.textContent = panel.dataset.name;
    button.setAttribute("role", "tab");
    button.setAttribute("aria-controls", (panel.id = `panel-${number}`));
    panel.setAttribute("role", "tabpanel");
    panel.setAttribute("aria-labelledby", button.id);
    button.addEventListener("click", () => choose(number));
    list.append(button);
    return button;
  });
  const choose = (chosen) => {
    panels.forEach((panel, number) => { panel.hidden = number !== chosen; });
    buttons.forEach((button, number) => {
      button.setAttribute("aria-selected", String(number === chosen));
      button.tabIndex = number === chosen ? 0 : -1;
    });
  };
  list.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step !== undefined) {
      const at = buttons.indexOf(document.activeElement);
      const next = (at + step + buttons.length) % buttons.length;
      choose(next);
      buttons[next].focus();
    }
  });
  tabs.prepend(list);
  tabs.classList.add("ready");
  choose(0);

  // Where the reader is, in the contents.
  const links = new Map(all("nav a").map((link) => [decodeURIComponent(link.hash.slice(1)), link]));
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (entry.isIntersecting) {
        for (const link of links.values()) link.removeAttribute("aria-current");
        links.get(entry.target.id)?.setAttribute("aria-current", "true");
      }
    }
  }, { rootMargin: "-15% 0px -80% 0px" });
  for (const id of links.keys()) {
    const target = document.getElementById(id);
    if (target !== null) seen.observe(target);
  }

  // On a phone the contents begin closed; on paper everything is open.
  const contents = document.querySelector("nav details");
  contents.open = !matchMedia("(max-width: 52rem)").matches;
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = all("details:not([open])");
    for (const details of closed) details.open = true;
  });
  addEventListener("afterprint", () => {
    for (const details of closed) details.open = false;
  });
})();
