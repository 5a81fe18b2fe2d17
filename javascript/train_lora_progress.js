// The panel of the running or last job, and, for screen readers, what is announced of it.
"use strict";

window.trainLora = window.trainLora || {};
window.trainLora.progress = (() => {
    const page = window.trainLora;
    let parts = null; // views, in this order
    let told = null; // the last announcement

    const nameOf = ({job}) => job.name;
    const isOver = ({job}) => !page.status.isActive(job.state);
    const isCounted = ({job}) => job.total > 0;

    function duration(seconds) {
        const whole = Math.max(0, Math.round(seconds));
        const pieces = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
        return pieces.map((piece) => String(piece).padStart(2, "0")).join(":").replace(/^00:/, "");
    }

    function heldOut({job}) {
        const loss = job.held_out[job.held_out.length - 1][1];
        return loss === null ? page.words.say("validation loss is not a number") : page.words.say("validation loss {loss}", {loss: loss.toFixed(4)});
    }

    function facts({job, run}) {
        const speed = job.steps_per_s;
        const rows = [["Step", `${job.step} / ${job.total}`]];
        if (job.epochs) rows.push(["Epoch", `${job.epoch} / ${job.epochs}`]);
        const mean = run.buckets[run.buckets.length - 1]?.mean;
        if (typeof mean === "number") rows.push(["Loss", mean.toFixed(4)]);
        if (speed) rows.push(["Speed", speed >= 1 ? `${speed.toFixed(2)} it/s` : `${(1 / speed).toFixed(2)} s/it`]);
        if (job.eta_s !== null) rows.push(["Remaining", duration(job.eta_s)]);
        rows.push(["Elapsed", duration(job.seconds)]);
        if (job.memory_gb !== null) rows.push(["Memory", `${job.memory_gb.toFixed(1)} GB`]);
        return rows;
    }

    function fact() {
        return page.dom.view("div", "", {parts: [page.dom.line("dt", "", ([name]) => name), page.dom.line("dd", "", ([, text]) => text)]});
    }

    function files(title, filesOf) {
        const text = (shown) => `${page.words.say(title)}: ${filesOf(shown).join(", ")}`;
        return page.dom.line("div", "train-lora-phase", text, (shown) => filesOf(shown).length > 0);
    }

    const lowest = ({job: {best}}) => page.words.say("Lowest validation loss: {loss} at step {step}.", {...best, loss: best.loss.toFixed(4)});

    function build() {
        const {view, line, list} = page.dom;
        const button = (text, press, more) => page.dom.button("train-lora-test", {text: () => text, job: nameOf, press, ...more});
        return [
            view("div", "train-lora-head", {parts: [
                line("b", "", nameOf, nameOf),
                line("span", "train-lora-state", ({job}) => page.status.WORDS[job.state]),
                line("span", "train-lora-phase", ({job}) => job.phase),
                line("span", "train-lora-phase", heldOut, ({job}) => job.held_out.length > 0),
            ]}),
            list("train-lora-problem", ({job}) => job.problems),
            list("train-lora-note", ({job}) => job.notes),
            list("train-lora-note", ({job}) => job.choices),
            view("progress", "train-lora-bar", {
                needed: isCounted,
                attributes: ({job}) => ({max: job.total, value: job.step, "aria-label": page.words.say("Steps of {name}", job)}),
            }),
            view("dl", "train-lora-numbers", {items: facts, make: fact, key: ([name]) => name, needed: isCounted}),
            page.runChart.chart(({run}) => run.buckets.length > 1),
            page.samples.table(),
            page.ring.choice((shown) => !isOver(shown)),
            files("Saved in between", ({job}) => job.between),
            files("Files left on the disk", ({job}) => (isOver({job}) ? job.left : [])),
            view("div", "train-lora-best", {
                parts: [
                    line("span", "", lowest),
                    button("Use the best", () => page.dom.find("#train_lora_use_best").click()),
                ],
                needed: ({job}) => job.best && isOver({job}),
            }),
            button("Test in txt2img", ({job}) => page.txt2img.test(job), {
                attributes: () => ({id: "train_lora_test"}), needed: ({job}) => job.saved && job.state === "done",
            }),
        ];
    }

    function show(shown) {
        const panel = page.dom.find("#train_lora_progress");
        parts = parts || build();
        page.dom.fill(panel, parts, shown);
        panel.dataset.state = shown.job.state;
        panel.dataset.job = shown.job.id;
    }

    // Shows, instead of a job, that Train was pressed, or nothing.
    function replace(word, text) {
        const panel = page.dom.find("#train_lora_progress");
        page.dom.fill(panel, text ? [page.dom.line("div", "train-lora-head", () => text)] : []);
        panel.dataset.state = word;
    }

    const stateShown = () => page.dom.find("#train_lora_progress")?.dataset.state;

    // How a run begins and ends, what it waits for, and each quarter of its steps.
    function sentence(job) {
        const words = `${job.name}: ${page.words.say(page.status.WORDS[job.state])}`;
        if (isOver({job})) return [`${words}.`, ...job.problems, job.phase].filter(Boolean).join(" ");
        const quarter = job.total ? Math.floor(4 * job.step / job.total) : 0;
        return quarter ? `${words}, ${25 * quarter} %` : words;
    }

    function announce(job) {
        const text = sentence(job);
        const isOld = told === null && isOver({job}); // it ended before the page was opened
        if (!isOld && text !== told) page.dom.setText(page.dom.find("#train_lora_announced"), text);
        told = text;
    }

    document.addEventListener("trainLoraStatus", ({detail}) => {
        const isThere = page.dom.find("#train_lora_announced") !== null; // it is not while the webui builds or leaves its page
        if (!isThere || !detail.job || page.train.hides(detail.job)) return;
        announce(detail.job);
        show(detail);
    });

    onUiLoaded(() => page.dom.find("#train_lora_message").setAttribute("role", "status"));

    return {duration, replace, stateShown};
})();
