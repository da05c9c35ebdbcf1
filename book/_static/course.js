/* Moves the flipbooks, and mends what the theme leaves unnamed for screen readers. */
document.addEventListener("DOMContentLoaded", () => {
  for (const book of document.querySelectorAll("figure.flipbook")) {
    const sliders = [...book.querySelectorAll("input[type=range]")];
    const frames = [...book.querySelectorAll(".flipbook-frames img")];
    const caption = book.querySelector("figcaption");
    const show = () => {
      let index = 0;
      for (const slider of sliders) {
        const text = JSON.parse(slider.dataset.values)[slider.value];
        slider.setAttribute("aria-valuetext", text);
        slider.closest("label").querySelector("output").textContent = text;
        index = index * (Number(slider.max) + 1) + Number(slider.value);
      }
      frames.forEach((frame, i) => { frame.hidden = i !== index; });
      caption.textContent = frames[index].alt;
    };
    for (const slider of sliders) {
      // A reload may restore the slider but not the picture.
      slider.value = slider.defaultValue;
      slider.addEventListener("input", show);
    }
    show();
    book.classList.add("ready");
  }
  // A number of the prose leads to its claim, which may lie in a fold; not every browser opens it.
  const open = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    for (let at = target; at; at = at.parentElement) {
      if (at.tagName === "DETAILS") at.open = true;
    }
    if (target?.closest("details")) target.scrollIntoView({ block: "center" });
  };
  addEventListener("hashchange", open);
  open();
  // The bibliography calls itself a list, but its entries have another role.
  for (const list of document.querySelectorAll(".citation-list[role=list]")) {
    list.removeAttribute("role");
  }
  // The side bar's arrows have no name of their own.
  for (const summary of document.querySelectorAll(".toctree-toggle")) {
    const link = summary.closest("li").querySelector("a");
    summary.closest("summary").setAttribute("aria-label", "Sections of " + link.textContent);
  }
});
