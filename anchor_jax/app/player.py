"""The script that plays a video while it is being generated; a plain <video> waits for the complete file."""

# An H.264 file states its codec in the box avcC: version, then profile, compatibility and level, one byte each (ISO/IEC
# 14496-15, 5.3.3). Data is appended as the server sends it. Browsers without media sources fall back to plain video.
PLAY_LIVE = """
const play = async video => {
  const Source = window.ManagedMediaSource || window.MediaSource;
  if (!Source) { video.src = video.dataset.src; return; }
  const source = new Source();
  video.disableRemotePlayback = true;
  video.src = URL.createObjectURL(source);
  await new Promise(opened => source.addEventListener('sourceopen', opened, {once: true}));
  const reader = (await fetch(video.dataset.src)).body.getReader();
  let buffer = null, data = new Uint8Array(0);
  for (;;) {
    const {value, done} = await reader.read();
    if (done || !video.isConnected) break;
    data = buffer ? value : Uint8Array.of(...data, ...value);
    if (!buffer) {
      const at = data.findIndex((_, i) => String.fromCharCode(...data.subarray(i, i + 4)) === 'avcC');
      if (at < 0 || data.length < at + 8) continue;
      const kind = [...data.subarray(at + 5, at + 8)].map(byte => byte.toString(16).padStart(2, '0')).join('');
      buffer = source.addSourceBuffer(`video/mp4; codecs="avc1.${kind}"`);
    }
    const ends = buffer.buffered.length ? buffer.buffered.end(buffer.buffered.length - 1) : 0;
    const taken = new Promise(end => buffer.addEventListener('updateend', end, {once: true}));
    buffer.appendBuffer(data);
    await taken;
    if (video.currentTime > ends) video.currentTime = ends;  // playback ran past the data
    if (video.paused && !video.currentTime) video.play().catch(() => {});
  }
  reader.cancel();
  if (source.readyState === 'open') source.endOfStream();
};
const begin = () => element.querySelectorAll('video[data-src]:not([data-begun])').forEach(video => {
  video.dataset.begun = 'yes';
  play(video).catch(() => { video.src = video.dataset.src; });
});
new MutationObserver(begin).observe(element, {childList: true, subtree: true});
begin();
"""
