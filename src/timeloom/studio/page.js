// Clips of a comparison play in step: when all have ended, or one more has come, all begin again together.
(() => {
  const videos = (grid) => [...grid.querySelectorAll("video")];

  const begin = (grid) => {
    const all = videos(grid);
    if (grid.dataset.paused || all.some((video) => video.readyState < 3)) return;
    for (const video of all) video.currentTime = 0;
    for (const video of all) video.play().catch(() => {});
  };

  const follow = (video) => {
    const grid = video.closest(".tl-in-step");
    if (!grid) return;
    if (video.dataset.followed) return;
    video.dataset.followed = "yes";
    video.addEventListener("canplaythrough", () => { if (video.currentTime === 0) begin(grid); });
    video.addEventListener("ended", () => { if (videos(grid).every((one) => one.ended)) begin(grid); });
  };

  new MutationObserver(() => document.querySelectorAll(".tl-in-step video").forEach(follow))
    .observe(document, { childList: true, subtree: true, attributes: true, attributeFilter: ["src"] });

  document.addEventListener("click", (event) => {
    if (!event.target.closest("[data-in-step=pause]")) return;
    for (const grid of document.querySelectorAll(".tl-in-step")) {
      if (grid.dataset.paused) { delete grid.dataset.paused; begin(grid); }
      else { grid.dataset.paused = "yes"; for (const video of videos(grid)) video.pause(); }
    }
  });
})();
