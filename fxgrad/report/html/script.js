const box = document.getElementById('filter'), tree = document.getElementById('tree'), bar = document.querySelector('nav');
const folds = [...tree.querySelectorAll('details.m')].reverse();  // inner ones first
const asked = new Map(folds.map(fold => [fold, fold.open]));

function apply() {
  const word = box.value.trim().toLowerCase();
  for (const item of document.querySelectorAll('[data-s]')) item.classList.toggle('hide', !item.dataset.s.includes(word));
  for (const fold of folds) {
    const hit = !!fold.querySelector('.p:not(.hide)');
    fold.classList.toggle('hide', !hit);
    fold.open = word === '' ? asked.get(fold) : hit;
  }
}
box.addEventListener('input', apply);

// A link lands below the bar, and opens what its target is folded into.
function measure() { document.body.style.setProperty('--bar', bar.offsetHeight + 'px') }
function land() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  for (let fold = target.closest('details'); fold; fold = fold.parentElement.closest('details')) fold.open = true;
  target.scrollIntoView();
}
addEventListener('resize', measure);
addEventListener('hashchange', land);
measure();
land();

document.addEventListener('keydown', event => {
  const now = document.activeElement, row = now.tagName === 'SUMMARY';
  if (event.key === '/' && now !== box) { event.preventDefault(); box.focus(); box.select() }
  if (event.key === 'Escape') { box.value = ''; apply(); box.blur() }
  if (row && (event.key === 'ArrowRight' || event.key === 'ArrowLeft')) now.parentElement.open = event.key === 'ArrowRight';
  if (row && (event.key === 'ArrowDown' || event.key === 'ArrowUp')) {
    event.preventDefault();
    const rows = [...document.querySelectorAll('summary')].filter(item => item.offsetParent !== null);
    rows[rows.indexOf(now) + (event.key === 'ArrowDown' ? 1 : -1)]?.focus();
  }
});
