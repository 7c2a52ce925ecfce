// The print button of a page; without script the browser's own menu prints as well.
document.addEventListener("click", (event) => {
  if (event.target.closest("[data-print]")) window.print();
});
