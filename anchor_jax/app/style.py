"""The page's style: Gradio's own colors, light or dark, in one column that fits a phone."""

CSS = """
.gradio-container { max-width: 860px !important; width: 100% !important; margin: 0 auto !important; }
span[data-testid="block-info"] { background: none !important; padding: 0 !important; font-weight: 600;
  color: var(--body-text-color) !important; }
#title h1 { font-size: 1.7rem; margin: .4rem 0 .1rem; letter-spacing: -.02em; }
#title p { color: var(--body-text-color-subdued); margin: 0; }
.quiet { color: var(--body-text-color-subdued); font-size: .92rem; }
.line { list-style: none; margin: 0; padding: 0; font-size: .92rem; }
.line li, div.line { display: flex; justify-content: space-between; gap: 1rem; padding: .45rem .8rem;
  border-radius: 8px; background: var(--background-fill-secondary); margin-bottom: .25rem; }
.line li.now { border-left: 3px solid var(--color-accent); }
.line li span { color: var(--body-text-color-subdued); text-align: right; }
.job { border: 1px solid var(--border-color-primary); border-radius: 10px; padding: .7rem .8rem; margin: .4rem 0; }
.job .head { display: flex; flex-wrap: wrap; align-items: center; gap: .3rem .8rem; margin-bottom: .5rem; }
.job .head span { color: var(--body-text-color-subdued); flex: 1; font-size: .92rem; }
.bar { height: 8px; border-radius: 4px; background: var(--background-fill-secondary); overflow: hidden; }
.bar i { display: block; height: 100%; background: var(--color-accent); border-radius: 4px; transition: width .6s; }
.note { padding: .6rem .8rem; border-radius: 8px; background: var(--background-fill-secondary); margin: .4rem 0; }
.note.bad { border-left: 4px solid #d4543f; }
.note.warn { border-left: 4px solid #e0a020; }
.act { display: inline-block; padding: .38rem .85rem; border: 1px solid var(--border-color-primary); border-radius: 8px;
  background: var(--background-fill-primary); color: var(--body-text-color) !important; cursor: pointer;
  text-decoration: none !important; font-size: .9rem !important; font-weight: 500 !important;
  box-shadow: none !important; }
.act:hover { border-color: var(--color-accent); }
.acts { display: flex; gap: .5rem; flex-wrap: wrap; }
.videos { display: grid; grid-template-columns: repeat(auto-fill, minmax(250px, 1fr)); gap: 1rem; }
.video { border: 1px solid var(--border-color-primary); border-radius: 12px; padding: .7rem; }
#aside:not(:has(.note)), #making:not(:has(.job)), #live:not(:has(video)) { display: none; }
.live { width: 100%; max-width: 420px; }
#making h4, .video h4 { margin: 0 0 .5rem; font-size: .95rem; font-weight: 600; }
.live, .video video, .pair video { width: 100%; aspect-ratio: auto 1; border-radius: 8px; background: #0d1016;
  display: block; }
.video .acts { margin-top: .6rem; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: .7rem; }
.pair figure, .found figure, .training figure { margin: 0; }
figcaption { color: var(--body-text-color-subdued); font-size: .85rem; padding-top: .25rem; }
.found h3 { margin: .2rem 0 .3rem; font-size: 1.05rem; }
.found ul { margin: 0 0 .6rem; padding-left: 1.1rem; }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(240px, 1fr)); gap: .8rem;
  align-items: start; }
.found img, .training img { width: 100%; border-radius: 8px; image-rendering: auto; }
.curve svg { width: 100%; height: auto; background: var(--background-fill-secondary); border-radius: 8px; }
.curve polyline { fill: none; stroke: var(--color-accent); stroke-width: 2.5; stroke-linejoin: round; }
.curve circle { fill: #e0a020; }
.training figure { margin: .6rem 0; }
@media (max-width: 480px) {
  .gradio-container { padding: .5rem !important; }
  span[data-testid="block-info"] { background: none !important; padding: 0 !important; font-weight: 600;
  color: var(--body-text-color) !important; }
#title h1 { font-size: 1.4rem; }
  .pair { gap: .4rem; }
}
"""

# Buttons inside our HTML send their action to the click handler of their component.
ON_CLICK = """
element.addEventListener('click', event => {
  const button = event.target.closest('[data-act]');
  if (button && (!button.dataset.ask || confirm(button.dataset.ask)))
    trigger('click', {act: button.dataset.act, job: button.dataset.job});
});
"""
