"use strict";
// The page works without this script too: it then shows all items, to be rated in the CSV sheet.
(() => {
  const sheet = JSON.parse(document.getElementById("sheet").textContent);
  const find = (id) => document.getElementById(id);
  const items = [...document.querySelectorAll("article")];
  const groups = items.map((item) => [...item.querySelectorAll("fieldset")]);
  const store = "uncollapse-rating-" + sheet.rows[0].item;
  const chosen = (group) => group.querySelector("input:checked");
  const done = (place) => groups[place].every(chosen);
  let current = 0;

  function keep() {
    const answers = {};
    for (const input of document.querySelectorAll("input:checked")) answers[input.name] = input.value;
    try {
      localStorage.setItem(store, JSON.stringify({ answers, current }));
    } catch {
      find("warning").textContent =
        "This browser keeps no answers: save the sheet before you close the page.";
    }
  }

  function recall() {
    let kept = null;
    try {
      kept = JSON.parse(localStorage.getItem(store));
    } catch {
      return;
    }
    for (const input of document.querySelectorAll("input")) {
      input.checked = Boolean(kept) && kept.answers[input.name] === input.value;
    }
    if (kept && items[kept.current]) current = kept.current;
  }

  function count() {
    const left = items.filter((_, place) => !done(place)).length;
    const all = items.length;
    find("left").textContent = left
      ? `${left} of ${all} ${all === 1 ? "item" : "items"} left`
      : "all items are rated: save the sheet";
    find("progress").value = all - left;
    find("unrated").disabled = !left;
    find("save").classList.toggle("main", !left);
    find("next").classList.toggle("main", Boolean(left));
  }

  function show(place, focus = true) {
    current = place;
    items.forEach((item, other) => { item.hidden = other !== place; });
    find("back").disabled = place === 0;
    find("next").disabled = place === items.length - 1;
    if (focus) enter(groups[place].find((group) => !chosen(group)) || groups[place][0]);
    window.scrollTo(0, 0);
    count();
    keep();
  }

  const enter = (group) => (chosen(group) || group.querySelector("input")).focus();
  const move = (step) => {
    const place = current + step;
    if (place >= 0 && place < items.length) show(place);
  };

  function unrated() {
    for (let step = 1; step <= items.length; step += 1) {
      const place = (current + step) % items.length;
      if (!done(place)) return show(place);
    }
  }

  function rate(digit) {
    const here = groups[current];
    const focused = here.indexOf(document.activeElement.closest("fieldset"));
    const place = focused >= 0 ? focused : here.findIndex((group) => !chosen(group));
    const input = place >= 0 && here[place].querySelector(`input[value="${digit}"]`);
    if (!input) return;
    input.checked = true;
    count();
    keep();
    if (here[place + 1]) enter(here[place + 1]);
    else if (!find("next").disabled) find("next").focus();
    else find("save").focus();
  }

  function csv() {
    const lines = sheet.rows.map((row) => {
      const cells = row.cells.map((name) => {
        if (name === null) return sheet.not_asked;
        const input = document.querySelector(`input[name="${name}"]:checked`);
        return input ? input.value : "";
      });
      return [row.start, ...cells].join(",");
    });
    return [sheet.header, ...lines].join("\n") + "\n";
  }

  function save() {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([csv()], { type: "text/csv;charset=utf-8" }));
    link.download = sheet.file;
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  }

  document.addEventListener("change", () => { count(); keep(); });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (/^[0-9]$/.test(event.key)) rate(event.key === "0" ? 10 : Number(event.key));
    else if (event.key === "n") move(1);
    else if (event.key === "b") move(-1);
    else if (event.key === "u") unrated();
    else if (event.key === "s") save();
    else return;
    event.preventDefault();
  });
  find("back").addEventListener("click", () => move(-1));
  find("next").addEventListener("click", () => move(1));
  find("unrated").addEventListener("click", unrated);
  find("save").addEventListener("click", save);
  recall();
  for (const part of document.querySelectorAll(".scripted")) part.hidden = false;
  show(current, false);
})();
