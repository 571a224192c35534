// Before the first paint, or a dark page would flash white; lib/theme.js does the rest.
document.documentElement.dataset.theme = localStorage.getItem("rtb.theme") || "auto";
