// Before and after of one clip: chosen, restored by the server, compared.

const POLL_MS = 300;
const MOST_DRIFT = 0.25; // seconds by which one video may be behind until it jumps instead of hurrying

const $ = (id) => document.getElementById(id);

let file = null; // chosen
let job = null; // its address at the server
let asking = new AbortController(); // ends what is asked for the job
let player = null;

// ---- states: empty, chosen, working, result

function enter(state) {
  for (const part of document.querySelectorAll('[data-for]')) {
    part.classList.toggle('away', !part.dataset.for.split(' ').includes(state));
  }
  $('restore').disabled = state !== 'chosen';
}

function say(text) {
  $('said').textContent = text;
}

function complain(text) {
  $('error').textContent = text;
}

function choose(chosen) {
  leave();
  file = chosen;
  complain('');
  $('title').textContent = file.name;
  $('subtitle').textContent = `${Math.ceil(file.size / 1e5) / 10} MB`;
  enter('chosen');
  $('restore').focus({ preventScroll: true });
}

/** Forgets the job, here and at the server. */
function leave() {
  player?.stop();
  player = null;
  asking.abort();
  if (job) fetch(job, { method: 'DELETE', keepalive: true }).catch(() => {}); // a server that is gone has none
  job = null;
  put('before', 'div');
  put('after', 'div');
  $('notes').replaceChildren();
}

// ---- the server

/** Returns the server's answer; throws an Error with its sentence. */
async function ask(address, options) {
  const response = await fetch(address, options).catch(() => {
    throw new Error('The server does not answer; is dblr demo-page running?');
  });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

async function restore() {
  complain('');
  enter('working');
  $('cancel').focus({ preventScroll: true });
  say('Restoring');
  progress('Copying the clip');
  asking = new AbortController();
  const { signal } = asking;
  try {
    const form = { name: file.name, size: file.size, start: $('start').value, length: $('length').value };
    const { id } = await ask('/jobs', { method: 'POST', body: JSON.stringify(form), signal });
    job = `/jobs/${id}`;
    await ask(job, { method: 'PUT', body: file, signal });
    show(await result(signal));
  } catch (error) {
    if (signal.aborted) return;
    leave();
    enter('chosen');
    complain(error.message);
    $('restore').focus({ preventScroll: true });
  }
}

/** Shows how far the job is until it is done. */
async function result(signal) {
  for (;;) {
    const status = await ask(job, { signal });
    if (status.state === 'failed') throw new Error(status.error);
    if (status.state === 'done') return status;
    if (status.state === 'waiting') progress('Waiting for another clip to be done');
    else if (!status.done) progress('Starting');
    else progress(figures(status), status.done, status.total);
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    signal.throwIfAborted();
  }
}

function figures({ done, total, rate, seconds_left: left }) {
  const frames = `frame ${done} of ${total}`;
  return rate ? `${frames}, ${Number(rate.toPrecision(2))} fps, ${clock(left)} left` : frames;
}

function clock(seconds) {
  const whole = Math.ceil(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, '0')}`;
}

function progress(text, done, total) {
  $('figures').textContent = text;
  if (done) {
    $('progress').max = total;
    $('progress').value = done;
  } else {
    $('progress').removeAttribute('value');
  }
}

function cancel() {
  leave();
  enter('chosen');
  say('Cancelled');
  $('restore').focus({ preventScroll: true });
}

// ---- the result

function show({ aspect, times, notes }) {
  const kind = times.length ? 'video' : 'img';
  const [before, after] = ['before', 'after'].map((id) => {
    const element = put(id, kind);
    Object.assign(element, { muted: true, playsInline: true, preload: 'auto', src: `${job}/${id}` });
    element.setAttribute('aria-label', id === 'before' ? 'As it came' : 'Restored');
    element.onerror = () => {
      if (element.isConnected) complain('This browser cannot show the result; the download is complete.');
    };
    return element;
  });
  $('pair').style.setProperty('--aspect', aspect);
  $('download').href = `${job}/download`;
  $('notes').replaceChildren(
    ...notes.map((note) => Object.assign(document.createElement('li'), { textContent: note })),
  );
  divide(50);
  enter('result');
  $('player').classList.toggle('away', kind === 'img');
  if (kind === 'video') {
    player = new Player(before, after, times);
    if (!matchMedia('(prefers-reduced-motion: reduce)').matches) player.play();
  }
  say('Restored');
  $('divider').focus({ preventScroll: true });
}

/** Puts a new element of this kind in the place of another. */
function put(id, kind) {
  const element = Object.assign(document.createElement(kind), { id });
  $(id).replaceWith(element);
  return element;
}

function divide(percent) {
  $('divider').value = percent;
  $('pair').style.setProperty('--at', `${percent}%`);
}

/** Two videos of the same frame times with one set of controls; they repeat until paused. */
class Player {
  constructor(before, after, times) {
    [this.before, this.after, this.times] = [before, after, times];
    this.playing = false;
    $('scrub').max = times.length - 1;
    after.onended = () => this.playing && this.begin();
    this.display(0);
  }

  /** The number of the frame that is shown. */
  get frame() {
    const later = this.times.findIndex((time) => time > this.after.currentTime + 1e-4);
    return later < 0 ? this.times.length - 1 : Math.max(0, later - 1);
  }

  play() {
    this.playing = true;
    if (this.frame === this.times.length - 1) this.begin();
    for (const video of [this.before, this.after]) video.play().catch(() => this.pause());
    $('play').classList.add('playing');
    $('play').setAttribute('aria-label', 'Pause');
    this.tick();
  }

  begin() {
    for (const video of [this.before, this.after]) {
      video.currentTime = 0;
      video.play();
    }
  }

  pause() {
    this.go(this.frame);
  }

  stop() {
    this.playing = false;
    for (const video of [this.before, this.after]) video.pause();
    $('play').classList.remove('playing');
    $('play').setAttribute('aria-label', 'Play');
  }

  /** Stops at a frame, by its number. */
  go(number) {
    this.stop();
    const frame = Math.min(Math.max(number, 0), this.times.length - 1);
    const time = this.times[frame];
    // its middle, so that rounding does not lead to a neighbour
    const middle = frame + 1 < this.times.length ? (time + this.times[frame + 1]) / 2 : time + 1e-3;
    for (const video of [this.before, this.after]) video.currentTime = middle;
    this.display(frame);
  }

  /** Keeps the videos in step, and the controls with them. */
  tick() {
    if (!this.playing) return;
    const drift = this.before.currentTime - this.after.currentTime;
    if (Math.abs(drift) > MOST_DRIFT && !this.before.seeking) this.before.currentTime = this.after.currentTime;
    this.before.playbackRate = Math.min(Math.max(1 - 4 * drift, 0.5), 2);
    this.display(this.frame);
    requestAnimationFrame(() => this.tick());
  }

  display(frame) {
    $('scrub').value = frame;
    $('where').textContent = `${frame + 1} of ${this.times.length}, ${this.times[frame].toFixed(2)} s`;
  }
}

// ---- what the user does

$('file').onchange = () => $('file').files.length && choose($('file').files[0]);
document.querySelector('form').onsubmit = (event) => {
  event.preventDefault();
  restore();
};
$('cancel').onclick = cancel;
$('again').onclick = () => {
  leave();
  $('file').value = '';
  $('title').textContent = 'Drop a video or an image here';
  $('subtitle').textContent = 'or choose one';
  enter('empty');
  $('file').focus({ preventScroll: true });
};
$('divider').oninput = () => divide($('divider').value);
$('play').onclick = () => (player.playing ? player.pause() : player.play());
$('back').onclick = () => player.go(player.frame - 1);
$('forward').onclick = () => player.go(player.frame + 1);
$('scrub').oninput = () => player.go(Number($('scrub').value));

for (const kind of ['dragenter', 'dragover', 'dragleave', 'drop']) {
  addEventListener(kind, (event) => {
    event.preventDefault();
    $('drop').classList.toggle('over', kind.startsWith('drag') && kind !== 'dragleave');
    if (kind === 'drop' && event.dataTransfer.files.length) choose(event.dataTransfer.files[0]);
  });
}

addEventListener('pagehide', (event) => event.persisted || leave());

enter('empty');
