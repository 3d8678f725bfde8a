// Applies the stored theme before the page paints. The key is shared with src/shell/theme.ts.
try {
  var theme = localStorage.getItem('taffrail.theme')
  if (theme === 'light' || theme === 'dark') document.documentElement.dataset.theme = theme
} catch (_) {
  // Storage can be forbidden; then the system decides.
}
