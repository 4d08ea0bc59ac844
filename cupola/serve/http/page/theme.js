// Sets the theme before anything is painted, so that nothing flashes.
"use strict";
{
  const chosen = localStorage.getItem("cupola.theme");
  if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
}
