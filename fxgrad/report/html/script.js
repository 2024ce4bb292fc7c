const box = document.getElementById('filter'), tree = document.getElementById('tree'), bar = document.querySelector('nav');
const chips = [...document.querySelectorAll('[data-chip]')], items = [...document.querySelectorAll('[data-s]')];
const folds = [...document.querySelectorAll('details.m')].reverse();  // inner ones first
const sorted = document.querySelector('[data-chips]') ?? document;  // what the chips are about
const asked = new Map(folds.map(fold => [fold, fold.open]));

// The filter: every word must be found, and one of the verdicts that are pressed. It is kept in the address.
function apply() {
  const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
  const pressed = chips.filter(chip => chip.ariaPressed === 'true').map(chip => chip.dataset.chip);
  const fits = item => words.every(word => item.dataset.s.includes(word))
    && (!pressed.length || !sorted.contains(item) || item.dataset.v.split(' ').some(verdict => pressed.includes(verdict)));
  for (const item of items) item.classList.toggle('hide', !fits(item));
  const all = !words.length && !pressed.length;
  for (const fold of folds) {
    const hit = all || !!fold.querySelector('.p:not(.hide)');
    fold.classList.toggle('hide', !hit);
    fold.open = all ? asked.get(fold) : hit;
  }
  const query = new URLSearchParams();
  if (words.length) query.set('q', words.join(' '));
  if (pressed.length) query.set('v', pressed.join(' '));
  go(query.size ? '?' + query : '', location.hash);
}
function go(query, hash) {
  try { history.replaceState(null, '', location.pathname + query + hash) } catch { }  // not in a frame
}
box.addEventListener('input', apply);
for (const chip of chips) chip.addEventListener('click', () => { chip.ariaPressed = chip.ariaPressed !== 'true'; apply() });
const given = new URLSearchParams(location.search);
box.value = given.get('q') ?? '';
for (const chip of chips) chip.ariaPressed = (given.get('v') ?? '').split(' ').includes(chip.dataset.chip);
if (location.search) apply();

// A link lands below the bar, and opens what its target is folded into.
function measure() { document.body.style.setProperty('--bar', bar.offsetHeight + 'px') }
function show(target) {
  for (let fold = target.closest('details'); fold; fold = fold.parentElement.closest('details')) fold.open = true;
  target.scrollIntoView();
}
function land() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target) show(target);
}
addEventListener('resize', measure);
addEventListener('hashchange', land);
measure();
land();

// The finding after (1) or before (-1) the one that is looked at.
let at = null;
function step(by) {
  const shown = [...document.querySelectorAll('article')].filter(item => item.checkVisibility());
  const now = document.activeElement.closest('article') ?? at ?? document.querySelector('article:target');
  const next = shown[shown.includes(now) ? shown.indexOf(now) + by : by > 0 ? 0 : shown.length - 1];
  if (!next) return;
  at = next;
  next.focus({ preventScroll: true });
  show(next);
  go(location.search, '#' + next.id);
}

document.addEventListener('keydown', event => {
  const now = document.activeElement, row = now.tagName === 'SUMMARY', typing = /INPUT|SELECT/.test(now.tagName);
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === '/' && !typing) { event.preventDefault(); box.focus(); box.select() }
  if (event.key === 'Escape') { box.value = ''; for (const chip of chips) chip.ariaPressed = false; apply(); box.blur() }
  if (event.key === 'n' && !typing) step(1);
  if (event.key === 'p' && !typing) step(-1);
  if (row && (event.key === 'ArrowRight' || event.key === 'ArrowLeft')) now.parentElement.open = event.key === 'ArrowRight';
  if (row && (event.key === 'ArrowDown' || event.key === 'ArrowUp')) {
    event.preventDefault();
    const rows = [...document.querySelectorAll('summary')].filter(item => item.offsetParent !== null);
    rows[rows.indexOf(now) + (event.key === 'ArrowDown' ? 1 : -1)]?.focus();
  }
});

// Places open in the editor that is chosen; the choice is kept by the browser.
const editors = {
  'VS Code': (file, line, column) => `vscode://file${file}:${line}:${column}`,
  Cursor: (file, line, column) => `cursor://file${file}:${line}:${column}`,
  Zed: (file, line, column) => `zed://file${file}:${line}:${column}`,
  PyCharm: (file, line, column) => `pycharm://open?file=${file}&line=${line}&column=${column}`,
  'Sublime Text': (file, line, column) => `subl://open?url=file://${file}&line=${line}&column=${column}`,
};
const choice = document.getElementById('editor'), places = [...document.querySelectorAll('a[href^="vscode:"]')];
const parts = places.map(place => place.getAttribute('href').match(/^vscode:\/\/file(.*):(\d+):(\d+)$/));
function open_in(name) {
  places.forEach((place, number) => place.setAttribute('href', editors[name](...parts[number].slice(1))));
  choice.value = name;
}
if (places.length) {
  for (const name in editors) choice.add(new Option(name));
  choice.addEventListener('change', () => { open_in(choice.value); try { localStorage.fxgradEditor = choice.value } catch { } });
  try { if (localStorage.fxgradEditor in editors) open_in(localStorage.fxgradEditor) } catch { }
  choice.parentElement.hidden = false;
}
