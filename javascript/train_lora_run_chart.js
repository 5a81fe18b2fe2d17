// The chart of a run: loss with validation, learning rates or the norm of the gradients, by step or by time. The pointer, or the
// arrow keys, read values. What is chosen and read stays while the run goes on.
"use strict";

window.trainLora = window.trainLora || {};
window.trainLora.runChart = (() => {
    const page = window.trainLora;
    const [WIDTH, HEIGHT] = [400, 160];
    const BOX = {left: 44, top: 8, width: 350, height: 130};
    const FAR = 10; // buckets, by Page Up and Page Down
    const KINDS = {
        loss: {title: "Loss", label: "Loss by step", high: "high", low: "low", digits: (value) => value.toFixed(3)},
        rate: {title: "Learning rate", label: "Learning rate by step", high: "highRate", low: "lowRate", digits: (value) => value.toExponential(1)},
        norm: {title: "Gradient norm", label: "Gradient norm by step", high: "norm", low: "norm", digits: (value) => value.toPrecision(3)},
    };
    const LEAVES = {Escape: true};
    const AXES = {step: "By step", time: "By time"};

    let kind = "loss";
    let axis = "step";
    let reading = null; // the step that is read
    let made = null;

    const isNumber = (value) => value !== null && value !== undefined;

    // The last step of each bucket, where its smoothed loss stands.
    function lastSteps({run, job}) {
        return run.buckets.map((_, place) => (place + 1 < run.buckets.length ? run.buckets[place + 1].first - 1 : job.step));
    }

    // When a step ended, in seconds: in a bucket, steps are taken to last equally long.
    function secondsAt(shown, step) {
        const {buckets} = shown.run;
        const place = bucketAt(buckets, step);
        const [before, last] = [place ? buckets[place - 1].seconds : 0, shown.lasts[place]];
        const [first, whole] = [buckets[place].first, last - buckets[place].first + 1];
        return before + (buckets[place].seconds - before) * Math.min(1, Math.max(0, (step - first + 1) / whole));
    }

    // The place of the bucket of a step, or of the nearest one.
    function bucketAt(buckets, step) {
        const after = buckets.findIndex(({first}) => first > step);
        return Math.max(0, (after < 0 ? buckets.length : after) - 1);
    }

    function across(shown, step) {
        if (axis === "step") return BOX.left + BOX.width * (step - 1) / Math.max(shown.job.total - 1, 1);
        return BOX.left + BOX.width * Math.min(1, secondsAt(shown, step) / shown.end);
    }

    const down = ({high, low}, value) => BOX.top + BOX.height * (high - value) / ((high - low) || 1);
    const line = (shown, pairs) => pairs.filter(([, value]) => isNumber(value))
        .map(([step, value]) => `${across(shown, step).toFixed(1)},${down(shown, value).toFixed(1)}`).join(" ");

    // A bucket's two extremes in the order of their steps; one if they are the same.
    function extremes({lowStep, low, highStep, high}) {
        if (lowStep === highStep) return [[lowStep, low]];
        return [[lowStep, low], [highStep, high]].sort(([one], [other]) => one - other);
    }

    const ends = (shown, name) => shown.run.buckets.map((bucket, place) => [shown.lasts[place], bucket[name]]);
    const LINES = {
        loss: {raw: (shown) => shown.run.buckets.flatMap(extremes), mean: (shown) => ends(shown, "mean")},
        rate: {raw: () => [], mean: (shown) => ends(shown, "highRate"), other: (shown) => ends(shown, "lowRate")},
        norm: {raw: () => [], mean: (shown) => ends(shown, "norm")},
    };

    const measured = ({job}) => job.held_out.filter(([step, loss]) => isNumber(loss) && step > 0);
    const isRecorded = (shown, name) => name === "loss" || shown.run.buckets.some((bucket) => isNumber(bucket[KINDS[name].high]));

    // What the chart shows, with the ends of its axes.
    function scaled({job, run}) {
        const shown = {job, run, lasts: lastSteps({job, run})};
        if (!isRecorded(shown, kind)) kind = "loss";
        const names = [KINDS[kind].low, KINDS[kind].high];
        const values = run.buckets.flatMap((bucket) => names.map((name) => bucket[name])).filter(isNumber);
        if (kind === "loss") values.push(...measured(shown).map(([, loss]) => loss));
        const now = run.buckets.length ? run.buckets[run.buckets.length - 1].seconds : 0;
        return {...shown, low: Math.min(...values), high: Math.max(...values), end: Math.max(now + (job.eta_s || 0), 1e-3)};
    }

    const number = (value) => (Number.isFinite(value) ? KINDS[kind].digits(value) : "");
    const span = (low, high) => (low === high ? number(low) : `${number(low)} \u2013 ${number(high)}`);

    // What is true of the bucket that is read, as one line.
    function words(shown) {
        const say = page.words.say;
        const place = bucketAt(shown.run.buckets, reading ?? Infinity);
        const [bucket, last] = [shown.run.buckets[place], shown.lasts[place]];
        const told = [bucket.first === last ? say("Step {step}", {step: last}) : say("Steps {first} to {last}", {first: bucket.first, last})];
        const [low, high] = [bucket[KINDS[kind].low], bucket[KINDS[kind].high]];
        told.push(`${say(KINDS[kind].title)} ${isNumber(high) ? span(low, high) : say("Not a number")}`);
        if (kind === "loss" && isNumber(bucket.mean)) told.push(say("Smoothed {loss}", {loss: number(bucket.mean)}));
        const held = kind === "loss" ? measured(shown).filter(([step]) => step >= bucket.first && step <= last) : [];
        for (const [, loss] of held) told.push(say("Validation {loss}", {loss: number(loss)}));
        return [...told, page.progress.duration(bucket.seconds)].join(", ");
    }

    function read(step) {
        reading = step;
        if (made) made.show(made.shown);
    }

    function pointed({clientX}) {
        const {left, width} = made.node.getBoundingClientRect();
        const at = (clientX - left) * WIDTH / width;
        const {lasts} = made.shown;
        const distance = (step) => Math.abs(across(made.shown, step) - at);
        read(lasts.reduce((best, step) => (distance(step) < distance(best) ? step : best), lasts[0]));
    }

    function pressed(event) {
        const {lasts, run} = made.shown;
        const here = reading === null ? lasts.length : bucketAt(run.buckets, reading);
        const to = {
            ArrowLeft: here - 1, ArrowDown: here - 1, ArrowRight: here + 1, ArrowUp: here + 1, PageDown: here - FAR, PageUp: here + FAR,
            Home: 0, End: lasts.length - 1,
        }[event.key];
        if (LEAVES[event.key]) read(null);
        if (to === undefined) return;
        event.preventDefault();
        read(lasts[Math.min(lasts.length - 1, Math.max(0, to))]);
    }

    function dots() {
        const dot = () => page.dom.view("circle", "train-lora-held-out", {attributes: ({x, y}) => ({cx: x, cy: y, r: 2.5})});
        const places = (shown) => (kind === "loss" ? measured(shown) : []).map(([step, loss]) => ({
            step, x: across(shown, step).toFixed(1), y: down(shown, loss).toFixed(1),
        }));
        return page.dom.view("g", "", {items: places, make: dot, key: ({step}) => step});
    }

    function drawing() {
        const {view} = page.dom;
        const label = (x, y, anchor, text) => view("text", "", {text, attributes: () => ({x, y, "text-anchor": anchor})});
        const curve = (name) => view("polyline", `train-lora-${name}`, {
            attributes: (shown) => ({points: line(shown, LINES[kind][name](shown))}), needed: () => LINES[kind][name],
        });
        const bar = view("line", "train-lora-reading", {
            attributes: (shown) => {
                const x = across(shown, reading).toFixed(1);
                return {x1: x, x2: x, y1: BOX.top, y2: BOX.top + BOX.height};
            },
            needed: () => reading !== null,
        });
        const rightEnd = ({job, end}) => (axis === "step" ? String(job.total) : page.progress.duration(end));
        return view("svg", "train-lora-chart", {
            attributes: (shown) => ({ // a slider: its value is read out when it changes
                viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "slider", tabindex: 0, "aria-label": KINDS[kind].label, "aria-valuemin": 1,
                "aria-valuemax": shown.job.total, "aria-valuenow": reading ?? 1,
                "aria-valuetext": reading === null ? "Arrow keys read the values" : words(shown),
            }),
            parts: [
                label(40, 14, "end", ({high}) => number(high)), label(40, 140, "end", ({low}) => number(low)),
                label(44, 156, "start", () => (axis === "step" ? "1" : "00:00")), label(394, 156, "end", rightEnd),
                curve("raw"), curve("mean"), curve("other"), dots(), bar,
            ],
        });
    }

    function select(label, options, chosen, choose) {
        const {view} = page.dom;
        const option = () => view("option", "", {text: ({title}) => title, attributes: ({name}) => ({value: name})});
        const one = view("select", "", {attributes: () => ({"aria-label": label}), items: options, make: option, key: ({name}) => name});
        one.node.addEventListener("change", () => {
            choose(one.node.value);
            made.show(made.shown);
        });
        const {show} = one;
        return {...one, show: (shown) => { show(shown); if (one.node.value !== chosen()) one.node.value = chosen(); }};
    }

    // A view of `{job, run}`.
    function chart(needed) {
        const kinds = (shown) => Object.entries(KINDS).filter(([name]) => isRecorded(shown, name)).map(([name, {title}]) => ({name, title}));
        const axes = () => Object.entries(AXES).map(([name, title]) => ({name, title}));
        const svg = drawing();
        const whole = page.dom.view("div", "train-lora-run-chart", {parts: [
            page.dom.view("div", "train-lora-row-buttons", {parts: [
                select("Curve", kinds, () => kind, (name) => { kind = name; }), select("Axis", axes, () => axis, (name) => { axis = name; }),
            ]}),
            svg,
            page.dom.line("div", "train-lora-hint", (shown) => (reading === null ? "\u00a0" : words(shown))),
        ]});
        const show = (told) => whole.show(scaled(told));
        made = {node: svg.node, get shown() { return whole.shown; }, show};
        svg.node.addEventListener("pointermove", pointed);
        svg.node.addEventListener("pointerleave", () => { if (svg.node.getRootNode().activeElement !== svg.node) read(null); });
        svg.node.addEventListener("keydown", pressed);
        svg.node.addEventListener("blur", () => read(null));
        return {node: whole.node, needed, show};
    }

    return {chart};
})();
