"use strict";
// Keeps a page up to date, sends its buttons without leaving it, and sends the form once. The page is whole without it.
(() => {
  const EVERY = 1000; // milliseconds
  const live = document.body.dataset.live;
  const byId = (id) => document.getElementById(id);

  // --- what is told, seldom: a change of state, and what a button did ---------------------------
  const heard = new Map();
  const say = (text) => { byId("said").textContent = text; };
  const listen = (part) => {
    const text = part.dataset.say;
    if (!text) return;
    if (heard.has(part.id) && heard.get(part.id) !== text) say(text);
    heard.set(part.id, text);
  };

  // --- parts that change ------------------------------------------------------------------------
  const keep = {
    // What a person has opened, or a button that is being sent, is not in what the server makes.
    beforeAttributeUpdated: (name, node) => !(name === "open" && node.tagName === "DETAILS") && !node.dataset?.busy,
  };
  const replace = (html) => {
    const focused = document.activeElement;
    const within = focused.closest("section, main");
    for (const part of new DOMParser().parseFromString(html, "text/html").body.children) {
      const old = byId(part.id);
      if (!old) continue;
      listen(part);
      if (part.dataset.title) document.title = `${part.dataset.title} – fetcher`;
      Idiomorph.morph(old, part, { morphStyle: "outerHTML", ignoreActiveValue: true, callbacks: keep });
    }
    if (focused !== document.body && !focused.isConnected) {
      // What had the focus is gone: whoever uses the keyboard goes on beside it, not at the top.
      const near = within?.isConnected ? within.querySelector("[tabindex='-1']") : null;
      (near ?? byId("main")).focus({ preventScroll: true });
    }
  };

  let since = null;
  const lost = (why) => {
    since ??= new Date();
    const note = byId("lost");
    const text = `${why}. What is shown is how things stood at ${since.toLocaleTimeString()}.`;
    if (note.textContent !== text) note.textContent = text;
    if (note.hidden) say(why);
    note.hidden = false;
  };
  const found = () => {
    if (since === null) return;
    since = null;
    byId("lost").hidden = true;
    say("The service answers again");
  };

  const refresh = async () => {
    let answer;
    try {
      answer = await fetch(live, { cache: "no-store", signal: AbortSignal.timeout(10_000) });
    } catch {
      lost("The service does not answer");
      return;
    }
    if (!answer.ok) {
      lost(answer.status === 401 ? "A key is needed: load the page again" : `The service answered ${answer.status}`);
      return;
    }
    replace(await answer.text());
    found();
  };

  let timer = null;
  let held = false;
  let busy = false;
  const next = () => {
    clearTimeout(timer);
    timer = held || document.hidden ? null : setTimeout(turn, EVERY);
  };
  const turn = async () => {
    if (busy) return;
    busy = true;
    try {
      await refresh();
    } finally {
      busy = false;
      next();
    }
  };

  if (live) {
    for (const part of document.querySelectorAll("[data-say]")) listen(part);
    const hold = byId("hold");
    hold.hidden = false;
    hold.addEventListener("click", () => {
      held = !held;
      hold.setAttribute("aria-pressed", String(held));
      hold.textContent = held ? "Updates are paused: go on" : "Pause updates";
      if (held) next(); else turn();
    });
    document.addEventListener("visibilitychange", () => { if (!document.hidden && !held) turn(); });
    next();
  }

  // --- forms --------------------------------------------------------------------------------------
  const act = async (form, button) => {
    if (button.dataset.busy) return;
    button.dataset.busy = "yes";
    button.setAttribute("aria-disabled", "true");
    try {
      const answer = await fetch(form.action, { method: "POST", body: new URLSearchParams(new FormData(form)) });
      if (!answer.ok) throw new Error(String(answer.status));
      say(form.dataset.act);
    } catch {
      lost("That could not be sent");
    }
    delete button.dataset.busy;
    button.removeAttribute("aria-disabled");
    await turn();
  };
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.dataset.act && live) {
      event.preventDefault();
      act(form, form.querySelector("button"));
    } else if ("once" in form.dataset) {
      if (form.dataset.sent) event.preventDefault();
      form.dataset.sent = "yes";
      form.querySelector("button").setAttribute("aria-disabled", "true");
    }
  });
  addEventListener("pageshow", (event) => {
    if (!event.persisted) return;
    // Back at a form that was sent: what is submitted now is something new.
    for (const form of document.querySelectorAll("form[data-once]")) {
      delete form.dataset.sent;
      form.querySelector("button").removeAttribute("aria-disabled");
      const bytes = crypto.getRandomValues(new Uint8Array(16));
      form.elements.key.value = Array.from(bytes, (each) => each.toString(16).padStart(2, "0")).join("");
    }
    if (live) turn();
  });
})();
